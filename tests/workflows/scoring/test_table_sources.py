"""Tables of images and videos on the command line: scored like the same pictures in a folder."""

import json
import os
import signal
import subprocess
import sys

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import zarr
from PIL import Image

MODEL = ("--weights", "random", "--size", "64")
COUNT = 8


@pytest.fixture
def table(pictures, tmp_path):
    """The pictures as a table, in the form of Hugging Face."""
    data = [{"bytes": p.read_bytes(), "path": None} for p in sorted(pictures.iterdir())]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    content = pa.table({"image": pa.array(data, kind), "n": range(COUNT)})
    pa.parquet.write_table(content, tmp_path / "data.parquet", row_group_size=3)
    return tmp_path / "data.parquet"


@pytest.fixture
def clip(pictures, tmp_path):
    """The pictures as a lossless video, ten a second."""
    with av.open(str(tmp_path / "clip.mkv"), "w") as file:
        stream = file.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "bgr0"
        for path in sorted(pictures.iterdir()):
            pixels = np.asarray(Image.open(path).convert("RGB"))
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        file.mux(stream.encode(None))
    return tmp_path / "clip.mkv"


def matrix(run):
    return zarr.open(str(run / "distances.zarr"), mode="r")[:]


def summary(run):
    return json.loads((run / "summary.json").read_text())


def names(run):
    return pa.parquet.read_table(run / "images.parquet").column("path").to_pylist()


def test_the_same_pictures_make_the_same_distances_and_rows(cli, pictures, table, clip, tmp_path):
    runs = [tmp_path / name for name in ("folder", "table", "video")]
    for source, run in zip((pictures, table, clip), runs, strict=True):
        assert cli("pairs", source, *MODEL, "--out", run).code == 0
    assert (matrix(runs[0]) == matrix(runs[1])).all()
    assert np.allclose(matrix(runs[0]), matrix(runs[2]), rtol=0, atol=1e-6)
    assert [summary(run)["forwards"] for run in runs] == [COUNT, 0, COUNT]
    assert names(runs[1]) == [f"{table}#{n}" for n in range(COUNT)]
    assert names(runs[2]) == [f"{clip}#t={t}" for t in ("0", *(f"0.{n}" for n in range(1, COUNT)))]
    sizes = [pa.parquet.read_table(run / "images.parquet").column("bytes") for run in runs]
    assert sizes[0] == sizes[1]


def test_steps_and_columns_are_kept_with_the_run(cli, table, clip, tmp_path, files_of):
    content = pa.parquet.read_table(table)
    other = content.append_column("other", content.column("image").take(list(range(COUNT))[::-1]))
    pa.parquet.write_table(other, table)
    for name, source, options in (
        ("video", clip, ("--every", "3f")),
        ("table", table, ("--image-column", "other")),
    ):
        run, again = tmp_path / name, tmp_path / f"{name}-again"
        assert cli("pairs", source, *options, *MODEL, "--out", run).code == 0
        assert cli("pairs", "--from", run, "--out", again).code == 0
        assert files_of(run) == files_of(again)
        different = cli("pairs", source, *MODEL, "--out", run)
        assert different.code != 0
        rescored = tmp_path / f"{name}-rescored"
        assert cli("rescore", run, "--heads", "none", "--out", rescored).code == 0
        assert matrix(rescored).shape == matrix(run).shape
    assert names(tmp_path / "video") == [f"{clip}#t={t}" for t in ("0", "0.3", "0.6")]


def test_settings_that_are_wrong_are_told_in_one_line(cli, table, clip, tmp_path):
    wrong = cli("pairs", clip, "--every", "10", *MODEL, "--out", tmp_path / "run")
    assert (wrong.code, "write 0.5s" in wrong.err) == (2, True)
    content = pa.parquet.read_table(table)
    pa.parquet.write_table(content.append_column("b", content.column("image")), table)
    several = cli("pairs", table, *MODEL, "--out", tmp_path / "run")
    assert (several.code, "--image-column" in several.err) == (2, True)
    gone = cli("pairs", table, "--image-column", "x", *MODEL, "--out", tmp_path / "run")
    assert gone.code == 1
    assert "has no column x" in gone.err


def test_tables_and_videos_are_compared_and_listed(cli, pictures, table, clip, tmp_path):
    run = tmp_path / "compare"
    assert cli("compare", table, clip, "--every", "0.2s", *MODEL, "--out", run).code == 0
    assert matrix(run).shape == (COUNT, 4)
    assert np.allclose(np.diagonal(matrix(run)[::2]), 0, atol=1e-6)
    lines = ["a,b", "clip.mkv#t=0.5,pictures/005.png", "data.parquet#7,pictures/007.png"]
    lines += ["data.parquet#99,pictures/007.png", "clip.mkv#t=0.55,pictures/007.png"]
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
    scored = tmp_path / "score"
    assert cli("score", tmp_path / "pairs.csv", *MODEL, "--out", scored).code == 0
    told = pa.parquet.read_table(scored / "pairs.parquet")
    distances = told.column("distance").to_pylist()
    assert distances[0] == pytest.approx(0, abs=1e-6)
    assert distances[1] == 0
    assert all(d is None or np.isnan(d) for d in distances[2:])
    assert summary(scored)["failed"] == 2


def test_damage_is_named_and_the_rest_scored(cli, table, clip, tmp_path):
    content = pa.parquet.read_table(table)
    cells = content.column("image").to_pylist()
    cells[1], cells[4] = None, {"bytes": b"no image", "path": None}
    kind = content.schema.field("image").type
    pa.parquet.write_table(pa.table({"image": pa.array(cells, kind)}), table)
    clip.write_bytes(clip.read_bytes()[:-3000])
    (tmp_path / "bad.arrow").write_bytes(b"no table")
    run = tmp_path / "run"
    outcome = cli("pairs", table, clip, tmp_path / "bad.arrow", *MODEL, "--out", run)
    assert outcome.code == 0
    told = pa.parquet.read_table(run / "images.parquet")
    errors = dict(zip(*(told.column(name).to_pylist() for name in ("path", "error")), strict=True))
    failed = {path: error for path, error in errors.items() if error}
    assert "the entry is null" in failed[f"{table}#1"]
    assert "not an image" in failed[f"{table}#4"]
    assert "the file lacks its last 3,000 bytes" in failed[str(clip)]
    assert "not an Arrow file" in failed[str(tmp_path / "bad.arrow")]
    assert not {f"{table}#{n}" for n in (0, 2, 3, 5, 6, 7)} & set(failed)


KILLED = """
import os, signal, sys
from lpipstore.pipeline.features.extractor import Extractor
from lpipstore.workflows.cli.app import main
rows, left = Extractor.rows, [int(sys.argv.pop(1))]
def deadly(self, pixels, *room):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    return rows(self, pixels, *room)
Extractor.rows = deadly
Extractor.batch = property(lambda self: 2, lambda self, value: None)
main()
"""


@pytest.mark.parametrize("kind", ["table", "clip"])
def test_a_killed_run_goes_on_to_the_same_bytes(kind, cli, request, tmp_path, files_of):
    source = request.getfixturevalue(kind)
    whole, run, store = tmp_path / "whole", tmp_path / "run", tmp_path / "other-store"
    assert cli("pairs", source, *MODEL, "--out", whole).code == 0
    command = ["pairs", source, *MODEL, "--out", run, "--store", store]
    for batches in (1, 2):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(batches), *map(str, command)],
            check=False,
            capture_output=True,
            timeout=200,
            env=dict(os.environ),
        )
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert cli(*command).code == 0
    assert files_of(run) == files_of(whole)
    assert 0 < summary(run)["forwards"] < COUNT
