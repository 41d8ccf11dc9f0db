"""What other programs get: the same distances, in the order that they expect."""

import csv
import io
import json

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from scipy.spatial.distance import squareform

import lpipstore
from lpipstore.pipeline.runs.files import DISTANCES

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")


@pytest.fixture
def run(cli, pictures, tmp_path):
    (pictures / 'a "quoted", name.png').write_bytes((pictures / "000.png").read_bytes())
    (pictures / "broken.png").write_bytes(b"")
    assert cli("pairs", pictures, *MODEL, "--out", tmp_path / "run").code == 0
    return lpipstore.open_run(tmp_path / "run")


@pytest.fixture
def paths(run):
    return [row["path"] for row in run.images.to_pylist() if row["index"] is not None]


@pytest.fixture
def cross(cli, pictures, tmp_path, draw):
    draw(tmp_path / "others", 3, seed=3)
    command = ("compare", pictures, tmp_path / "others", *MODEL, "--out", tmp_path / "cross")
    assert cli(*command).code == 0
    return lpipstore.open_run(tmp_path / "cross")


@pytest.fixture
def listed(cli, pictures, tmp_path):
    lines = ["a,b,rating,note", "000.png,001.png,3,x", "gone.png,001.png,4,", "002.png,002.png,5,z"]
    (pictures / "pairs.csv").write_text("\n".join(lines) + "\n")
    command = ("score", pictures / "pairs.csv", *MODEL, "--out", tmp_path / "listed")
    assert cli(*command).code == 0
    return lpipstore.open_run(tmp_path / "listed")


def test_a_square_as_csv(cli, run, paths, tmp_path):
    out = tmp_path / "square.csv"
    outcome = cli("export", run.path, "--out", out, "--json")
    assert json.loads(outcome.out)["bytes"] == out.stat().st_size
    with out.open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["path", *paths]
    assert [line[0] for line in lines] == paths
    numbers = np.array([line[1:] for line in lines], np.float32)
    assert np.array_equal(numbers, run.distances.compute())


@pytest.mark.parametrize("choice", [(), ("--format", "csv")])
def test_csv_on_the_standard_output(cli, run, monkeypatch, choice):
    out = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr("sys.stdout", out)
    cli("export", run.path, *choice, "--out", "-")
    printed = out.buffer.getvalue()
    cli("export", run.path, "--format", "csv")
    assert printed == (run.path / "export.csv").read_bytes()


def test_pairs_as_parquet(cli, run, paths, tmp_path):
    assert cli("export", run.path, "--out", tmp_path / "long.parquet").code == 0
    table = pyarrow.parquet.read_table(tmp_path / "long.parquet").to_pydict()
    i, j = np.triu_indices(len(paths), 1)
    assert (table["i"], table["j"]) == (i.tolist(), j.tolist())
    assert table["path_j"] == [paths[n] for n in j]
    assert table["path_i"] == [paths[n] for n in i]
    assert table["distance"] == run.distances.compute()[i, j].tolist()


def test_arrays_as_scipy_takes_them(cli, run, paths, tmp_path):
    assert cli("export", run.path, "--out", tmp_path / "arrays.npz").code == 0
    with np.load(tmp_path / "arrays.npz", allow_pickle=False) as arrays:
        assert arrays["paths"].tolist() == paths
        assert np.array_equal(squareform(arrays["condensed"]), arrays["distances"])
        assert np.array_equal(arrays["distances"], run.distances.compute())


def test_two_sides(cli, cross, tmp_path):
    expected = cross.distances.compute()
    for kind in ("csv", "parquet", "npz"):
        assert cli("export", cross.path, "--format", kind).code == 0
    with np.load(cross.path / "export.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["distances"], expected)
        assert "condensed" not in arrays
        assert (len(arrays["paths_first"]), len(arrays["paths_second"])) == expected.shape
    table = pyarrow.parquet.read_table(cross.path / "export.parquet")
    assert table.column("distance").to_pylist() == expected.reshape(-1).tolist()
    square = pyarrow.csv.read_csv(cross.path / "export.csv")
    assert square.column(3).to_pylist() == pytest.approx(expected[:, 2].tolist(), abs=0, rel=1e-7)


def test_lists(cli, listed, tmp_path):
    for kind in ("csv", "parquet", "npz"):
        assert cli("export", listed.path, "--format", kind).code == 0
    assert pyarrow.parquet.read_table(listed.path / "export.parquet").equals(listed.pairs)
    with (listed.path / "export.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["rating"] for line in lines] == ["3", "4", "5"]
    assert lines[1]["distance"] == ""
    with np.load(listed.path / "export.npz", allow_pickle=False) as arrays:
        assert np.isnan(arrays["distance"]).tolist() == [False, True, False]
        assert arrays["i"].tolist()[1] == -1
        assert arrays["path_i"].tolist()[2].endswith("002.png")


def test_several_bands(cli, draw, tmp_path):
    draw(tmp_path / "many", 520, side=17)
    cli("pairs", tmp_path / "many", *MODEL, "--out", tmp_path / "run")
    for kind in ("csv", "parquet", "npz"):
        assert cli("export", tmp_path / "run", "--format", kind).code == 0
    expected = lpipstore.open_run(tmp_path / "run").distances.compute()
    square = pyarrow.csv.read_csv(tmp_path / "run" / "export.csv")
    assert np.array_equal(square.column(516).to_numpy().astype(np.float32), expected[:, 515])
    table = pyarrow.parquet.read_table(tmp_path / "run" / "export.parquet")
    assert np.array_equal(table.column("distance").to_numpy(), expected[np.triu_indices(520, 1)])


def test_scikit_learn_takes_the_matrix(run):
    cluster = pytest.importorskip("sklearn.cluster", reason="needs scikit-learn")
    distances = run.distances.compute()
    linkage = cluster.AgglomerativeClustering(3, metric="precomputed", linkage="average")
    labels = linkage.fit_predict(distances)
    assert len(set(labels)) == 3
    assert labels[0] == labels[8]  # a copy: distance 0


def test_what_cannot_be_exported(cli, run, tmp_path):
    mine = tmp_path / "mine.csv"
    mine.write_text("mine\n")
    training = tmp_path / "training"
    training.mkdir()
    for name in ("manifest.json", "summary.json"):
        (training / name).write_text('{"command": "train"}')
    for arguments, code, words in (
        ((run.path,), 2, "choose a --format: csv, parquet, npz"),
        ((run.path, "--out", tmp_path / "sheet.xlsx"), 2, "choose a --format"),
        ((run.path, "--format", "xlsx"), 2, "unknown --format 'xlsx'"),
        ((run.path, "--format", "npz", "--out", "-"), 2, "prints csv only"),
        ((tmp_path, "--format", "csv"), 2, "is not a run"),
        ((run.path, "--format", "parquet", "--out", run.path / "images.parquet"), 2, "exists"),
        ((run.path, "--format", "csv", "--out", run.path / DISTANCES / "zarr.json"), 2, "exists"),
        ((run.path, "--format", "csv", "--out", mine), 2, "mine.csv exists"),
        ((run.path, "--format", "csv", "--out", tmp_path / "x.npz"), 2, "csv contradicts --out"),
        ((training, "--format", "csv"), 2, "lpipstore train and has no distances.zarr"),
        ((run.path, "--format", "csv", "--out", tmp_path / "no" / "x.csv"), 1, "cannot write"),
    ):
        outcome = cli("export", *arguments)
        assert (outcome.code, words in outcome.err) == (code, True), outcome.err
    (run.path / "distances.zarr" / "c" / "0" / "0").unlink()
    outcome = cli("export", run.path, "--format", "csv")
    assert (outcome.code, "lacks distances" in outcome.err) == (1, True)
    assert not list(run.path.glob("*export*"))
    assert mine.read_text() == "mine\n"


def test_a_damaged_run_says_so(cli, run):
    table, metadata = run.path / "images.parquet", run.path / DISTANCES / "zarr.json"
    whole = table.read_bytes()
    table.write_bytes(whole[:100])
    outcome = cli("export", run.path, "--format", "csv")
    assert (outcome.code, "images.parquet is damaged" in outcome.err) == (1, True), outcome.err
    table.write_bytes(whole)
    metadata.write_text("{")
    outcome = cli("export", run.path, "--format", "csv")
    assert (outcome.code, "distances.zarr is damaged" in outcome.err) == (1, True), outcome.err


def test_runs_of_different_heads_warn(cli, pictures, run, tmp_path):
    cli("pairs", pictures, *MODEL, "--out", tmp_path / "same")
    cli("pairs", pictures, *MODEL, "--heads", "none", "--out", tmp_path / "other")
    assert len(lpipstore.open_runs(run.path, tmp_path / "same")) == 2
    with pytest.warns(lpipstore.DifferentMetrics, match="head_digest"):
        lpipstore.open_runs(run.path, tmp_path / "other")


def test_runs_of_trunks_of_other_precision_do_not_mean_the_same(cli, pictures, tmp_path):
    for dtype in ("float32", "bfloat16"):
        options = ("--trunk-dtype", dtype, "--out", tmp_path / dtype)
        assert cli("pairs", pictures, *MODEL, *options).code == 0
    with pytest.warns(lpipstore.DifferentMetrics, match="trunk_dtype bfloat16 and float32"):
        lpipstore.open_runs(tmp_path / "float32", tmp_path / "bfloat16")
