"""The same 60 pictures as every kind of source: the same distances from every command."""

import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from PIL import Image, ImageOps

import lpipstore

COUNT, SIDE = 60, 64
MODEL = ("--backbone", "squeeze", "--weights", "random")
FILES = ("list", "pictures.zip", "pictures.tar", "pictures.tar.gz", "pictures.parquet", "s3")
"""Kinds that hold the very files of the folder."""

PIXELS = ("pictures.npz", "exact.mkv")
"""Kinds that hold the decoded pixels of these files."""

NUMBERS = {"pictures.npz", "pictures.parquet"}
"""Kinds whose members are numbers, not names of files."""

NEAR = 1e-6
"""Most by which distances differ that are computed beside others, or in lists."""

ROUNDING = 1e-7
"""Most by which distances of all pairs differ between files and pixels, whose names in the store
differ, so that rows are centred on others."""

BT601 = 0.05
"""Most by which distances differ when colours were rounded to YUV of 8 bits and back.

FFV1 keeps all of yuv444p, so that what is lost is at most 3 of 255 levels of a colour.
"""


def _draw_or_take(folder, draw):
    """Write photographs, where there are enough, or drawn pictures."""
    photographs = Path(os.environ.get("LPIPSTORE_TEST_DATA", "none")) / "photos"
    chosen = sorted(photographs.glob("*.JPEG"))[::3][:COUNT]
    if len(chosen) < COUNT:
        draw(folder, COUNT, side=SIDE)
        return
    folder.mkdir()
    for number, path in enumerate(chosen):
        image = Image.open(path).convert("RGB")
        ImageOps.fit(image, (SIDE, SIDE)).save(folder / f"{number:03}.png")


def _film(place, pixels, form):
    with av.open(str(place), "w") as file:
        stream = file.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = SIDE, SIDE, form
        for picture in pixels:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        file.mux(stream.encode(None))


@pytest.fixture(scope="module")
def world(tmp_path_factory, draw):
    """A folder of the pictures as every kind that is a file."""
    world = tmp_path_factory.mktemp("same")
    _draw_or_take(world / "pictures", draw)
    paths = sorted((world / "pictures").iterdir())
    (world / "list").write_text("".join(f"{path}\n" for path in paths))
    with zipfile.ZipFile(world / "pictures.zip", "w") as archive:
        for path in paths:
            archive.write(path, path.name)
    for name, mode in (("pictures.tar", "w"), ("pictures.tar.gz", "w:gz")):
        with tarfile.open(world / name, mode) as archive:
            for path in paths:
                archive.add(path, path.name)
    cells = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(cells, kind)})
    pa.parquet.write_table(table, world / "pictures.parquet", row_group_size=17)
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    np.savez(world / "pictures.npz", pixels)
    np.save(world / "pictures.npy", np.asfortranarray(pixels.transpose(0, 3, 1, 2)))
    _film(world / "exact.mkv", pixels, "bgr0")
    _film(world / "yuv.mkv", pixels, "yuv444p")
    return world


@pytest.fixture
def pixels(world):
    """The pictures as an array [60, height, width, 3]."""
    return np.load(world / "pictures.npz")["arr_0"]


@pytest.fixture
def places(world, s3):
    """The argument for each kind."""
    paths = {kind: str(world / kind) for kind in (*FILES, *PIXELS)}
    return {
        **paths,
        "list": f"@{world / 'list'}",
        "s3": s3.upload(world / "pictures", "pictures"),
    }


@pytest.fixture
def done(cli):
    """The function that runs a command which has to succeed, and returns its summary."""

    def run(*command):
        outcome = cli(*command, "--json")
        assert outcome.code == 0, outcome.err
        return json.loads(outcome.out)

    return run


@pytest.fixture
def whole(done, world, tmp_path):
    """The distances of the folder; its rows are in the store."""
    assert done("pairs", world / "pictures", *MODEL, "--out", tmp_path / "whole")["forwards"] == 60
    return distances(tmp_path / "whole")


def distances(run):
    return lpipstore.open_run(run).distances.compute()


def member(kind, number):
    """The name of a picture in the folder of all kinds, for tables."""
    if kind == "pictures":
        return f"pictures/{number:03}.png"
    if kind == "exact.mkv":
        return f"exact.mkv#t={number / 10:g}"
    return f"{kind}#{number}" if kind in NUMBERS else f"{kind}#{number:03}.png"


# ---- pairs


def test_files_are_the_same_rows_wherever_they_lie(done, places, whole, tmp_path):
    for kind in FILES:
        summary = done("pairs", places[kind], *MODEL, "--out", tmp_path / kind)
        assert (summary["forwards"], summary["hits"]) == (0, COUNT), kind
        assert np.array_equal(distances(tmp_path / kind), whole), kind


def test_each_kind_alone_gives_the_same_distances(done, places, whole, tmp_path):
    for kind, place in places.items():
        store = ("--store", tmp_path / f"{kind}-store")
        summary = done("pairs", place, *MODEL, *store, "--out", tmp_path / kind)
        assert (summary["images"], summary["forwards"]) == (COUNT, COUNT), kind
        assert np.abs(distances(tmp_path / kind) - whole).max() <= ROUNDING, kind
        assert kind in PIXELS or np.array_equal(distances(tmp_path / kind), whole), kind


def test_pixels_are_the_same_rows_wherever_they_lie(done, world, pixels, whole, tmp_path):
    store = {"backbone": "squeeze", "weights": "random", "store": tmp_path / "store"}
    for forwards, kind in ((COUNT, "pictures.npz"), (0, "pictures.npy"), (0, "exact.mkv")):
        summary = done("pairs", world / kind, *MODEL, "--out", tmp_path / kind)
        assert summary["forwards"] == forwards, kind
        assert np.abs(distances(tmp_path / kind) - whole).max() <= ROUNDING, kind
        assert np.array_equal(distances(tmp_path / kind), distances(tmp_path / PIXELS[0])), kind
    for given in (pixels, list(pixels), [Image.fromarray(picture) for picture in pixels]):
        run = lpipstore.pairs(given, **store)
        assert run.summary["forwards"] == 0
        assert np.array_equal(run.distances.compute(), distances(tmp_path / PIXELS[0]))


def test_a_dataset_has_the_rows_of_its_files(world, whole, tmp_path):
    datasets = pytest.importorskip("datasets")
    paths = sorted(map(str, (world / "pictures").iterdir()))
    files = datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image())
    table = datasets.Dataset.from_parquet(
        str(world / "pictures.parquet"), cache_dir=str(tmp_path / "cache")
    )
    for given in (files, table.cast_column("image", datasets.Image())):
        run = lpipstore.pairs(given, backbone="squeeze", weights="random", store=tmp_path / "store")
        assert run.summary["forwards"] == 0
        assert np.array_equal(run.distances.compute(), whole)


def test_a_lossless_video_keeps_what_its_colours_keep(done, world, pixels, whole, tmp_path):
    """In RGB it has the pixels themselves; in YUV of 8 bits, colours are rounded."""
    done("pairs", world / "yuv.mkv", *MODEL, "--out", tmp_path / "yuv")
    with av.open(str(world / "yuv.mkv")) as file:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    assert 0 < np.abs(frames.astype(int) - pixels).max() <= 3
    assert 0 < np.abs(distances(tmp_path / "yuv") - whole).max() < BT601


# ---- all of them on one command line


def test_all_are_mixed(done, places, whole, tmp_path):
    everything = (*places.values(), *MODEL)
    plan = done("pairs", *everything, "--out", tmp_path / "run", "--dry-run")
    assert (plan["images"], plan["unique"]) == (COUNT * len(places), 2 * COUNT)
    assert (plan["forwards"], plan["hits"]) == (COUNT, COUNT)
    counts = done("extract", *everything)
    assert (counts["images"], counts["unique"]) == (COUNT * len(places), 2 * COUNT)
    assert (counts["forwards"], counts["hits"]) == (COUNT, COUNT)
    summary = done("pairs", *everything, "--out", tmp_path / "run")
    assert (summary["images"], summary["forwards"]) == (COUNT * len(places), 0)
    matrix = distances(tmp_path / "run")
    blocks = matrix.reshape(len(places), COUNT, len(places), COUNT).transpose(0, 2, 1, 3)
    assert np.abs(blocks - whole).max() < NEAR
    assert not blocks[:, :, range(COUNT), range(COUNT)].any()


def test_each_kind_is_a_group(done, places, world, whole, tmp_path):
    options = ("--group-by", "folder", *MODEL)
    summary = done("pairs", *places.values(), *options, "--out", tmp_path / "run")
    assert summary["pairs"] == len(places) * COUNT * (COUNT - 1) // 2
    groups = lpipstore.open_run(tmp_path / "run").groups.to_pylist()
    named = {**places, "list": str(world / "pictures"), "s3": places["s3"].rstrip("/")}
    assert [group["group"] for group in groups] == list(named.values())
    mean = whole[np.triu_indices(COUNT, 1)].mean()
    assert [group["mean"] for group in groups] == pytest.approx([mean] * len(groups), abs=NEAR)


def test_each_kind_is_compared_on_either_side(done, places, world, whole, tmp_path):
    folder = str(world / "pictures")
    for kind, place in places.items():
        for number, sides in enumerate(((folder, place), (place, folder))):
            run = tmp_path / f"{kind}-{number}"
            done("compare", *sides, *MODEL, "--out", run)
            assert np.abs(distances(run) - whole).max() < NEAR
    for first, second in (("pictures.tar", "s3"), ("pictures.npz", "pictures.parquet")):
        run = tmp_path / f"paired-{first}"
        summary = done("compare", places[first], places[second], "--paired", *MODEL, "--out", run)
        assert (summary["pairs"], summary["mean"]) == (COUNT, 0)


# ---- tables


def test_a_table_names_members(done, world, whole, tmp_path, s3):
    url = s3.upload(world / "pictures", "pictures")
    kinds = ("pictures", *(kind for kind in (*FILES, *PIXELS) if kind not in ("list", "s3")))
    sides = [(a, b, i) for i, (a, b) in enumerate((a, b) for a in kinds for b in kinds)]
    lines = [f"{member(a, i)},{member(b, i + 7)}" for a, b, i in sides]
    lines += [f"{url}{0:03}.png,{member(kind, 9)}" for kind in kinds]
    (tmp_path / "pairs.csv").write_text("\n".join(["left,right", *lines]) + "\n")
    command = ("score", tmp_path / "pairs.csv", "--images", world, *MODEL)
    summary = done(*command, "--out", tmp_path / "run")
    assert (summary["pairs"], summary["failed"]) == (len(lines), 0)
    found = lpipstore.open_run(tmp_path / "run").pairs.column("distance").to_numpy()
    expected = [*(whole[i, i + 7] for *_, i in sides), *([whole[0, 9]] * len(kinds))]
    np.testing.assert_allclose(found, expected, atol=NEAR)


def test_judgements_name_members(done, cli, world, tmp_path):
    random = np.random.default_rng(0)
    choices = [(random.permutation(COUNT)[:3], random.random()) for _ in range(40)]
    kinds = ("pictures.tar", "pictures.zip", "pictures.parquet", "pictures.tar.gz")
    sets = {"folder": ("pictures",), "files": kinds, "all": (*kinds, *PIXELS)}
    scores, trained = {}, {}
    for name, chosen in sets.items():
        lines = [
            ",".join(member(chosen[(k + n) % len(chosen)], i) for k, i in enumerate(three))
            + f",{judge:.3f}"
            for n, (three, judge) in enumerate(choices)
        ]
        table = tmp_path / f"{name}.csv"
        table.write_text("\n".join(["ref,p0,p1,judge", *lines]) + "\n")
        given = (table, "--images", world, *MODEL)
        scores[name] = [line["value"] for line in done("evaluate", *given)["scores"]]
        options = ("--epochs", "2", "--batch", "8", "--held-out", "0.25")
        summary = done("train", *given, *options, "--out", tmp_path / name)
        state = torch.load(tmp_path / name / "head.pth", weights_only=True)
        trained[name] = np.concatenate([weights.numpy().ravel() for weights in state.values()])
        assert summary["left_out"] == 0
    assert scores["folder"] == scores["files"] == scores["all"]
    assert np.array_equal(trained["folder"], trained["files"])
    gone = tmp_path / "gone.csv"
    gone.write_text("ref,p0,p1,judge\nnone.tar#000.png,pictures/001.png,pictures/002.png,1\n")
    outcome = cli("evaluate", gone, "--images", world, *MODEL)
    assert (outcome.code, "images are missing" in outcome.err) == (2, True)


def test_a_copy_of_a_source_has_its_rows(done, world, whole, tmp_path):
    """Names and places play no part."""
    for kind in ("pictures.zip", "pictures.tar", "pictures.parquet"):
        moved = tmp_path / f"moved-{kind}"
        shutil.copy(world / kind, moved)
        assert done("pairs", moved, *MODEL, "--out", tmp_path / f"{kind}-run")["forwards"] == 0
