"""``pairs --below`` from end to end: what it lists, how it is told, and how it goes on."""

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lpipstore
from lpipstore.cache.store import FeatureStore
from lpipstore.pipeline.backbones.load import load_backbone
from lpipstore.pipeline.common.progress import Stopwatch, silent
from lpipstore.pipeline.distances.heads import column_weights, make_head, save_head
from lpipstore.pipeline.features.extractor import Extractor
from lpipstore.pipeline.features.features import Features
from lpipstore.pipeline.features.pooled import PooledRows
from lpipstore.pipeline.images.loader import decode_arrays
from lpipstore.pipeline.runs.files import contents_digest
from lpipstore.pipeline.search.cascade import Tally
from lpipstore.pipeline.search.results import SearchParts
from lpipstore.pipeline.search.search import Search
from lpipstore.pipeline.search.sides import Sides
from lpipstore.pipeline.search.topk import SAVES, Neighbours, NeighbourTiles
from lpipstore.workflows.scoring.searching import all_below, nearest_by_bounds

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")


@pytest.fixture
def album(pictures):
    """Eight pictures, a copy of one, and three that are nearly the same as others."""
    (pictures / "copy.png").write_bytes((pictures / "003.png").read_bytes())
    random = np.random.default_rng(0)
    for number, strength in ((0, 1), (4, 3), (5, 20)):
        pixels = np.asarray(Image.open(pictures / f"{number:03}.png")).astype(int)
        noisy = pixels + random.integers(-strength, strength + 1, pixels.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(pictures / f"noisy{number}.png")
    return pictures


def summary_of(outcome):
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def dense(cli, album, tmp_path, *options):
    summary_of(cli("pairs", album, *MODEL, *options, "--out", tmp_path / "dense", "--json"))
    return lpipstore.open_run(tmp_path / "dense").distances.compute()


def test_the_list_is_that_of_the_matrix_sorted_by_distance(cli, album, tmp_path):
    matrix = dense(cli, album, tmp_path)
    below = float(np.sort(matrix[np.triu_indices(12, 1)])[7])
    command = ("pairs", album, *MODEL, "--below", below, "--out", tmp_path / "run", "--json")
    summary = summary_of(cli(*command))
    run = lpipstore.open_run(tmp_path / "run")
    table = run.pairs.to_pydict()
    assert run.pairs.column_names == ["i", "j", "path_i", "path_j", "distance"]
    upper = np.triu(matrix < np.float32(below), 1)
    i, j = np.nonzero(upper)
    order = np.lexsort((j, i, matrix[i, j]))
    assert list(zip(table["i"], table["j"], strict=True)) == list(
        zip(i[order].tolist(), j[order].tolist(), strict=True)
    )
    assert np.allclose(table["distance"], matrix[i, j][order], atol=1e-7)
    assert table["distance"][0] == 0
    assert {Path(table["path_i"][0]).name, Path(table["path_j"][0]).name} == {"003.png", "copy.png"}
    paths = run.images.to_pydict()["path"]
    assert [paths[n] for n in table["i"]] == table["path_i"]
    assert (summary["pairs"], summary["listed"], summary["images"]) == (66, 7, 12)
    assert summary["forwards"] + summary["hits"] == summary["unique"] == 11
    assert summary["arithmetic"] > 0 < summary["arithmetic_of_all"]
    assert summary["left"]["2x2"] >= 7
    assert summary["quantiles"]["0.0"] == 0
    assert run.summary == summary
    assert run.manifest["below"] == below
    assert sorted(path.name for path in run.path.iterdir()) == [
        "images.parquet",
        "manifest.json",
        "pairs.parquet",
        "summary.json",
    ]


def test_a_warm_search_runs_nothing_through_the_trunk(cli, album, tmp_path, monkeypatch):
    command = ("pairs", album, *MODEL, "--below", "0.001", "--json")
    summary_of(cli(*command, "--out", tmp_path / "one"))

    def refuse(*_):
        raise AssertionError("an image was decoded")

    monkeypatch.setattr("lpipstore.pipeline.images.data.decode", refuse)
    assert summary_of(cli(*command, "--out", tmp_path / "two"))["forwards"] == 0
    one, two = ((tmp_path / name / "pairs.parquet").read_bytes() for name in ("one", "two"))
    assert one == two
    again = summary_of(cli(*command, "--out", tmp_path / "two"))
    assert again["listed"] == lpipstore.open_run(tmp_path / "one").summary["listed"]
    assert again["left"] == lpipstore.open_run(tmp_path / "one").summary["left"]


def test_memory_does_not_change_a_byte(cli, album, tmp_path):
    tables = []
    for memory in ("4GB", "2MB"):
        command = ("pairs", album, *MODEL, "--below", "0.05", "--memory", memory)
        summary_of(cli(*command, "--out", tmp_path / memory, "--json"))
        tables.append((tmp_path / memory / "pairs.parquet").read_bytes())
    assert tables[0] == tables[1]
    outcome = cli("pairs", album, *MODEL, "--below", "0.05", "--memory", "1MB", "--out", "x")
    assert outcome.code == 2
    assert "--memory is too small" in outcome.err


def test_nothing_below_is_an_empty_list(cli, pictures, tmp_path):
    command = ("pairs", pictures, *MODEL, "--below", "0", "--out", tmp_path / "run")
    summary = summary_of(cli(*command, "--json"))
    assert (summary["listed"], summary["mean"], summary["quantiles"]) == (0, None, None)
    assert lpipstore.open_run(tmp_path / "run").pairs.num_rows == 0
    assert "listed" in cli(*command).out


def test_heads_below_zero_are_told_of_once_and_answered(cli, album, tmp_path):
    random = np.random.default_rng(0)
    channels = load_backbone("squeeze", weights="random").channels
    weights = [(random.random(c) - 0.3).astype(np.float32) for c in channels]
    save_head(make_head(weights, "signed"), tmp_path / "signed.pth")
    options = ("--heads", tmp_path / "signed.pth")
    matrix = dense(cli, album, tmp_path, *options)
    below = float(np.median(matrix[np.triu_indices(12, 1)]))
    outcome = cli(
        "pairs", album, *MODEL, *options, "--below", below, "--out", tmp_path / "run", "--json"
    )
    assert outcome.err.count("weights below 0") == 1
    assert summary_of(outcome)["left"] == {}
    table = lpipstore.open_run(tmp_path / "run").pairs.to_pydict()
    i, j = np.nonzero(np.triu(matrix < np.float32(below), 1))
    assert set(zip(table["i"], table["j"], strict=True)) == set(
        zip(i.tolist(), j.tolist(), strict=True)
    )


@pytest.mark.parametrize("below", ["nan", "inf"])
def test_a_threshold_must_be_a_number(cli, pictures, tmp_path, below):
    outcome = cli("pairs", pictures, *MODEL, "--below", below, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "--below takes a distance" in outcome.err


def test_another_threshold_is_another_run(cli, pictures, tmp_path):
    command = ("pairs", pictures, *MODEL, "--out", tmp_path / "run")
    assert cli(*command, "--below", "0.1").code == 0
    outcome = cli(*command, "--below", "0.2")
    assert outcome.code == 2
    assert "below: 0.1 there, 0.2 now" in " ".join(outcome.err.split())


def test_broken_images_are_left_out(cli, album, tmp_path):
    whole = (album / "000.png").read_bytes()
    (album / "broken.png").write_bytes(whole[: len(whole) // 2])
    command = ("pairs", album, *MODEL, "--below", "0.01", "--out", tmp_path / "run", "--json")
    outcome = cli(*command)
    summary = summary_of(outcome)
    assert (summary["images"], summary["failed"]) == (12, 1)
    assert "broken.png is left out" in outcome.err


def test_a_small_store_changes_no_byte(cli, tmp_path, draw):
    draw(tmp_path / "many", 80)
    command = ("pairs", tmp_path / "many", *MODEL, "--below", "0.03", "--json")
    summary_of(cli(*command, "--out", tmp_path / "one"))
    small = ("--store", tmp_path / "small", "--store-limit", "1.5MB")
    summary_of(cli(*command, *small, "--out", tmp_path / "two"))
    one, two = ((tmp_path / name / "pairs.parquet").read_bytes() for name in ("one", "two"))
    assert one == two


class Counted(SearchParts):
    """Parts on disk, with the bytes that were written; killed after so many writes."""

    def __init__(self, folder, contents, writes=10**9):
        super().__init__(folder, contents)
        self.written, self.left = 0, writes

    def write(self, name, arrays, tally):
        if not self.left:
            raise KeyboardInterrupt
        super().write(name, arrays, tally)
        self.written += sum(array.nbytes for array in arrays.values())
        self.left -= 1


class Steps:
    """A search whose steps find nothing."""

    def __init__(self, count):
        self.sides = Sides(count)
        self.steps = 2 * self.sides.blocks

    def nearest(self, *_):
        return Tally()


def test_what_a_search_for_the_nearest_writes_grows_as_the_collection_does(tmp_path):
    written = []
    for count in (10_000, 40_000, 160_000):
        parts = Counted(tmp_path, [b"0" * 16])
        nearest_by_bounds(Steps(count), parts, Stopwatch(), 2, np.inf, silent)
        written.append(parts.written)
    assert written[1] <= 4.1 * written[0]
    assert written[2] <= 4.1 * written[1]
    tiles = []
    for side in (8, 16, 32):
        total, saves = side * (side + 1) // 2, []
        found = Neighbours(side, 1)
        every = -(-total // SAVES)
        some = NeighbourTiles(found, 1, set(), lambda: saves.append(1), every)  # noqa: B023
        for i in range(side):
            for j in range(i, side):
                some.write(i, j, np.ones((1, 1), np.float32))
        tiles.append(len(saves))
    assert max(tiles) <= SAVES


def some_search(folder, count=1300):
    """A search among random pictures, most of which are alike."""
    pixels = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
    )
    pixels[::5] = pixels[1::5]
    pixels[::5, 0] ^= 3
    contents = [f"{number:016}".encode() for number in range(count)]
    by_content = dict(zip(contents, pixels, strict=True))
    store = FeatureStore(folder)
    extractor = Extractor(load_backbone("squeeze", weights="random"), (32, 32))
    features = Features(extractor, store, lambda c, n: decode_arrays(by_content, c, n))
    pooled = PooledRows(features, (2,))
    pooled.ensure(contents)
    heads = make_head([np.ones(c) / 30 for c in extractor.layout.channels], "even")
    weights = column_weights(heads, extractor.layout)
    return contents, lambda: Search(features, pooled, contents, weights, 1_000_000_000)


@pytest.mark.slow
def test_a_search_that_is_interrupted_anywhere_ends_the_same_across_the_switch(
    tmp_path, monkeypatch
):
    """Bounds for the first part, the matrix from then on: as if a later part did not pay."""
    contents, search = some_search(tmp_path / "store")
    tried = Search.try_below

    def first_part_only(self, part, *others):
        return tried(self, part, *others) if part == 0 else None

    monkeypatch.setattr(Search, "bounds_pay", lambda *_: True)
    monkeypatch.setattr("lpipstore.pipeline.search.search._WASTE", math.inf)
    by_bounds, _ = all_below(search(), SearchParts(tmp_path, contents), Stopwatch(), 0.02, silent)
    SearchParts(tmp_path, contents).remove()
    monkeypatch.setattr(Search, "try_below", first_part_only)
    whole = Counted(tmp_path, contents)
    columns, tally = all_below(search(), whole, Stopwatch(), 0.02, silent)
    assert len(columns["i"]) >= 260
    assert all(np.array_equal(columns[name], by_bounds[name]) for name in columns)
    assert {path.stem[17:] for path in (tmp_path / "parts").iterdir()} >= {"0", "1", "matrix"}
    writes = 10**9 - whole.left
    whole.remove()
    assert writes >= 4
    for number in range(1, writes):
        with pytest.raises(KeyboardInterrupt):
            all_below(search(), Counted(tmp_path, contents, number), Stopwatch(), 0.02, silent)
        again, total = all_below(
            search(), SearchParts(tmp_path, contents), Stopwatch(), 0.02, silent
        )
        assert all(np.array_equal(columns[name], again[name]) for name in columns)
        assert total == tally
        SearchParts(tmp_path, contents).remove()


KILLED = """
import os, signal
from lpipstore.pipeline.search.results import SearchParts
SearchParts.remove = lambda self: os.kill(os.getpid(), signal.SIGKILL)
from lpipstore.workflows.cli.app import main
main()
"""


def test_parts_go_after_a_kill_between_the_table_and_their_removal(album, tmp_path):
    words = ["pairs", album, *MODEL, "--below", "0.05", "--store", tmp_path / "s"]
    words = [str(word) for word in (*words, "--out", tmp_path / "run")]
    killed = subprocess.run([sys.executable, "-c", KILLED, *words], check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    whole = (tmp_path / "run" / "pairs.parquet").read_bytes()
    assert list((tmp_path / "run" / "parts").iterdir())
    program = Path(sys.executable).with_name("lpipstore")
    subprocess.run([program, *words], check=True, timeout=120)
    assert not (tmp_path / "run" / "parts").exists()
    assert (tmp_path / "run" / "pairs.parquet").read_bytes() == whole


KILLED_AT_PART = """
import os, signal
from lpipstore.pipeline.search.results import SearchParts
write = SearchParts.write
def write_and_die(*given):
    write(*given)
    os.kill(os.getpid(), signal.SIGKILL)
SearchParts.write = write_and_die
from lpipstore.workflows.cli.app import main
main()
"""


def words_of(folder, out, store, *question):
    words = ("pairs", folder, *MODEL, *question, "--store", store, "--out", out)
    return [str(word) for word in words]


def start(folder, out, store, *question):
    command = [
        Path(sys.executable).with_name("lpipstore"),
        *words_of(folder, out, store, *question),
    ]
    return subprocess.Popen(
        [*map(str, command), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("images", "question", "part"),
    [
        (1040, ("--below", "0.001"), "0"),  # by bounds
        (1040, ("--below", "0.03"), "matrix"),
        (520, ("--top-k", "5"), "tiles"),  # by the matrix
        (520, ("--top-k", "5", "--below", "0.001"), "nearest"),  # by bounds
    ],
)
def test_a_killed_search_goes_on_and_ends_in_the_same_bytes(tmp_path, draw, images, question, part):
    draw(tmp_path / "many", images)
    with start(tmp_path / "many", tmp_path / "one", tmp_path / "store", *question) as process:
        process.communicate(timeout=120)
    assert process.returncode == 0
    words = words_of(tmp_path / "many", tmp_path / "two", tmp_path / "store", *question)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_AT_PART, *words], check=False, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL
    assert [path.name.partition("-")[2] for path in (tmp_path / "two" / "parts").iterdir()] == [
        f"{part}.npz"
    ]
    with start(tmp_path / "many", tmp_path / "two", tmp_path / "store", *question) as process:
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    tables = [(tmp_path / name / "pairs.parquet").read_bytes() for name in ("one", "two")]
    assert tables[0] == tables[1]
    assert not (tmp_path / "two" / "parts").exists()
    first = lpipstore.open_run(tmp_path / "one").summary
    assert json.loads(out)["left"] == first["left"]


def test_a_torn_part_is_searched_again(cli, album, tmp_path):
    command = ("pairs", album, *MODEL, "--below", "0.05", "--out", tmp_path / "run", "--json")
    summary_of(cli(*command))
    whole = (tmp_path / "run" / "pairs.parquet").read_bytes()
    (tmp_path / "run" / "pairs.parquet").write_bytes(whole[:100])
    (tmp_path / "run" / "parts").mkdir()
    contents = lpipstore.open_run(tmp_path / "run").images.to_pydict()["content_hash"]
    digest = contents_digest(map(bytes.fromhex, contents))
    (tmp_path / "run" / "parts" / f"{digest[:16]}-0.npz").write_bytes(b"PK torn")
    summary_of(cli(*command))
    assert (tmp_path / "run" / "pairs.parquet").read_bytes() == whole


@pytest.mark.parametrize("count", [1, 4, 50])
def test_the_nearest_are_those_of_the_matrix(cli, album, tmp_path, count):
    matrix = dense(cli, album, tmp_path)
    np.fill_diagonal(matrix, np.inf)
    most = min(count, 11)
    order = np.argsort(matrix, axis=1, kind="stable")[:, :most]
    command = ("pairs", album, *MODEL, "--top-k", count, "--out", tmp_path / "run", "--json")
    summary = summary_of(cli(*command))
    table = lpipstore.open_run(tmp_path / "run").pairs
    assert table.column_names == ["i", "j", "path_i", "path_j", "distance", "rank"]
    assert summary["listed"] == table.num_rows == 12 * most
    assert np.array_equal(table["i"].to_numpy().reshape(12, most)[:, 0], np.arange(12))
    assert np.array_equal(table["j"].to_numpy().reshape(12, most), order)
    distances = np.take_along_axis(matrix, order, 1)
    assert np.array_equal(table["distance"].to_numpy().reshape(12, most), distances)


def test_the_nearest_below_a_distance(cli, album, tmp_path):
    matrix = dense(cli, album, tmp_path)
    np.fill_diagonal(matrix, np.inf)
    command = ("pairs", album, *MODEL, "--top-k", "2", "--below", "0.001")
    summary_of(cli(*command, "--out", tmp_path / "run", "--json"))
    table = lpipstore.open_run(tmp_path / "run").pairs.to_pydict()
    order = np.argsort(matrix, axis=1, kind="stable")[:, :2]
    wanted = [(i, j) for i in range(12) for j in order[i] if matrix[i, j] < 0.001]
    assert 0 < len(wanted) < 24
    assert list(zip(table["i"], table["j"], strict=True)) == wanted


def test_the_nearest_are_one_at_least(cli, pictures, tmp_path):
    outcome = cli("pairs", pictures, *MODEL, "--top-k", "0", "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "--top-k takes a number from 1 on" in outcome.err
