"""What exports need besides graphs: quiet tools, and what the CPU can do with 8-bit numbers."""

import logging
import warnings

import pytest

from lpipstore.cache.errors import LpipstoreError, UsageError
from lpipstore.pipeline.graphs.card import ModelCard
from lpipstore.pipeline.graphs.onnx_file import OPSETS, check_opset, need_onnx
from lpipstore.pipeline.graphs.quantised import has_vnni
from lpipstore.pipeline.graphs.tracing import quietly


def test_quiet_tools_say_nothing_but_errors_and_leave_logging_as_it_was(caplog):
    handlers, disabled = list(logging.root.handlers), logging.root.manager.disable
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with quietly():
            warnings.warn("of a tool", stacklevel=1)
            logging.warning("of a tool")
            logging.error("of a tool that fails")
        warnings.warn("of ours", stacklevel=1)
    assert [str(each.message) for each in shown] == ["of ours"]
    assert caplog.messages == ["of a tool that fails"]
    with pytest.raises(ZeroDivisionError), quietly():
        1 / 0  # noqa: B018
    assert (logging.root.handlers, logging.root.manager.disable) == (handlers, disabled)


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ("fpu avx2 avx512_vnni", True),
        ("avx_vnni", True),
        ("avx2 avx512f avx512_vnnix", False),
        (None, False),
    ],
)
def test_vnni_is_read_from_the_flags_of_the_cpu(tmp_path, flags, found):
    if flags is not None:
        text = f"processor\t: 0\nmodel name\t: avx_vnni\nflags\t\t: {flags}\nbugs\t: none\n"
        (tmp_path / "cpuinfo").write_text(text)
    assert has_vnni(tmp_path / "cpuinfo") is found


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_names_the_extra(monkeypatch, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(LpipstoreError, match=rf"package {package},.*lpipstore\[onnx\]"):
        need_onnx()


def test_opsets_are_those_that_torch_writes():
    for opset in (OPSETS[0], OPSETS[-1]):
        check_opset(opset)
    for opset in (OPSETS[0] - 1, OPSETS[-1] + 1):
        with pytest.raises(UsageError, match=f"no export to opset={opset}: choose 18 to 23"):
            check_opset(opset)


def test_metadata_that_are_not_ours_are_refused():
    with pytest.raises(UsageError, match=r"^m was not exported by .* lack lpipstore\.form"):
        ModelCard.of_entries({"framework": "other"}, "m")
    card = ModelCard("pair", "no", "unit", "any", "alex", "", "0", "1", "yes", "0.1", "1")
    assert ModelCard.of_entries(card.entries(), "m") == card
    with pytest.raises(UsageError, match="m holds a model that .* size '64'"):
        ModelCard.of_entries({**card.entries(), "lpipstore.size": "64"}, "m")
