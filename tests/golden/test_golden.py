"""Golden files: a store and a run of each kind, written by an earlier version, are still good."""

import csv
import importlib.util
import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

import lpipstore
from lpipstore.pipeline.backbones.load import load_backbone

HERE = Path(__file__).parent
WRITER = runpy.run_path(str(HERE / "write.py"))
KINDS, MODEL = WRITER["KINDS"], WRITER["MODEL"]
CLOSE = 1e-7  # other processors and other versions of torch may add up in another order


@pytest.fixture
def golden(tmp_path, monkeypatch):
    """A copy of the golden files, which is also the working folder."""
    shutil.unpack_archive(HERE / "data.zip", tmp_path / "golden")
    for path in (tmp_path / "golden" / "runs").glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        # where the relative paths of the pictures begin: the only thing that a copy changes
        path.write_text(json.dumps({**manifest, "folder": str(tmp_path / "golden")}))
    monkeypatch.chdir(tmp_path / "golden")
    return tmp_path / "golden"


@pytest.fixture
def same_trunk(golden):
    """Skip where torch draws another random trunk than the one of the golden rows."""
    written = json.loads((golden / "runs" / "pairs" / "manifest.json").read_text())
    if load_backbone("alex", weights="random").weights_digest != written["weights"]:
        pytest.skip("this version of torch draws other random weights than the golden files have")


@pytest.fixture
def stock_head():
    (package,) = importlib.util.find_spec("lpips").submodule_search_locations
    return Path(package) / "weights" / "v0.1" / "alex.pth"


def numbers_of(folder):
    """Return which images are compared, and their distances."""
    run = lpipstore.open_run(folder)
    if (folder / "pairs.parquet").exists():
        table = run.pairs
        images = [table[name].to_pylist() for name in ("i", "j") if name in table.column_names]
        return images, table["distance"].to_numpy()
    return run.distances.shape, run.distances.compute()


def assert_same_numbers(one, two):
    (images, distances), (same, others) = numbers_of(one), numbers_of(two)
    assert images == same
    np.testing.assert_allclose(others, distances, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_golden_run_tells_what_it_has(golden, kind):
    run = lpipstore.open_run(golden / "runs" / kind)
    _, distances = numbers_of(golden / "runs" / kind)
    scored = distances[~np.isnan(distances)]
    assert ((scored == 0) | ((scored > 0.09) & (scored < 0.21))).all()
    assert (scored < 0.12).all() == (kind in ("below", "top-k", "across", "below-across"))
    assert run.summary["forwards"] == (8 if kind == "pairs" else 0)  # a picture and its copy
    if kind == "pairs":
        upper = distances[np.triu_indices(9, 1)]
        assert (upper == 0).sum() == 1
        assert run.summary["mean"] == pytest.approx(upper.mean(), rel=1e-6)
    names = [Path(path).name for path in run.images["path"].to_pylist()]
    assert set(names) <= {f"{number:03}.png" for number in range(6)}
    assert len(names) >= 4


@pytest.mark.parametrize("kind", KINDS)
def test_golden_rows_give_the_golden_numbers(cli, golden, stock_head, kind):
    command = ("rescore", f"runs/{kind}", "--heads", stock_head, "--store", "store", "--no-compute")
    outcome = cli(*command, "--out", "again", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["forwards"] == 0
    assert_same_numbers(golden / "runs" / kind, golden / "again")


@pytest.mark.parametrize("kind", KINDS)
def test_a_golden_run_is_made_again_without_forwards(cli, golden, same_trunk, kind):
    command = ("pairs", "--from", f"runs/{kind}", "--store", "store", "--workers", "0")
    outcome = cli(*command, "--out", "again", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["forwards"] == 0
    assert_same_numbers(golden / "runs" / kind, golden / "again")


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_of_a_golden_run_finds_it_finished(cli, golden, same_trunk, kind, files_of):
    before = files_of(Path("runs") / kind)
    outcome = cli(*KINDS[kind], *MODEL, "--out", f"runs/{kind}", "--json")
    assert outcome.code == 0, outcome.err
    summary = json.loads(outcome.out)
    assert (summary["forwards"], summary.get("rows_read", 0)) == (0, 0)
    assert files_of(Path("runs") / kind) == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_golden_run_is_exported(cli, golden, kind):
    outcome = cli("export", f"runs/{kind}", "--format", "csv", "--out", "export.csv")
    assert outcome.code == 0, outcome.err
    with open("export.csv", newline="") as file:
        header, *lines = csv.reader(file)
    _, distances = numbers_of(golden / "runs" / kind)
    if distances.ndim == 2:
        exported = np.array([line[1:] for line in lines], np.float32)
    else:
        exported = np.array([line[header.index("distance")] or "nan" for line in lines], np.float32)
    assert np.array_equal(exported, distances, equal_nan=True)


def test_the_golden_store_holds_every_row(cli, golden):
    outcome = cli("store", "verify", "--store", "store", "--json")
    assert outcome.code == 0, outcome.err
    outcome = cli("store", "info", "--store", "store", "--json")
    info = json.loads(outcome.out)
    assert (info["rows"], info["corrupt_rows"]) == (8, 0)
    (pool,) = info["pools"]
    assert (pool["length"], pool["dtype"], pool["segments"]) == (5760, "uint16", 1)
