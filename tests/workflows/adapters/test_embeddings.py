"""Exported embeddings: squared distances are those of `pairs`, files whole or not there at all."""

import csv
import json
import os
from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import zarr

import lpipstore
from lpipstore.cache.errors import UsageError
from lpipstore.pipeline.distances.heads import make_head, save_head

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")
PYTHON = {"backbone": "squeeze", "weights": "random", "workers": 0}
CHANNELS = (64, 128, 256, 384, 384, 512, 512)


def squared(vectors):
    return np.square(vectors[:, None].astype(float) - vectors[None]).sum(-1)


def read(path):
    """Return the vectors and names of a file."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        vectors = np.stack(table["embedding"].to_numpy())
        return vectors, table["path"].to_pylist()
    with path.with_name(f"{path.name}.csv").open(newline="") as lines:
        names = [line["path"] for line in csv.DictReader(lines)]
    array = np.load(path) if path.suffix == ".npy" else zarr.open_array(path, mode="r")[:]
    return array, names


def export(cli, *command):
    outcome = cli("export", "embeddings", *command, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


@pytest.mark.parametrize("kind", ["npy", "parquet", "zarr"])
def test_squared_distances_are_those_of_pairs(cli, pictures, tmp_path, kind):
    out = tmp_path / f"rows.{kind}"
    shown = export(cli, pictures, *MODEL, "--out", out)
    vectors, names = read(out)
    assert vectors.dtype == np.float32
    assert list(vectors.shape) == shown["shape"] == [8, shown["row"]]
    assert shown["kept"] is None
    run = lpipstore.pairs(pictures, **PYTHON)
    assert names == run.images["path"].to_pylist()
    np.testing.assert_allclose(squared(vectors), np.asarray(run.distances), atol=1e-6)


@pytest.mark.parametrize("kind", ["npy", "parquet", "zarr"])
def test_projections_are_lower_bounds(cli, draw, tmp_path, kind):
    draw(tmp_path / "many", 30, side=64)
    out = tmp_path / f"rows.{kind}"
    shown = export(cli, tmp_path / "many", *MODEL, "--dims", 16, "--out", out)
    vectors, _ = read(out)
    assert vectors.shape == (30, 16)
    true = np.asarray(lpipstore.pairs(tmp_path / "many", **PYTHON).distances)
    found = squared(vectors)
    assert (found <= true + 1e-6).all()
    assert 0.1 < shown["kept"] <= 1
    assert shown["kept"] == pytest.approx(found.sum() / true.sum(), abs=1e-6)  # all are the sample
    again = lpipstore.embeddings(tmp_path / "many", 16, **PYTHON)
    assert np.array_equal(again.vectors, vectors)


@pytest.mark.parametrize("dims", [None, 4])
def test_a_run_has_the_rows_and_the_head_of_its_own(cli, pictures, tmp_path, dims):
    random = np.random.default_rng(0)
    weights = [random.random(count, np.float32) for count in CHANNELS]
    save_head(make_head(weights, "own"), tmp_path / "own.pth")
    (pictures / "broken.png").write_bytes(b"no image")
    run = tmp_path / "run"
    model = (*MODEL, "--size", "24", "--heads", tmp_path / "own.pth")
    assert cli("pairs", pictures, *model, "--out", run).code == 0
    more = () if dims is None else ("--dims", dims)
    shown = export(cli, run, *more, "--out", tmp_path / "rows.npy")
    assert (shown["forwards"], shown["hits"], shown["failed"]) == (0, 8, 1)
    vectors, names = read(tmp_path / "rows.npy")
    assert len(names) == len(vectors) == 8
    found, true = squared(vectors), np.asarray(lpipstore.open_run(run).distances)
    assert (
        np.abs(found - true).max() < 1e-5 * true.max()
        if dims is None
        else (found <= true + 1e-6).all()
    )
    same = lpipstore.embeddings(lpipstore.open_run(run), dims)
    assert np.array_equal(same.vectors, vectors)
    assert same.names == names
    wrong = cli("export", "embeddings", run, "--size", "32", "--out", tmp_path / "x.npy")
    assert wrong.code == 2
    assert "--size 32 contradicts the run" in wrong.err


def test_neighbours_of_a_flat_index_are_those_of_top_k(cli, draw, tmp_path):
    draw(tmp_path / "many", 60, side=48)
    export(cli, tmp_path / "many", *MODEL, "--out", tmp_path / "rows.npy")
    vectors, _ = read(tmp_path / "rows.npy")
    index = faiss.IndexFlatL2(vectors.shape[1])
    index.add(vectors)
    _, found = index.search(vectors, 11)
    pairs = lpipstore.nearest(tmp_path / "many", 10, **PYTHON).pairs
    true = pairs["j"].to_numpy().reshape(60, 10)
    distances = pairs["distance"].to_numpy().reshape(60, 10)
    exact = squared(vectors)
    for image in range(60):
        mine = [j for j in found[image] if j != image]
        # ties aside: those that differ are as far as the tenth
        for j in set(mine[:10]) ^ set(true[image].tolist()):
            assert exact[image, j] == pytest.approx(distances[image, -1], abs=2e-6)


def test_memory_changes_no_byte_and_bounds_what_is_read(cli, draw, tmp_path, monkeypatch):
    from lpipstore.pipeline.features.features import Features
    from lpipstore.workflows.adapters import embeddings

    monkeypatch.setattr(embeddings, "_STEP_BYTES", 5 * 4 * 24768)  # five rows
    draw(tmp_path / "many", 23)
    sizes, rows = [], Features.rows
    monkeypatch.setattr(
        Features, "rows", lambda self, some: sizes.append(len(some)) or rows(self, some)
    )
    for dims in ((), ("--dims", "8")):
        files = {}
        for memory in ("9MB", "2GB"):
            folder = tmp_path / f"{memory}{len(dims)}"
            folder.mkdir()
            sizes.clear()
            for kind in ("npy", "parquet", "zarr"):
                export(
                    cli,
                    tmp_path / "many",
                    *MODEL,
                    *dims,
                    "--memory",
                    memory,
                    "--out",
                    folder / f"rows.{kind}",
                )
            files[memory] = {
                path.relative_to(folder): path.read_bytes()
                for path in folder.rglob("*")
                if path.is_file()
            }
            assert not sizes or dims or max(sizes) <= 5
        assert files["9MB"] == files["2GB"]
    assert len(list((tmp_path / "2GB0" / "rows.zarr" / "c").iterdir())) == 5


def test_too_little_memory_names_the_least(cli, pictures, tmp_path):
    outcome = cli("export", "embeddings", pictures, *MODEL, "--memory", "50kB", "--out", "x.npy")
    assert outcome.code == 2
    assert "--memory is too small for rows of 0.149 MB: it takes 1MB at least" in outcome.err
    assert not Path("x.npy").exists()
    with pytest.raises(UsageError, match=r"memory is too small for 8 vectors .*; dims=128 makes"):
        lpipstore.embeddings(pictures, memory="500kB", **PYTHON)
    outcome = cli(
        "export",
        "embeddings",
        pictures,
        *MODEL,
        "--dims",
        8,
        "--memory",
        "100kB",
        "--out",
        tmp_path / "x.npy",
    )
    assert outcome.code == 2
    assert "--memory is too small for --dims 8: it takes" in outcome.err


@pytest.mark.parametrize("kind", ["npy", "parquet", "zarr"])
def test_what_fails_half_way_leaves_nothing(cli, pictures, tmp_path, monkeypatch, kind):
    from lpipstore.workflows.adapters import embeddings

    monkeypatch.setattr(embeddings, "_MOST_ROWS", 3)
    kept = embeddings.read_vectors

    def fail(embedding, pooled, contents):
        if len(contents) < 3:  # the last ones
            raise OSError(28, "No space left on device")
        return kept(embedding, pooled, contents)

    monkeypatch.setattr(embeddings, "read_vectors", fail)
    folder = tmp_path / "out"
    folder.mkdir()
    outcome = cli("export", "embeddings", pictures, *MODEL, "--out", folder / f"rows.{kind}")
    assert outcome.code == 1
    assert "cannot write" in outcome.err
    assert "No space left on device" in outcome.err
    assert not list(folder.iterdir())


def test_a_full_disk_is_seen_before_anything_is_computed(cli, pictures, tmp_path, monkeypatch):
    full = SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=500_000))
    monkeypatch.setattr("lpipstore.workflows.adapters.embeddings.shutil", full)
    outcome = cli("export", "embeddings", pictures, *MODEL, "--out", tmp_path / "rows.npy")
    assert outcome.code == 1
    assert "the vectors take 793 kB, and the disk of --out has 500 kB free" in outcome.err
    assert "images 8 in" not in outcome.err


def test_bad_input(cli, pictures, tmp_path):
    def fails(*command):
        outcome = cli("export", "embeddings", *command)
        return outcome.code, outcome.err.splitlines()[-1]

    out = tmp_path / "rows.npy"
    code, error = fails(pictures, *MODEL, "--out", tmp_path / "rows.bin")
    assert (code, "must end in .npy, .parquet, .zarr" in error) == (2, True)
    code, error = fails(pictures, *MODEL, "--dims", 0, "--out", out)
    assert (code, "--dims 0 must be from 1 to the 24,768 numbers" in error) == (2, True)
    code, error = fails(pictures, *MODEL, "--out", tmp_path / "gone" / "rows.npy")
    assert (code, "there is no folder" in error) == (1, True)
    (tmp_path / "trained").mkdir()
    manifest = {"format": 1, "command": "train"}
    for name, content in (("manifest.json", manifest), ("summary.json", {})):
        (tmp_path / "trained" / name).write_text(json.dumps(content))
    code, error = fails(tmp_path / "trained", "--out", out)
    assert (code, "is a run of lpipstore train, and export embeddings takes" in error) == (2, True)
    weights = [np.full(count, -0.5, np.float32) for count in CHANNELS]
    save_head(make_head(weights, "negative"), tmp_path / "negative.pth")
    code, error = fails(pictures, *MODEL, "--heads", tmp_path / "negative.pth", "--out", out)
    assert (code, "has 2,240 negative weights" in error) == (2, True)
    (tmp_path / "rows.npy.csv").write_text("mine")
    code, error = fails(pictures, *MODEL, "--out", out)
    assert (code, "rows.npy.csv exists" in error) == (2, True)
    assert (tmp_path / "rows.npy.csv").read_text() == "mine"


def test_parquet_and_zarr_say_how_vectors_were_made(cli, pictures, tmp_path):
    export(cli, pictures, *MODEL, "--dims", 4, "--out", tmp_path / "rows.parquet")
    export(cli, pictures, *MODEL, "--out", tmp_path / "rows.zarr")
    told = json.loads(pq.read_schema(tmp_path / "rows.parquet").metadata[b"lpipstore"])
    assert told["distance"] == "lower bound"
    about = zarr.open_array(tmp_path / "rows.zarr", mode="r").attrs["lpipstore"]
    assert about["distance"] == "squared Euclidean"
    for name in ("backbone", "weights", "head_digest", "lpips_version"):
        assert told[name] == about[name]


def test_hostile_names_are_printable(cli, draw, tmp_path):
    folder = tmp_path / "odd"
    draw(folder, 3)
    os.rename(folder / "000.png", folder / 'a,\n"b".png')
    export(cli, folder, *MODEL, "--out", tmp_path / "rows.npy")
    export(cli, folder, *MODEL, "--out", tmp_path / "rows.parquet")
    names = read(tmp_path / "rows.npy")[1]
    assert names == read(tmp_path / "rows.parquet")[1]
    assert any(name.endswith('a,\\n"b".png') for name in names)


def test_images_in_memory_and_equal_images():
    pixels = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    pixels[2] = pixels[0]
    vectors, names = lpipstore.embeddings(pixels, value_range=(0, 1), **PYTHON)
    assert names == [f"python://images/{number}" for number in range(3)]
    assert np.array_equal(vectors[0], vectors[2])
    same = lpipstore.embeddings(pixels[[0, 0]], 2, value_range=(0, 1), **PYTHON)
    assert not same.vectors.any()
    assert same.vectors.shape == (2, 2)


def test_photographs(cli, data, real_weights, tmp_path):
    photos = sorted((data / "photos").iterdir())[:60]
    (tmp_path / "list.txt").write_text("\n".join(map(str, photos)))
    model = ("--backbone", "squeeze", "--size", "64")
    given = f"@{tmp_path / 'list.txt'}"
    shown = export(cli, given, *model, "--dims", "32", "--out", tmp_path / "short.npy")
    export(cli, given, *model, "--out", tmp_path / "rows.npy")
    true = np.asarray(lpipstore.pairs(photos, backbone="squeeze", size=64).distances)
    vectors = read(tmp_path / "rows.npy")[0]
    for row in range(60):  # 119 thousand numbers each: not all differences at once
        found = np.square(vectors[row].astype(float) - vectors).sum(1)
        np.testing.assert_allclose(found, true[row], atol=1e-5)
    assert (squared(read(tmp_path / "short.npy")[0]) <= true + 1e-6).all()
    assert shown["kept"] > 0.4
