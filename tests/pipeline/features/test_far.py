"""Workers that see no files: what they ask for, what they are sent, and what arrives damaged."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from lpipstore.cache.errors import LpipstoreError, StoreError
from lpipstore.cache.located import RowsLost
from lpipstore.cache.store import FeatureStore
from lpipstore.pipeline.backbones.load import load_backbone
from lpipstore.pipeline.backbones.trunk import wanted_tensors
from lpipstore.pipeline.common.plane import Plane
from lpipstore.pipeline.common.tasks import Crew
from lpipstore.pipeline.features.extractor import Extractor, extractor_of
from lpipstore.pipeline.features.far import ROWS, stored_rows, stored_weights, weights_called
from lpipstore.pipeline.features.features import Features
from lpipstore.pipeline.features.kept import KeptRows
from lpipstore.pipeline.features.parcels import Parcels, open_parcels
from lpipstore.pipeline.images.data import content_of
from lpipstore.pipeline.images.loader import Decoding
from lpipstore.pipeline.sources.source import SourceOptions
from lpipstore.pipeline.sources.sources import Sources


@dataclass(eq=False)
class Wire:
    """A plane within this process; `spoil` may change what comes along."""

    offered: dict = field(default_factory=dict)
    asked: list = field(default_factory=list)
    spoil: object = staticmethod(lambda answer: answer)

    def __call__(self, what, *words):
        answer = self.spoil(bytes(self.offered[what](*words)))
        self.asked.append((what, len(answer)))
        return answer


def plane_of(wire, store, *, rows=True, sees=True):
    wire.offered[ROWS] = lambda *words: stored_rows(store, *words)
    return Plane(wire, wire.offered.__setitem__, rows, lambda paths: sees)


def flipped(answer):
    """Change the last byte."""
    return answer[:-1] + bytes([answer[-1] ^ 1])


@pytest.fixture
def far_shelf(shelve):
    """A function that makes a shelf of rows, described for processes that do not see it."""

    def make(count, **more):
        shelf, wire = shelve(count, **more), Wire()
        plane = plane_of(wire, shelf.features.store.path)
        shelf.features.crew = Crew(elsewhere=True, plane=plane)
        return shelf, wire

    return make


def test_rows_that_are_asked_for_are_those_of_the_store(far_shelf):
    shelf, wire = far_shelf(30)
    where = shelf.features.locate(shelf.contents)
    np.testing.assert_array_equal(where.read(), shelf.rows)
    order = np.random.default_rng(0).permutation(30)
    np.testing.assert_array_equal(where[order].read(), shelf.rows[order])
    assert {what for what, _ in wire.asked} == {ROWS}


def test_a_row_is_asked_for_once_while_there_is_room(far_shelf):
    shelf, wire = far_shelf(30)
    kept, where = KeptRows(), shelf.features.locate(shelf.contents)
    room = 5 * where.nbytes
    random = np.random.default_rng(0)
    for _ in range(8):
        some = random.choice(30, 12, replace=False)
        np.testing.assert_array_equal(kept.get(where[some], room), shelf.rows[some])
    np.testing.assert_array_equal(kept.get(where, room), shelf.rows)
    flags = 30
    assert sum(size for _, size in wire.asked) == where.nbytes + flags


@pytest.mark.parametrize("spoil", [flipped, lambda answer: answer[:-5], lambda answer: b""])
def test_rows_that_arrive_damaged_are_lost_and_named(far_shelf, spoil):
    shelf, wire = far_shelf(5)
    where = shelf.features.locate(shelf.contents)
    wire.spoil = spoil
    with pytest.raises(RowsLost) as lost:
        where.read()
    assert set(lost.value.keys) <= set(where.keys)
    assert where.keys[-1] in lost.value.keys
    wire.spoil = Wire.spoil
    again = shelf.features.mend(lost.value, where)
    np.testing.assert_array_equal(again.read(), shelf.rows)


def test_compressed_rows_arrive_as_they_are_stored(scene, tmp_path):
    make, contents = scene
    contents, wire = contents[:COUNT], Wire()
    features = make("there", compress=True)
    features.ensure(contents)
    plain = features.locate(contents)
    features.crew = crew_of(None, wire, tmp_path)
    where = features.locate(contents)
    assert where.files[0].codec
    np.testing.assert_array_equal(where.read(), plain.read())
    assert sum(size for _, size in wire.asked) == plain.sizes.sum() + COUNT


def test_only_the_folder_of_the_store_is_read(far_shelf, tmp_path):
    shelf, wire = far_shelf(2)
    (tmp_path / "secret").write_bytes(b"secret")
    extents = np.array([[0], [6]], "<i8").tobytes()
    inside = str(shelf.features.store.path / "pools" / ".." / ".." / "secret")
    for path in (str(tmp_path / "secret"), inside):
        with pytest.raises(StoreError, match="which is not in the store at"):
            wire(ROWS, path, path, extents)


# -- new rows ------------------------------------------------------------------------------------

COUNT, BATCH = 21, 8


class Returning(ThreadPoolExecutor):
    """Runs tasks in another thread; damages the rows of the first `damaged` tasks on their way."""

    def __init__(self, damaged=0):
        super().__init__(1)
        self.damaged, self.tasks = damaged, 0

    def submit(self, function, /, *args):
        return super().submit(self._run, function, *args)

    def _run(self, function, *args):
        self.tasks += 1
        results = function(*args)
        if self.tasks <= self.damaged:
            rows = results[0].rows.copy()
            rows[0, 0] += 1
            results[0] = replace(results[0], rows=rows)
        return results


@pytest.fixture
def scene(draw, tmp_path):
    """A function that makes features of drawn images, one of them broken, one gone."""
    folder = tmp_path / "pictures"
    paths = draw(folder, COUNT)
    (folder / "broken.png").write_bytes(b"no picture")
    sources = Sources(SourceOptions())
    names = [str(path) for path in (*paths, folder / "broken.png")]
    contents = {content_of(sources.read(name)): name for name in names}
    contents[bytes(16)] = str(folder / "gone.png")
    stores = []

    def make(name, crew=None, **more):
        stores.append(FeatureStore(tmp_path / name, **more))
        extractor = Extractor(load_backbone("alex", weights="random"), (32, 32), batch=BATCH)
        decode = Decoding(sources, contents, extractor.preparation, workers=0)
        features = Features(extractor, stores[-1], decode, names=contents)
        if crew is not None:
            features.crew = crew
        return features

    yield make, list(contents)
    for store in stores:
        store.close()


def crew_of(executor, wire, tmp_path, **more):
    plane = plane_of(wire, tmp_path / "there", **more)
    return Crew(executor, elsewhere=True, ahead=3, memory=10**9, plane=plane)


@pytest.mark.parametrize("seen", [{"rows": True}, {"rows": False, "sees": False}])
def test_rows_of_images_that_are_sent_are_the_same(scene, tmp_path, seen):
    make, contents = scene
    here = make("here")
    here.ensure(contents)
    with Returning() as pool:
        there = make("there", crew_of(pool, Wire(), tmp_path, **seen))
        assert there.ensure(contents) == 0
        assert pool.tasks == 3
    assert there.forwards == here.forwards == COUNT
    assert there.failures == here.failures
    assert len(there.failures) == 2
    np.testing.assert_array_equal(there.rows(contents[:COUNT]), here.rows(contents[:COUNT]))
    assert there.forwards == COUNT  # none is computed again


def test_rows_that_come_back_damaged_are_made_again(scene, tmp_path):
    make, contents = scene
    contents = contents[:COUNT]
    expected = make("here").rows(contents)
    with Returning(damaged=2) as pool:
        there = make("there", crew_of(pool, Wire(), tmp_path))
        there.ensure(contents)
        assert pool.tasks == 5
    assert there.forwards == COUNT
    np.testing.assert_array_equal(there.rows(contents), expected)
    with Returning(damaged=99) as pool:
        worse = make("worse", crew_of(pool, Wire(), tmp_path))
        with pytest.raises(LpipstoreError, match="of 21 images came back damaged .* 3 times"):
            worse.ensure(contents)
    assert worse.store.missing([worse.key(content) for content in contents])


def test_a_full_store_ends_the_sending(scene, tmp_path):
    make, contents = scene
    with Returning() as pool:
        there = make("there", crew_of(pool, Wire(), tmp_path), limit=1 << 20)
        big = [there.key(b"%d" % n) for n in range(400)]
        rows = np.ones((400, there.extractor.spec.length), there.extractor.spec.dtype)
        with there.store.pin("other", big):
            there.store.put_many(there.extractor.spec, big, rows)
            there.ensure(contents)
        assert "has reached its limit" in there.full
    assert len(there.failures) == 2  # found out without a row


def test_large_images_make_small_batches(scene, tmp_path, monkeypatch):
    make, contents = scene
    with Returning() as pool:
        there = make("there", crew_of(pool, Wire(), tmp_path))
        monkeypatch.setattr("lpipstore.pipeline.features.parcels._BATCH_BYTES", 1)
        there.ensure(contents)
        assert pool.tasks == len(contents)
    assert (there.forwards, len(there.failures)) == (COUNT, 2)
    np.testing.assert_array_equal(there.rows(contents[:3]), make("here").rows(contents[:3]))


def test_weights_come_with_the_asking_and_must_be_the_same(tmp_path):
    trunk = load_backbone("alex", weights="random").trunk
    state = {name: 0.5 * tensor for name, tensor in wanted_tensors(trunk).items()}
    file = tmp_path / "weights.pth"
    torch.save(state, file)
    spec = Extractor(load_backbone("alex", weights=file), (32, 32)).portable()
    wire, choice = Wire(), spec.backbone
    sent = stored_weights(choice)
    wire.offered[weights_called(choice)] = lambda: sent
    file.unlink()  # as on another host
    found = extractor_of(spec, wire).backbone.trunk.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    torch.save({name: 2 * tensor for name, tensor in state.items()}, file)
    other = Wire({weights_called(choice): file.read_bytes})
    with pytest.raises(LpipstoreError, match="are not those that the run began with"):
        extractor_of(spec, other)


def test_no_weights_are_sent_for_a_random_trunk(scene, tmp_path):
    make, contents = scene
    wire = Wire()
    with Returning() as pool:
        make("there", crew_of(pool, wire, tmp_path)).ensure(contents[:3])
    assert wire.asked == []


def test_parcels_are_opened_without_any_file(scene, tmp_path):
    """What a task holds is all that it takes, pixels of a source among it."""
    make, contents = scene
    features = make("there")
    plane = plane_of(Wire(), tmp_path)
    crew = Crew(elsewhere=True, plane=plane)
    parcels = Parcels(
        crew, plane, features.extractor, features.store, features.decode, features.clock
    )
    (task,) = parcels._tasks(contents[:3])
    pixels = torch.zeros(32, 32, 3, dtype=torch.uint8)
    (parcel,) = task.args[0]
    (returned,) = open_parcels([replace(parcel, images=(*parcel.images, pixels, "no"))])
    assert returned.numbers == [0, 1, 2, 3]
    assert returned.failures == {4: "no"}
    assert returned.whole(features.extractor.spec)
    assert task.bytes > returned.rows[:3].nbytes
