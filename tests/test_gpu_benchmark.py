"""The benchmark of a GPU runs on the CPU in small: it cannot rot while no GPU is at hand."""

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest


@pytest.fixture
def gpu(monkeypatch):
    """The benchmark as a module."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "benchmarks"))
    return import_module("gpu")


def test_it_measures_every_part_and_keeps_to_the_bounds(gpu, monkeypatch, tmp_path, capsys):
    file = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--small", "--json", str(file)])
    assert gpu.main() == 0
    told = json.loads(file.read_text())
    parts = {figure["part"] for figure in told["figures"]}
    assert parts == {"accuracy", "forward", "torch.mm", "scoring", "store", "below"}
    exact = [figure for figure in told["figures"] if figure["case"].startswith("exact")]
    assert any(figure["met"] for figure in exact)
    listed = next(figure["case"] for figure in told["figures"] if "listed" in figure["case"])
    assert "4 pairs listed" in listed
    assert "| accuracy | exact alex 64 px |" in capsys.readouterr().out


def test_a_target_that_is_missed_is_the_exit_status(gpu, monkeypatch):
    monkeypatch.setattr(gpu, "ALLOWED", 0)
    monkeypatch.setattr(
        sys, "argv", ["gpu.py", "--device", "cpu", "--small", "--parts", "accuracy"]
    )
    assert gpu.main() == 1
