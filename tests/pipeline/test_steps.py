"""Steps of work in another process: arguments and results travel, and no bit changes."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from site import addsitedir
from types import SimpleNamespace
from zipfile import ZipFile

import numpy as np
import pytest
import torch

from lpipstore.cache.errors import LpipstoreError, UsageError
from lpipstore.pipeline.backbones.load import load_backbone
from lpipstore.pipeline.distances.panels import Columns
from lpipstore.pipeline.distances.scoring import (
    Scoring,
    begin_all,
    begin_by_product,
    begin_singly,
    finished,
    score_statistics,
)
from lpipstore.pipeline.features.extractor import Extractor, extract_rows
from lpipstore.pipeline.features.pooled import PooledRows
from lpipstore.pipeline.features.rowcache import RowCache, SingleRows
from lpipstore.pipeline.images.data import content_of
from lpipstore.pipeline.images.loader import decode_batch, decode_images
from lpipstore.pipeline.images.preparation import Preparation
from lpipstore.pipeline.pairlists.parts import begin_part, parts_of
from lpipstore.pipeline.pairlists.plan import plan_list
from lpipstore.pipeline.pairlists.schedule import room_for, steps
from lpipstore.pipeline.search.blocks import BLOCK
from lpipstore.pipeline.search.cascade import Cascade, Tally
from lpipstore.pipeline.search.close import Effort, close_in_part
from lpipstore.pipeline.search.nearest import nearest_in_step
from lpipstore.pipeline.search.refine import Refiner, decide
from lpipstore.pipeline.search.search import Search
from lpipstore.pipeline.search.topk import Neighbours
from lpipstore.pipeline.sources.source import SourceOptions
from lpipstore.pipeline.sources.sources import Sources

CPU = torch.device("cpu")
COUNT = 600  # three blocks


@pytest.fixture(scope="module")
def elsewhere():
    """A function that runs a step in another process."""
    spawn = multiprocessing.get_context("spawn")
    root = str(Path(__file__).parents[2])  # where it finds this module
    with ProcessPoolExecutor(1, spawn, addsitedir, (root,)) as pool:

        def run(step, *args):
            # Rows of a few images have other bits where torch has a single thread
            pool.submit(torch.set_num_threads, torch.get_num_threads())
            return pool.submit(step, *args).result(120)

        yield run


@pytest.fixture
def shelf(shelve):
    """Rows with the scoring of their head, and a group of nearly equal ones."""
    shelf = shelve(COUNT)
    spec = shelf.features.extractor.spec
    near = np.random.default_rng(1).integers(-20, 20, (60, spec.length))
    shelf.rows[100:160] = np.clip(shelf.rows[100].astype(int) + near, 0, 65535)
    shelf.features.store.clear()
    shelf.features.store.put_many(spec, shelf.keys, shelf.rows)
    columns = Columns.of(shelf.weights, spec.dtype, CPU)
    centre = shelf.features.centre(shelf.contents)
    return SimpleNamespace(**vars(shelf), shelf=shelf, scoring=Scoring(columns, centre, 256))


def same(one, other):
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    assert one.tobytes() == other.tobytes()


# -- images and features -------------------------------------------------------------------------


def test_decode_a_batch(elsewhere, draw, tmp_path):
    paths = draw(tmp_path / "pictures", 6)
    with ZipFile(tmp_path / "more.zip", "w") as archive:
        for path in paths[4:]:
            archive.write(path, path.name)
    (tmp_path / "pictures" / "broken.png").write_bytes(b"no picture")
    np.save(tmp_path / "pixels.npy", np.random.default_rng(0).random((2, 40, 30, 3), np.float32))
    sources, how = Sources(SourceOptions(value_range=(0, 1))), Preparation((20, 16), "crop")
    given = [tmp_path / "pictures", tmp_path / "more.zip", tmp_path / "pixels.npy"]
    images = [(name, content_of(sources.read(name))) for name in sources.find(given).names]
    paths[1].write_bytes(paths[0].read_bytes())
    here = list(decode_images(images, sources, how, len(images)))
    there = elsewhere(decode_batch, images, sources, how)
    assert [part.indices for part in there] == [part.indices for part in here]
    assert [part.failures for part in there] == [part.failures for part in here]
    assert len(here) == 2  # images of integers, then those of floating-point numbers
    assert len(here[0].failures) == 2  # the broken one, and the one that changed
    for one, other in zip(here, there, strict=True):
        same(one.pixels.numpy(), other.pixels.numpy())


@pytest.mark.parametrize(
    ("name", "taps"), [("squeeze", ()), ("alex", ()), ("torchvision:resnet18", ("layer1",))]
)
def test_extract_the_rows_of_a_batch(elsewhere, name, taps):
    backbone = load_backbone(name, weights="random", taps=taps)
    extractor = Extractor(backbone, Preparation((40, 33)), batch=5)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 33, 3), np.uint8)
    expected = extractor.rows(torch.from_numpy(pixels))
    for _ in range(2):  # the second time, the backbone is loaded already
        same(elsewhere(extract_rows, extractor.portable(), pixels), expected)


def test_weights_in_a_file_are_loaded_elsewhere_and_compared(elsewhere, tmp_path, monkeypatch):
    state = load_backbone("squeeze", weights="random").trunk.state_dict()
    torch.save(state, tmp_path / "own.pth")
    monkeypatch.chdir(tmp_path)  # where the other process is not
    extractor = Extractor(load_backbone("squeeze", weights="own.pth"), (32, 32))
    pixels = np.zeros((2, 32, 32, 3), np.uint8)
    spec, expected = extractor.portable(), extractor.rows(torch.from_numpy(pixels))
    same(elsewhere(extract_rows, spec, pixels), expected)
    torch.save({name: values + 1 for name, values in state.items()}, tmp_path / "own.pth")
    same(elsewhere(extract_rows, spec, pixels), expected)  # it has them already
    with pytest.raises(LpipstoreError, match=r"own\.pth are not those that the run began with"):
        elsewhere(extract_rows, replace(spec, batch=spec.batch + 1), pixels)


def test_weights_that_are_tensors_stay_in_their_process():
    state = load_backbone("squeeze", weights="random").trunk.state_dict()
    extractor = Extractor(load_backbone("squeeze", weights=state), (32, 32))
    with pytest.raises(UsageError, match="weights as tensors stay in their process"):
        extractor.portable()


# -- matrices and lists --------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [False, True])
def test_score_a_piece_of_a_matrix(elsewhere, shelf, fast):
    scoring = Scoring(shelf.scoring.columns, shelf.scoring.centre, 256, fast)
    one, other = shelf.rows[:256], shelf.rows[90:300]
    for right in (other, None):
        args = begin_all, one, right, scoring
        same(elsewhere(finished, *args), finished(*args))
    placed = finished(begin_all, torch.from_numpy(one), torch.from_numpy(other), scoring)
    same(finished(begin_all, one, other, scoring), placed)


def test_score_pairs_of_rows(elsewhere, shelf):
    pairs = np.random.default_rng(2).integers(0, COUNT, (500, 2))
    for step in (begin_by_product, begin_singly):
        args = step, shelf.rows, None, pairs, shelf.scoring
        same(elsewhere(finished, *args), finished(*args))


def test_score_the_passes_of_a_list(elsewhere, shelf):
    random = np.random.default_rng(3)
    pairs = np.concatenate(
        [random.integers(0, 300, (6000, 2)), random.integers(0, COUNT, (300, 2))]
    )
    plan = plan_list(*pairs.T, shelf.shelf.keys, shelf.shelf.row_bytes)
    room = room_for(20_000_000, shelf.shelf.row_bytes, plan.block)
    kinds = set()
    for step in steps(plan, np.arange(len(plan.pairs)), room):
        left = shelf.rows[plan.rows[step.left.rows]]
        right = None if step.right is None else shelf.rows[plan.rows[step.right.rows]]
        for part in parts_of(plan, step, room):
            args = begin_part, left, right, part, shelf.scoring
            same(elsewhere(finished, *args), finished(*args))
            kinds.add((part.top is None, part.across is None))
    assert len(kinds) > 1  # products and single pairs


def test_statistics_of_pairs(elsewhere, shelf):
    pairs = np.random.default_rng(4).integers(0, COUNT, (50, 2))
    args = shelf.rows, pairs, shelf.features.extractor.layout, "uint16"
    same(elsewhere(score_statistics, *args), score_statistics(*args))


# -- searches ------------------------------------------------------------------------------------


def read_into(rows, which, out):
    out[:] = rows[which]


def portable(search, shelf, revisit=False):
    """Return cascade and refiner of a search, with rows in memory instead of a store."""
    every = np.arange(COUNT)
    stages = []
    for stage, cache in search._cascade._stages:
        vectors = cache.take(every).numpy()
        held = RowCache(vectors.__getitem__, COUNT, BLOCK, COUNT, CPU, whole=True)
        stages.append((stage, held))
    spec = shelf.features.extractor.spec
    rows = RowCache(shelf.rows.__getitem__, COUNT, BLOCK, COUNT, CPU, whole=revisit)
    read = partial(read_into, shelf.rows)
    single = SingleRows(read, COUNT, COUNT, spec.length, spec.dtype, CPU)
    scoring, dense, sides = search._exact._scoring, search._exact.dense, search.sides
    exact = Refiner(rows, single, BLOCK, COUNT, scoring, dense, sides)
    return Cascade(stages, sides), exact


@pytest.fixture
def search(shelf):
    pooled = PooledRows(shelf.features, (1, 2))
    pooled.ensure(shelf.contents)
    return Search(shelf.features, pooled, shelf.contents, shelf.shelf.weights, 10**9)


def test_search_a_part_for_close_pairs(elsewhere, shelf, search):
    below = 1e-4
    cascade, exact = portable(search, shelf)
    expected, taken = search.below(0, below)
    assert len(expected.i) >= 60 * 59 / 2
    for _ in range(2):  # what the first call has read stays here
        args = cascade, exact, range(3), below, Tally()
        found, tally = elsewhere(close_in_part, *args)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
        assert tally == taken
        close_in_part(*args)
    given_up, tally = elsewhere(
        close_in_part, cascade, exact, range(3), 1e3, Tally(), Effort(0, 10**9, 1, 1)
    )
    assert given_up is None
    assert 0 < tally.cost < taken.cost * 1000


def test_take_the_steps_to_the_nearest_neighbours(elsewhere, shelf, search):
    cascade, exact = portable(search, shelf, revisit=True)
    here, there = Neighbours(COUNT, 3), Neighbours(COUNT, 3)
    for step in range(search.steps):
        taken = search.nearest(step, here, np.inf)
        there, tally = elsewhere(nearest_in_step, cascade, exact, step, there, np.inf)
        assert tally == taken
        same(there.codes, here.codes)


def test_decide_which_pairs_are_close(elsewhere, shelf, search):
    pairs = np.argwhere(np.triu(np.ones((60, 60)), 1)) + 100
    distances = finished(begin_singly, shelf.rows, None, pairs, shelf.scoring)
    below = float(np.median(distances))  # where the rounding of the matrix decides
    args = shelf.rows, pairs, below, search._exact._scoring, search._exact.dense
    here, there = decide(*args), elsewhere(decide, *args)
    same(here[0], there[0])
    assert here[1] == there[1]
