"""The examples in docstrings do what they say."""

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize(
    "name",
    [
        "cache.errors",
        "cache.store",
        "pipeline.distances.module",
        "workflows.adapters.sklearn",
        "workflows.adapters.torchmetrics",
        "workflows.store.exchange",
        "workflows.api.arrays",
        "workflows.api.exporting",
        "workflows.api.learning",
        "workflows.api.scoring",
        "workflows.api.searching",
        "workflows.api.stores",
        "workflows.api.viewing",
        "workflows.viewing.report.names",
        "workflows.viewing.run",
    ],
)
def test_examples_in_docstrings(name, monkeypatch, tmp_path):
    monkeypatch.setenv("LPIPSTORE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("LPIPSTORE_CACHE", str(tmp_path / "cache"))
    outcome = doctest.testmod(import_module(f"lpipstore.{name}"))
    assert outcome.attempted > 0
    assert outcome.failed == 0
