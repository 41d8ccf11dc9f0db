"""Scoring a list from end to end: its order, bad lines, resuming, statistics."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import lpipstore
from lpipstore.pipeline.backbones.layout import LPIPS_BACKBONES
from lpipstore.pipeline.distances.heads import load_head
from lpipstore.pipeline.pairlists.statistics import distances_of_statistics

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")
BOUND = 1e-6  # between a product and a difference


def summary_of(outcome):
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def files_of(run: Path, *names: str) -> dict[str, bytes]:
    """The files of a run that must not depend on how it came about."""
    kept = names or ("distances.zarr", "images.parquet", "pairs.parquet", "statistics.zarr")
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.relative_to(run).parts[0] in kept
    }


def write_list(path: Path, pairs, header="path_a,path_b") -> Path:
    path.write_text(header + "\n" + "".join(f"{a},{b}\n" for a, b in pairs))
    return path


@pytest.fixture
def many(tmp_path, draw):
    """A folder of 60 drawn pictures, and a list of 400 pairs of them."""
    draw(tmp_path / "many", 60)
    numbers = np.random.default_rng(0).integers(0, 60, (400, 2))
    return write_list(
        tmp_path / "many" / "pairs.csv", [(f"{i:03}.png", f"{j:03}.png") for i, j in numbers]
    )


def test_a_list_has_the_distances_of_the_matrix(cli, many, tmp_path):
    folder = many.parent
    summary_of(cli("pairs", folder, *MODEL, "--out", tmp_path / "all", "--json"))
    summary = summary_of(cli("score", many, *MODEL, "--out", tmp_path / "run", "--json"))
    assert (summary["images"], summary["forwards"], summary["hits"]) == (60, 0, 60)
    assert (summary["pairs"], summary["failed_pairs"]) == (400, 0)
    run = lpipstore.open_run(tmp_path / "run")
    images, pairs = run.images.to_pydict(), run.pairs.to_pydict()
    assert run.pairs.column_names == ["i", "j", "path_i", "path_j", "distance"]
    lines = many.read_text().splitlines()[1:]
    assert [f"{a},{b}" for a, b in zip(pairs["path_i"], pairs["path_j"], strict=True)] == [
        ",".join(str(folder / name) for name in line.split(",")) for line in lines
    ]
    for index, path in (("i", "path_i"), ("j", "path_j")):
        assert [images["path"][n] for n in pairs[index]] == pairs[path]
    numbers = np.array([[int(name[:3]) for name in line.split(",")] for line in lines])
    matrix = lpipstore.open_run(tmp_path / "all").distances.compute()
    distances = np.array(pairs["distance"], np.float32)
    assert np.abs(distances - matrix[tuple(numbers.T)]).max() < BOUND
    assert (distances[numbers[:, 0] == numbers[:, 1]] == 0).all()
    assert summary["mean"] == pytest.approx(distances.mean(), rel=1e-6)
    assert summary["stderr"] > 0
    assert run.summary == summary


def test_order_direction_and_repetition_do_not_change_a_bit(cli, many, tmp_path):
    lines = [tuple(line.split(",")) for line in many.read_text().splitlines()[1:]]
    order = np.random.default_rng(1).permutation(len(lines)).tolist()
    turned = write_list(
        many.with_name("turned.csv"), [lines[k][::-1] for k in (*order, *order[:50])]
    )
    distances = []
    for number, table in enumerate((many, turned)):
        run, store = tmp_path / f"run{number}", tmp_path / f"store{number}"
        summary_of(cli("score", table, *MODEL, "--store", store, "--out", run, "--json"))
        distances.append(lpipstore.open_run(run).pairs["distance"].to_numpy())
    assert np.array_equal(distances[1], distances[0][[*order, *order[:50]]])


def test_other_columns_are_kept(cli, pictures, tmp_path):
    table = pa.table(
        {"i": ["one", "two"], "a": ["000.png", "001.png"], "b": ["002.png"] * 2, "judge": [0.5, 1]}
    )
    pq.write_table(table, tmp_path / "list.parquet")
    command = ("score", tmp_path / "list.parquet", "--images", pictures, *MODEL)
    summary_of(cli(*command, "--out", tmp_path / "run", "--json"))
    pairs = lpipstore.open_run(tmp_path / "run").pairs
    assert pairs.column_names == ["i", "j", "path_i", "path_j", "distance", "input_i", "judge"]
    assert pairs["input_i"].to_pylist() == ["one", "two"]
    # what came out can go in again
    again = ("score", tmp_path / "run" / "pairs.parquet", *MODEL, "--out", tmp_path / "again")
    summary_of(cli(*again, "--json"))
    assert lpipstore.open_run(tmp_path / "again").pairs["distance"].equals(pairs["distance"])


def test_bad_lines_have_no_distance_and_the_others_do(cli, pictures, tmp_path):
    whole = (pictures / "000.png").read_bytes()
    (pictures / "torn.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "text.png").write_text("no picture")
    lines = [
        ("000.png", "001.png"),
        ("torn.png", "001.png"),
        ("missing.png", "missing.png"),
        ("001.png", ""),
        ("text.png", "000.png"),
        ("000.png", "a\0b.png"),
        ("000.png", "000.png"),
        ("torn.png", "000.png"),
    ]
    table = write_list(pictures / "list.csv", lines)
    command = ("score", table, *MODEL, "--out", tmp_path / "run", "--json")
    outcome = cli(*command)
    summary = summary_of(outcome)
    assert (summary["pairs"], summary["failed_pairs"], summary["failed"]) == (2, 6, 5)
    for name in ("torn.png", "missing.png", "text.png", "the list gives no path", "zero byte"):
        assert outcome.err.count(name) == 1, name
    run = lpipstore.open_run(tmp_path / "run")
    pairs = run.pairs.to_pydict()
    scored = [k for k, distance in enumerate(pairs["distance"]) if distance is not None]
    assert scored == [0, 6]
    assert pairs["distance"][6] == 0
    assert pairs["i"] == [0, None, None, 1, None, 0, 0, None]
    assert run.images["index"].to_pylist()[:2] == [0, 1]
    assert cli(*command, "--strict").code == 1


def test_paths_of_any_bytes(cli, pictures, tmp_path):
    names = ["with space.png", "comma,.png", "new\nline.png", os.fsdecode(b"caf\xe9.png")]
    for number, name in enumerate(names):
        (pictures / f"00{number}.png").rename(pictures / name)
    lines = b"".join(b'"%s",004.png\r\n' % os.fsencode(name) for name in names)
    (pictures / "list.csv").write_bytes(b"\xef\xbb\xbfpath_a,path_b\r\n" + lines)
    command = ("score", pictures / "list.csv", *MODEL, "--out", tmp_path / "run", "--json")
    assert summary_of(cli(*command))["pairs"] == 4
    shown = lpipstore.open_run(tmp_path / "run").pairs["path_i"].to_pylist()
    assert shown[2:] == [f"{pictures}/new\\nline.png", f"{pictures}/caf\\xe9.png"]


def test_the_same_command_goes_on_and_another_list_stops(cli, many, tmp_path, monkeypatch):
    command = (*MODEL, "--out", tmp_path / "run", "--json")
    summary_of(cli("score", many, *command))
    before = files_of(tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    (tmp_path / "run" / "pairs.parquet").unlink()
    assert summary_of(cli("score", many, *command))["rows_read"] == 0
    assert files_of(tmp_path / "run") == before
    (tmp_path / "run" / "distances.zarr" / "c" / "0").write_bytes(b"torn")
    assert summary_of(cli("score", many, *command))["rows_read"] > 0
    assert files_of(tmp_path / "run") == before
    shorter = write_list(many.with_name("short.csv"), [("000.png", "001.png")])
    outcome = cli("score", shorter, *command)
    assert outcome.code == 2
    assert "holds a different run" in outcome.err


def test_what_was_scored_before_an_interruption_is_kept(cli, many, tmp_path, monkeypatch):
    """Every distance that was written is taken over as it is: a marked one comes out again."""
    lines = [tuple(line.split(",")) for line in many.read_text().splitlines()[1:]]
    thin = write_list(many.with_name("thin.csv"), lines[:40])
    monkeypatch.setattr("lpipstore.pipeline.pairlists.plan._DENSE_SHARE", 1)  # none is a product
    monkeypatch.setattr("lpipstore.pipeline.pairlists.parts._DIRECT_AT_ONCE", 10)
    monkeypatch.setattr("lpipstore.pipeline.pairlists.file._LEAST_SECONDS", 0)
    command = ("score", thin, *MODEL, "--json")
    summary_of(cli(*command, "--out", tmp_path / "whole"))
    from lpipstore.pipeline.distances import scoring

    calls = []

    def failing(left, right, pairs, columns):
        calls.append(len(pairs))
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return direct(left, right, pairs, columns)

    direct = scoring.direct_distances
    monkeypatch.setattr(scoring, "direct_distances", failing)
    outcome = cli(*command, "--out", tmp_path / "run")
    assert outcome.code == 1
    assert "No space left on device" in outcome.err
    done = sum(calls[:2])
    summary = summary_of(cli(*command, "--out", tmp_path / "run"))
    assert sum(calls[3:]) == summary["different_pairs"] - done
    assert files_of(tmp_path / "run") == files_of(tmp_path / "whole")


def test_memory_and_a_small_store_change_no_byte(cli, tmp_path, draw):
    draw(tmp_path / "many", 300, side=17)
    numbers = np.random.default_rng(0).integers(0, 300, (3000, 2))
    pairs = [(f"{i:03}.png", f"{j:03}.png") for i, j in numbers]
    table = write_list(tmp_path / "many" / "pairs.csv", pairs)
    results = []
    for name, options in (
        ("one", ()),
        ("two", ("--memory", "20MB")),
        ("three", ("--store", tmp_path / "small", "--store-limit", "1.5MB")),
    ):
        run = tmp_path / name
        command = ("score", table, *MODEL, "--keep-statistics", *options, "--out", run, "--json")
        summary = summary_of(cli(*command))
        results.append(files_of(run))
    assert results[0] == results[1] == results[2]
    assert summary["forwards"] > 300


def test_too_little_memory_is_told_before_any_forward(cli, many, tmp_path):
    outcome = cli("score", many, *MODEL, "--memory", "1MB", "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "--memory is too small" in outcome.err
    assert not (tmp_path / "run").exists()


def test_statistics_give_other_heads_without_rows(cli, many, tmp_path):
    kept = tmp_path / "kept"
    summary_of(cli("score", many, *MODEL, "--keep-statistics", "--out", kept, "--json"))
    summary_of(cli("score", many, *MODEL, "--out", tmp_path / "plain", "--json"))
    assert files_of(kept, "distances.zarr") == files_of(tmp_path / "plain", "distances.zarr")
    pairs = lpipstore.open_run(kept).pairs
    rows = pairs["statistics_row"].to_pylist()
    channels = LPIPS_BACKBONES["squeeze"].channels
    for head in ("stock", "none"):
        run = tmp_path / head
        summary_of(cli("score", many, *MODEL, "--heads", head, "--out", run, "--json"))
        fresh = lpipstore.open_run(run).pairs["distance"].to_numpy()
        (by_row,) = distances_of_statistics(kept, [load_head(head, "squeeze", channels)])
        found = np.array([0 if row is None else by_row[row] for row in rows])
        assert np.abs(found - fresh).max() < 1e-6 * max(1, fresh.max())


@pytest.mark.slow
def test_kills_leave_a_run_that_goes_on(tmp_path, draw):
    draw(tmp_path / "many", 150, side=40)
    numbers = np.random.default_rng(0).integers(0, 150, (900, 2))
    pairs = [(f"{i:03}.png", f"{j:03}.png") for i, j in numbers]
    table = write_list(tmp_path / "many" / "pairs.csv", pairs)
    program = [Path(sys.executable).with_name("lpipstore"), "score", table, "--keep-statistics"]
    options = ["--backbone", "squeeze", "--weights", "random", "--json"]

    def command(name):
        return [*program, *options, "--store", tmp_path / f"s-{name}", "--out", tmp_path / name]

    subprocess.run(command("whole"), capture_output=True, check=True)
    places = ("s-killed/pools/*/c.*", "killed/distances.zarr", "killed/statistics.zarr/c/2")
    for place in places:
        with subprocess.Popen(
            command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while not list(tmp_path.glob(place)):
                assert process.poll() is None
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    ended = subprocess.run(command("killed"), capture_output=True, check=True)
    assert json.loads(ended.stdout)["forwards"] < 150
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nowhere.csv",), 2, "No such file"),
        (("list.csv", "--columns", "a,z"), 2, "no single column z"),
        (("list.csv", "--images", "nowhere"), 2, "is not a folder"),
        (("list.csv", "--images", "elsewhere"), 1, "none of 2 files can be used"),
        (("unusable.csv",), 1, "no pair of the list can be scored"),
        (("empty.csv",), 2, "lists no pairs"),
    ],
)
def test_what_people_get_wrong(cli, pictures, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(pictures)
    (pictures / "elsewhere").mkdir()
    write_list(pictures / "list.csv", [("000.png", "001.png")], "a,b")
    write_list(pictures / "unusable.csv", [("000.png", "gone.png")])
    write_list(pictures / "empty.csv", [])
    outcome = cli("score", *arguments, *MODEL, "--out", tmp_path / "run")
    assert (outcome.code, outcome.out) == (code, "")
    assert message in " ".join(outcome.err.split())


def test_a_run_without_pairs_says_so(cli, pictures, tmp_path):
    summary_of(cli("pairs", pictures, *MODEL, "--out", tmp_path / "run", "--json"))
    with pytest.raises(lpipstore.LpipstoreError, match="has no pairs.parquet"):
        lpipstore.open_run(tmp_path / "run").pairs  # noqa: B018


def test_sizes_of_a_list_follow_its_images(cli, pictures, tmp_path):
    Image.new("RGB", (50, 40)).save(pictures / "wide.png")
    table = write_list(pictures / "list.csv", [("000.png", "wide.png")])
    outcome = cli("score", table, *MODEL, "--size", "native", "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "50×40" in outcome.err


def test_a_list_of_equal_images_needs_no_row(cli, pictures, tmp_path):
    (pictures / "copy.png").write_bytes((pictures / "000.png").read_bytes())
    table = write_list(pictures / "list.csv", [("000.png", "copy.png"), ("001.png", "001.png")])
    command = ("score", table, *MODEL, "--keep-statistics", "--out", tmp_path / "run", "--json")
    for _ in range(2):
        summary = summary_of(cli(*command))
        assert (summary["pairs"], summary["different_pairs"], summary["rows_read"]) == (2, 0, 0)
        assert (summary["mean"], summary["stderr"]) == (0, None)
    pairs = lpipstore.open_run(tmp_path / "run").pairs
    assert pairs["distance"].to_pylist() == [0, 0]
    assert pairs["statistics_row"].to_pylist() == [None, None]
