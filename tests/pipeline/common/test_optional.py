"""Packages that only some users need: one message, whatever is missing."""

import json
import sys

import pytest

from lpipstore.cache.errors import UsageError
from lpipstore.pipeline.common.optional import optional


def test_a_module_that_is_there_is_returned():
    assert optional("json", "JSON needs json", "json") is json


def test_a_missing_one_is_named_with_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UsageError) as caught:
        optional("av", "videos need PyAV", "lpipstore[video]")
    expected = "videos need PyAV, which is not installed: pip install 'lpipstore[video]'"
    assert (str(caught.value), caught.value.exit_code) == (expected, 2)


def test_a_broken_one_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("from json import nothing_like_it")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=r"which cannot be imported \(cannot import name 'nothing"):
        optional("broken_module", "it needs that", "that")
