"""Rows and distances made in other processes: the same bytes, whoever carries out the tasks."""

import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch

from lpipstore.cache.errors import LpipstoreError
from lpipstore.cache.store import FeatureStore
from lpipstore.pipeline.backbones.load import load_backbone
from lpipstore.pipeline.common.tasks import Crew
from lpipstore.pipeline.distances.heads import column_weights, load_head
from lpipstore.pipeline.features.batches import Batch, make_rows, threads_for
from lpipstore.pipeline.features.extractor import Extractor
from lpipstore.pipeline.features.features import Features
from lpipstore.pipeline.images.data import content_of
from lpipstore.pipeline.images.loader import Decoding
from lpipstore.pipeline.matrix.plan import plan_matrix
from lpipstore.pipeline.matrix.score import score_matrix
from lpipstore.pipeline.pairlists.plan import plan_list
from lpipstore.pipeline.pairlists.schedule import room_for
from lpipstore.pipeline.pairlists.score import InMemory, score_list
from lpipstore.pipeline.sources.source import SourceOptions
from lpipstore.pipeline.sources.sources import Sources

COUNT, BATCH = 45, 8


@pytest.fixture(scope="module")
def crew():
    """Two other processes."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        yield Crew(pool, elsewhere=True, workers=lambda: 2, ahead=3, memory=10**9)


class Matrix:
    """A matrix in memory; that of all pairs is mirrored."""

    def __init__(self, rows, columns, tile):
        self.array, self.tile = np.full((rows, columns or rows), np.nan, np.float32), tile
        self.mirrored = columns is None

    def done(self, row, column):
        return False

    def write(self, row, column, distances):
        top, left = row * self.tile, column * self.tile
        height, width = distances.shape
        self.array[top : top + height, left : left + width] = distances
        if self.mirrored:
            self.array[left : left + width, top : top + height] = distances.T


@pytest.fixture
def scene(draw, tmp_path):
    """A function that makes features of drawn images, in a store of their own."""
    folder = tmp_path / "pictures"
    paths = draw(folder, COUNT)
    (folder / "broken.png").write_bytes(b"no picture")
    sources = Sources(SourceOptions())
    names = [str(path) for path in (*paths, folder / "broken.png")]
    contents = {content_of(sources.read(name)): name for name in names}
    stores = []

    def make(name, side=32, **more):
        stores.append(FeatureStore(tmp_path / name, **more))
        extractor = Extractor(load_backbone("alex", weights="random"), (side, side), batch=BATCH)
        decode = Decoding(sources, contents, extractor.preparation, workers=0)
        return Features(extractor, stores[-1], decode, names=contents)

    yield make, list(contents)
    for store in stores:
        store.close()


def weights_of(features):
    return column_weights(
        load_head(None, "alex", (64, 192, 384, 256, 256)), features.extractor.layout
    )


def test_rows_made_elsewhere_are_the_same(scene, crew):
    make, contents = scene
    here, there = make("here"), make("there")
    there.crew = crew
    seen = []
    there.report = lambda *progress: seen.append(progress)
    assert here.ensure(contents) == there.ensure(contents) == 0
    assert there.forwards == here.forwards == COUNT
    assert there.failures == here.failures
    assert len(there.failures) == 1
    assert there.forwards_again == 0
    np.testing.assert_array_equal(there.rows(contents[:COUNT]), here.rows(contents[:COUNT]))
    assert there.ensure(contents[:COUNT]) == COUNT
    assert seen[0] == ("images", 0, COUNT + 1)
    assert ("images", COUNT + 1, COUNT + 1) in seen
    assert there.store.verify().ok


@pytest.mark.parametrize("columns", [None, 20])
def test_a_matrix_scored_elsewhere_is_the_same(scene, crew, columns):
    make, contents = scene
    features = make("store")
    contents = contents[:COUNT]
    features.ensure(contents)
    down, across = contents[columns or 0 :], None if columns is None else contents[:columns]
    weights, plan = (
        weights_of(features),
        plan_matrix(len(down), features.extractor.spec.row_bytes, 10**9, columns=columns),
    )
    plan = replace(plan, tile=16, block=16)  # several pieces
    found = []
    for who in (features.crew, crew):
        features.crew = who
        matrix = Matrix(len(down), columns, 16)
        score_matrix(features, down, across, weights, plan, matrix)
        found.append(matrix.array)
    assert found[0].tobytes() == found[1].tobytes()
    assert np.isfinite(found[0]).all()


def test_a_list_scored_elsewhere_is_the_same(scene, crew):
    make, contents = scene
    features = make("store")
    contents = contents[:COUNT]
    features.ensure(contents)
    random = np.random.default_rng(0)
    dense = np.array([(i, j) for i in range(16) for j in range(16, 32)])
    pairs = np.concatenate([dense, random.integers(0, COUNT, (60, 2))])
    row_bytes = features.extractor.spec.row_bytes
    plan = plan_list(*pairs.T, [features.key(c) for c in contents], row_bytes)
    room, found = room_for(10**9, row_bytes, plan.block), []
    for who in (features.crew, crew):
        features.crew = who
        distances = InMemory(np.full(len(plan.pairs), np.nan, np.float32))
        score_list(features, contents, weights_of(features), plan, room, distances)
        found.append(distances.values)
    assert found[0].tobytes() == found[1].tobytes()
    assert np.isfinite(found[0]).all()


def test_a_damaged_row_is_made_again_and_the_matrix_is_the_same(scene, crew):
    make, contents = scene
    features, contents = make("store", side=40), contents[:COUNT]  # rows that nobody has kept yet
    features.ensure(contents)
    plan = plan_matrix(COUNT, features.extractor.spec.row_bytes, 10**9)
    expected = Matrix(COUNT, None, plan.tile)
    score_matrix(features, contents, None, weights_of(features), plan, expected)
    where = features.locate(contents)
    with open(where.files[0].sealed, "r+b") as file:
        file.seek(int(where.offsets[20]) + 9)
        file.write(b"\x55\xaa\x55")
    before, features.crew = features.forwards, crew
    found = Matrix(COUNT, None, plan.tile)
    score_matrix(features, contents, None, weights_of(features), plan, found)
    assert found.array.tobytes() == expected.array.tobytes()
    assert features.forwards == before + 1


def test_rows_for_which_the_store_has_no_room_end_the_run(scene, crew):
    make, contents = scene
    features, contents = make("store", limit=1 << 20), contents[:COUNT]
    features.crew = crew
    with features.store.pin("run", [features.key(c) for c in contents]):
        big = [features.key(b"%d" % n) for n in range(400)]
        rows = np.ones((400, features.extractor.spec.length), features.extractor.spec.dtype)
        with features.store.pin("other", big):
            features.store.put_many(features.extractor.spec, big, rows)
            features.ensure(contents)
            assert "has reached its limit" in features.full
            with pytest.raises(LpipstoreError, match="it has no room for all"):
                features.locate(contents)


def test_a_small_store_evicts_what_was_made_first(scene, crew):
    """Nothing is pinned, as by `extract`: what is lent leaves no room for long."""
    make, contents = scene
    features, contents = make("store", limit=1 << 20), contents[:COUNT]
    filler = [features.key(b"%d" % n) for n in range(400)]
    rows = np.ones((400, features.extractor.spec.length), features.extractor.spec.dtype)
    features.store.put_many(features.extractor.spec, filler, rows)
    features.crew = crew
    features.ensure(contents)
    assert features.full is None
    assert features.forwards == COUNT
    assert len(features.store.missing([features.key(c) for c in contents[-BATCH:]])) == 0
    assert features.store.stat().bytes <= 1 << 20


def test_images_that_a_program_holds_are_made_here(scene, crew):
    make, contents = scene
    features, contents = make("store"), contents[:BATCH]
    features.crew = crew
    names = dict(features.names)
    names[contents[3]] = "python://mine/3"
    features.decode = replace(features.decode, names=names)
    features.ensure(contents)  # nobody knows such a source here either
    assert list(features.failures) == [contents[3]]
    assert "in the memory of a program" in features.failures[contents[3]]
    assert features.forwards == BATCH - 1


def test_an_attempt_after_a_death_takes_what_is_there(scene):
    make, contents = scene
    features, contents = make("store"), contents[:BATCH]
    spec, names = features.extractor.spec, features.names
    loan = features.store.lend(spec, BATCH)
    images = tuple((names[content], content) for content in contents)
    keys = tuple(map(spec.key, contents))
    batch = Batch(features.extractor.portable(), 1, images, keys, SourceOptions(), (loan,))
    loan.begin()  # and then the worker was killed
    made = make_rows(batch)
    assert (made.forwards, made.again) == (BATCH, BATCH)
    for _, path in zip(contents, names.values(), strict=False):
        shutil.move(path, path + ".gone")  # complete rows need no images
    again = make_rows(batch)
    assert (again.forwards, again.again) == (BATCH, 0)
    np.testing.assert_array_equal(again.written[0].records, made.written[0].records)
    assert features.store.accept([(loan, again.written[0])]) == [True]
    assert features.ensure(contents) == BATCH


@pytest.mark.parametrize(("backbone", "size"), [("alex", (64, 64)), ("squeeze", (224, 224))])
def test_as_many_threads_as_the_bits_need(backbone, size):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        extractor = Extractor(load_backbone(backbone, weights="random"), size)
        count = threads_for(extractor)
        noise = np.random.default_rng(1).integers(0, 256, (extractor.batch, *size, 3), np.uint8)
        pixels = torch.from_numpy(noise)
        expected = extractor.rows(pixels)
        assert count in (1, 2)
        torch.set_num_threads(count)
        np.testing.assert_array_equal(extractor.rows(pixels), expected)
    finally:
        torch.set_num_threads(before)


def test_images_in_archives_and_by_relative_paths_are_found(scene, crew, tmp_path, monkeypatch):
    make, contents = scene
    features = make("store")
    paths = [Path(features.names[content]) for content in contents[:4]]
    with ZipFile(tmp_path / "some.zip", "w") as archive:
        for path in paths[:2]:
            archive.write(path, path.name)
    monkeypatch.chdir(tmp_path)  # where the workers are not
    within = [f"some.zip#{path.name}" for path in paths[:2]]
    outside = [str(path.relative_to(tmp_path)) for path in paths[2:]]
    names = dict(zip(contents, within + outside, strict=False))
    features.crew, features.decode = crew, replace(features.decode, names=names)
    features.ensure(contents[:4])
    assert features.failures == {}
    assert features.forwards == 4
