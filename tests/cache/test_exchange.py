"""Rows that travel between stores by way of a remote folder: what is sent, found, lost, mended."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import zarr

from lpipstore.cache.errors import LpipstoreError
from lpipstore.cache.exchange import catalogue as catalogues
from lpipstore.cache.exchange import fetch as fetching
from lpipstore.cache.exchange import remote_segments
from lpipstore.cache.exchange.catalogue import need_catalogue, read_catalogue
from lpipstore.cache.exchange.fetch import Fetcher
from lpipstore.cache.exchange.folder import (
    Listed,
    RemoteError,
    catalogue_name,
    digest_of,
    is_catalogue,
    is_segment,
)
from lpipstore.cache.exchange.kept import KeptCatalogues
from lpipstore.cache.exchange.push import push
from lpipstore.cache.exchange.requests import as_they_end
from lpipstore.cache.keys import PoolSpec
from lpipstore.cache.store import FeatureStore

SPEC = PoolSpec("tests", 3000, "uint16", {"backbone": "alex"})
OTHER = PoolSpec("others", 500, "float32", {"backbone": "squeeze"})
LIMIT = 2 << 20  # so that a segment holds about twenty rows of SPEC


class Folder:
    """A remote folder in memory, which counts what is written and calls `before` each request."""

    def __init__(self):
        self.place = "test://folder"
        self.objects = {}
        self.written = []
        self.asked = []
        self.read_whole = []
        self.tags = True
        self.before = lambda what: None

    def list(self, prefix=""):
        self.before("list")
        found = {n: d for n, d in dict(self.objects).items() if n.startswith(prefix)}
        return {n: Listed(len(d), digest_of(d) if self.tags else "") for n, d in found.items()}

    def read(self, name):
        self.before("read")
        self.read_whole.append(name)
        return self.objects.get(name)

    def read_range(self, name, start, size):
        self.asked.append((name, start, size))
        return self.objects.get(name, b"")[start : start + size]

    def write(self, name, data):
        self.before("write")
        self.objects[name] = data
        self.written.append(name)

    def remove(self, name):
        self.before("remove")
        self.objects.pop(name, None)

    @property
    def segments(self):
        return sorted(filter(is_segment, self.objects))

    @property
    def catalogues(self):
        return sorted(filter(is_catalogue, self.objects))


@pytest.fixture
def folder():
    return Folder()


@pytest.fixture
def warnings():
    """The lines of warnings."""
    return []


def row_of(spec, n):
    return ((np.arange(spec.length) + 7 * n) % 60_000).astype(spec.dtype)


def key_of(spec, n):
    return spec.key(b"%d" % n)


def fill(store, numbers, spec=SPEC):
    keys = [key_of(spec, n) for n in numbers]
    assert store.put_many(spec, keys, np.stack([row_of(spec, n) for n in numbers])) == len(keys)


def push_all(store, folder, warnings, recipe=None, **options):
    return push(store, folder, recipe, lambda done, total: None, warnings.append, **options)


def fetcher(folder, warnings):
    return Fetcher(folder, read_catalogue(folder, warnings.append), warnings.append)


def fetched(remote, numbers, spec=SPEC):
    """Fetch rows, check every value, and return the numbers of those that came."""
    by_key = {key_of(spec, n): n for n in numbers}
    came = []
    for batch in remote.fetch(list(by_key)):
        assert batch.spec == spec
        for key, row in zip(batch.keys, batch.rows, strict=True):
            assert np.array_equal(row, row_of(spec, by_key[key]))
            came.append(by_key[key])
    assert len(came) == len(set(came))
    return sorted(came)


@pytest.fixture
def make(tmp_path):
    """A function that opens stores, each in a folder of its own, with some rows."""
    opened = []

    def make_one(numbers=(), spec=SPEC, **options):
        store = FeatureStore(tmp_path / f"store{len(opened)}", **{"limit": LIMIT, **options})
        opened.append(store)
        if len(numbers):
            fill(store, numbers, spec)
        return store

    yield make_one
    for store in opened:
        store.close()


@pytest.mark.parametrize("compress", [False, True])
def test_rows_come_back_as_they_were(make, folder, warnings, compress):
    store = make(range(50), compress=compress)
    fill(store, range(30), OTHER)
    pushed = push_all(store, folder, warnings)
    assert (pushed.rows, pushed.there, pushed.corrupt, pushed.resumed) == (80, 0, 0, 0)
    assert pushed.segments == len(folder.segments) > 2
    assert folder.written[-1] in folder.catalogues  # it comes last
    remote = fetcher(folder, warnings)
    assert fetched(remote, range(60)) == [*range(50)]
    assert fetched(remote, range(30), OTHER) == [*range(30)]
    assert remote.rows == 80
    assert not warnings


def test_pushing_again_sends_nothing(make, folder, warnings):
    store = make(range(50))
    push_all(store, folder, warnings)
    written = len(folder.written)
    again = push_all(store, folder, warnings)
    assert (again.rows, again.bytes, again.there) == (0, 0, 50)
    assert len(folder.written) == written
    # Another store with the same rows, in other segments, has nothing to send either
    assert push_all(make(range(49, -1, -1)), folder, warnings).bytes == 0
    fill(store, range(50, 60))
    assert push_all(store, folder, warnings).rows == 10
    assert fetched(fetcher(folder, warnings), range(60)) == [*range(60)]


def test_only_the_pools_of_a_backbone(make, folder, warnings):
    store = make(range(5))
    fill(store, range(5), OTHER)
    assert push_all(store, folder, warnings, {"backbone": "squeeze"}).rows == 5
    remote = fetcher(folder, warnings)
    assert fetched(remote, range(5)) == []
    assert fetched(remote, range(5), OTHER) == [*range(5)]


def test_each_segment_is_a_zarr_array(make, folder, warnings, tmp_path):
    push_all(make(range(50)), folder, warnings)
    for name, data in folder.objects.items():
        path = tmp_path / "zarr" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    pool = zarr.open_group(tmp_path / "zarr" / SPEC.folder, mode="r")
    rows = np.concatenate([array[:] for _, array in pool.arrays()])
    assert sorted(map(tuple, rows)) == sorted(tuple(row_of(SPEC, n)) for n in range(50))
    assert dict(pool.attrs)["lpipstore"]["recipe"] == SPEC.recipe


def test_neighbouring_rows_come_in_one_request(make, folder, warnings, monkeypatch):
    push_all(make(range(300), limit=None), folder, warnings)
    assert fetched(fetcher(folder, warnings), range(100, 200)) == [*range(100, 200)]
    assert len(folder.asked) == 1
    folder.asked.clear()
    monkeypatch.setattr(fetching, "_GAP", 6100)  # one row
    assert fetched(fetcher(folder, warnings), [10, 11, 13, 16, 17]) == [10, 11, 13, 16, 17]
    assert sorted(size for _, _, size in folder.asked) == [2 * 6004 - 4, 4 * 6004 - 4]
    folder.asked.clear()
    monkeypatch.setattr(fetching, "_MOST_BYTES", 60_040)  # ten rows
    assert fetched(fetcher(folder, warnings), range(300)) == [*range(300)]
    assert len(folder.asked) == 30


def test_a_push_that_failed_goes_on(make, folder, warnings):
    store = make(range(100))

    def fail(what):
        if what == "write" and len(folder.segments) == 3:
            raise RemoteError("the line was cut")

    folder.before = fail
    with pytest.raises(RemoteError, match="cut"):
        push_all(store, folder, warnings)
    assert not folder.catalogues  # a reader sees nothing of it
    sent = folder.segments
    folder.before = lambda what: None
    written = len(folder.written)
    pushed = push_all(store, folder, warnings)
    assert pushed.resumed == len(sent) >= 3
    assert pushed.rows == 100
    assert not set(sent) & set(folder.written[written:])
    assert fetched(fetcher(folder, warnings), range(100)) == [*range(100)]


def test_an_object_that_does_not_arrive_whole(make, folder, warnings):
    def cut(name, data):
        folder.objects[name] = data[:-1] if is_segment(name) else data

    write, folder.write = folder.write, cut
    store = make(range(10))
    with pytest.raises(RemoteError, match="bytes after it was written"):
        push_all(store, folder, warnings)
    folder.write = write
    assert push_all(store, folder, warnings).rows == 10


def test_a_catalogue_that_was_removed_is_made_again(make, folder, warnings):
    store = make(range(50))
    push_all(store, folder, warnings)
    for name in folder.catalogues:
        del folder.objects[name]
    with pytest.raises(LpipstoreError, match="there is no catalogue of rows in test://folder"):
        need_catalogue(folder, read_catalogue(folder, warnings.append))
    pushed = push_all(store, folder, warnings)
    assert pushed.resumed == len(folder.segments)
    assert pushed.segments == 0
    assert fetched(fetcher(folder, warnings), range(50)) == [*range(50)]


def test_whoever_pushes_enters_what_others_have_left(make, folder, warnings):
    push_all(make(range(50), compress=True), folder, warnings)
    for name in folder.catalogues:
        del folder.objects[name]
    cut = folder.segments[1]
    folder.objects[cut] = folder.objects[cut][:-1]
    pushed = push_all(make([100]), folder, warnings)
    assert (pushed.resumed, pushed.segments) == (len(folder.segments) - 2, 1)
    came = fetched(fetcher(folder, warnings), range(101))
    assert 20 < len(came) == pushed.rows < 51
    assert 100 in came
    assert push_all(make([100]), folder, warnings).bytes == 0


@pytest.mark.parametrize("damage", ["truncated", "altered", "emptied", "removed"])
def test_damaged_objects_are_named_and_their_rows_missing(make, folder, warnings, damage):
    store = make(range(50))
    push_all(store, folder, warnings)
    name = folder.segments[0]
    data = folder.objects[name]
    keep = {"truncated": data[:20_000], "altered": data[:100] + b"?" + data[101:], "emptied": b""}
    if damage in keep:
        folder.objects[name] = keep[damage]
    else:
        del folder.objects[name]
    remote = fetcher(folder, warnings)
    came = fetched(remote, range(50))
    lost = 50 - len(came)
    assert (lost == 1) if damage == "altered" else (lost > 1)
    assert remote.damaged == {f"test://folder/{name}": lost}
    assert [line.partition(" is ")[0] for line in warnings] == [f"test://folder/{name}"]
    assert len(remote.missing([key_of(SPEC, n) for n in range(50)])) == lost
    folder.asked.clear()
    assert fetched(remote, set(range(50)) - set(came)) == []
    assert not folder.asked  # what is damaged is not asked for again
    folder.objects.pop(name, None)  # what the warning says
    assert push_all(store, folder, warnings).bytes > len(data)
    assert fetched(fetcher(folder, warnings), range(50)) == [*range(50)]


def test_truncated_objects_are_sent_again(make, folder, warnings):
    store = make(range(50))
    push_all(store, folder, warnings)
    name = folder.segments[0]
    folder.objects[name] = folder.objects[name][:500]
    assert push_all(store, folder, warnings).segments == 1
    assert fetched(fetcher(folder, warnings), range(50)) == [*range(50)]


def test_a_damaged_catalogue_is_named_and_left_out(make, folder, warnings):
    store = make(range(20))
    push_all(store, folder, warnings)
    fill(store, range(20, 40))
    push_all(store, folder, warnings)
    name = folder.catalogues[0]
    folder.objects[name] = folder.objects[name][:-10]
    assert len(fetched(fetcher(folder, warnings), range(40))) == 20
    assert [line.partition(" is ")[0] for line in warnings] == [f"test://folder/{name}"]
    assert push_all(store, folder, warnings).rows == 20
    assert fetched(fetcher(folder, warnings), range(40)) == [*range(40)]


def test_a_catalogue_of_another_format_is_refused(make, folder, warnings, monkeypatch):
    monkeypatch.setattr(remote_segments, "FORMAT_VERSION", 2)
    push_all(make(range(5)), folder, warnings)
    monkeypatch.undo()
    with pytest.raises(RemoteError, match="has format 2, and this lpipstore reads format 1"):
        read_catalogue(folder, warnings.append)


def test_rows_damaged_in_the_store_are_not_pushed(make, folder, warnings):
    store = make(range(10))
    (segment,) = store.sealed()
    path = store.path / "pools" / segment.key
    data = bytearray(path.read_bytes())
    data[segment.contents.starts[4] + 9] ^= 1
    path.write_bytes(data)
    pushed = push_all(store, folder, warnings)
    assert (pushed.rows, pushed.corrupt) == (9, 1)
    assert fetched(fetcher(folder, warnings), range(10)) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert push_all(store, folder, warnings).bytes == 0
    assert push_all(make([4]), folder, warnings).rows == 1
    assert fetched(fetcher(folder, warnings), range(10)) == [*range(10)]


def test_what_was_used_last_comes_first(make, folder, warnings):
    store = make(range(60))
    push_all(store, folder, warnings, {"backbone": "none"})
    store.get(key_of(SPEC, 25))
    push_all(store, folder, warnings)
    fill(store, range(60, 65))
    push_all(store, folder, warnings)
    listed = read_catalogue(folder, warnings.append).segments
    have = [{bytes(r[["hi", "lo"]].tobytes()[:16]) for r in s.records} for s in listed]
    assert key_of(SPEC, 60) in have[0]  # pushed last
    assert key_of(SPEC, 25) in have[1]


def test_many_catalogues_become_one(make, folder, warnings, monkeypatch):
    monkeypatch.setattr(catalogues, "MOST_CATALOGUES", 3)
    store, counts = make(), []
    for n in range(10):
        fill(store, [n])
        push_all(store, folder, warnings)
        counts.append(len(folder.catalogues))
    assert counts == [1, 2, 3, 1, 2, 3, 1, 2, 3, 1]
    assert fetched(fetcher(folder, warnings), range(10)) == [*range(10)]


def test_two_pushes_lose_nothing_at_whatever_moment_they_meet(make, folder, warnings, monkeypatch):
    """Before request number k of one push, another one happens; for every k, with merging."""
    monkeypatch.setattr(catalogues, "MOST_CATALOGUES", 2)
    first, second, number = make(), make(), 0
    expected = []
    for moment in range(200):
        fill(first, [number])
        fill(second, [number + 1])
        expected += [number, number + 1]
        number += 2
        count = 0

        def meet(what, moment=moment):
            nonlocal count
            count += 1
            if count == moment + 1:
                push_all(second, folder, warnings)

        folder.before = meet
        push_all(first, folder, warnings)
        folder.before = lambda what: None
        if count <= moment:
            break
        assert fetched(fetcher(folder, warnings), expected) == expected
    assert moment >= 8
    assert not warnings


def test_a_reader_meets_a_merge(make, folder, warnings, monkeypatch):
    monkeypatch.setattr(catalogues, "MOST_CATALOGUES", 2)
    store = make()
    for n in range(2):
        fill(store, [n])
        push_all(store, folder, warnings)
    fill(store, [2])
    once = []

    def merge(what):
        if what == "read" and not once:
            once.append(what)
            push_all(store, folder, warnings)

    folder.before = merge
    assert fetched(fetcher(folder, warnings), range(3)) == [0, 1, 2]
    assert len(folder.catalogues) == 1


def test_pushes_in_threads(make, folder, warnings, monkeypatch):
    monkeypatch.setattr(catalogues, "MOST_CATALOGUES", 2)
    stores = [make(range(40 * n, 40 * n + 60)) for n in range(4)]
    together = threading.Barrier(4)
    failures = []

    def run(store):
        together.wait()
        try:
            push_all(store, folder, warnings)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert fetched(fetcher(folder, warnings), range(180)) == [*range(180)]


def alter(folder, name):
    data = folder.objects[name]
    folder.objects[name] = data[:50] + bytes([data[50] ^ 1]) + data[51:]


def test_an_altered_object_is_noticed_and_mended(make, folder, warnings):
    store = make(range(50))
    push_all(store, folder, warnings)
    whole = dict(folder.objects)
    alter(folder, folder.segments[1])
    folder.read_whole.clear()
    pushed = push_all(store, folder, warnings)
    assert (pushed.altered, pushed.segments, pushed.resumed) == (1, 1, 0)
    assert 0 < pushed.rows < 50
    assert pushed.rows + pushed.there == 50
    assert [name for name in folder.read_whole if is_segment(name)] == [folder.segments[1]]
    assert {n: folder.objects[n] for n in folder.segments} == {n: whole[n] for n in folder.segments}
    folder.read_whole.clear()
    again = push_all(store, folder, warnings)
    assert (again.altered, again.bytes) == (0, 0)
    assert not any(map(is_segment, folder.read_whole))
    assert fetched(fetcher(folder, warnings), range(50)) == [*range(50)]
    assert not warnings


def test_an_altered_object_whose_rows_are_elsewhere(make, folder, warnings):
    push_all(make(range(15)), folder, warnings)
    (name,) = folder.segments
    alter(folder, name)
    pushed = push_all(make(range(5)), folder, warnings)
    assert (pushed.altered, pushed.rows) == (1, 5)
    assert warnings == [
        f"test://folder/{name} was altered, and this store lacks 10 of its rows: push again from "
        "a store that has them"
    ]
    assert fetched(fetcher(folder, []), range(5)) == [*range(5)]


def test_an_altered_object_is_removed_once_its_rows_are_elsewhere(make, folder, warnings):
    push_all(make(range(15)), folder, warnings)
    (name,) = folder.segments
    alter(folder, name)
    pushed = push_all(make(range(30)), folder, warnings)
    assert (pushed.altered, pushed.rows) == (1, 30)
    assert name not in folder.objects
    folder.read_whole.clear()
    assert push_all(make(range(30)), folder, warnings).bytes == 0
    assert not any(map(is_segment, folder.read_whole))
    assert fetched(fetcher(folder, warnings), range(30)) == [*range(30)]


@pytest.mark.parametrize("compress", [False, True])
def test_small_segments_are_sent_as_one(make, folder, warnings, tmp_path, compress):
    store = make(limit=None, compress=compress)
    for n in range(12):  # as workers of a cluster write them, a batch each
        fill(store, range(5 * n, 5 * n + 5))
        assert len(store.sealed()) == n + 1
    pushed = push_all(store, folder, warnings)
    assert (pushed.rows, pushed.segments) == (60, 1)
    assert fetched(fetcher(folder, warnings), range(60)) == [*range(60)]
    assert push_all(store, folder, warnings).bytes == 0
    for name in folder.catalogues:
        folder.remove(name)
    found = push_all(store, folder, warnings)  # by what is at its end
    assert (found.rows, found.segments, found.resumed) == (60, 0, 1)
    alter(folder, folder.segments[0])
    mended = push_all(store, folder, warnings)
    assert (mended.altered, mended.segments) == (1, 1)
    assert fetched(fetcher(folder, warnings), range(60)) == [*range(60)]
    for name, data in folder.objects.items():
        path = tmp_path / "zarr" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    if not compress:
        (array,) = (
            a for _, a in zarr.open_group(tmp_path / "zarr" / SPEC.folder, mode="r").arrays()
        )
        assert sorted(map(tuple, array[:])) == sorted(tuple(row_of(SPEC, n)) for n in range(60))


def test_the_same_content_under_another_tag_is_read_once(make, folder, warnings, monkeypatch):
    store = make(range(15))
    push_all(store, folder, warnings)
    listed = folder.list
    monkeypatch.setattr(
        folder,
        "list",
        lambda prefix="": {
            name: Listed(one.size, f"other {one.tag}") for name, one in listed(prefix).items()
        },
    )
    folder.read_whole.clear()
    first = push_all(store, folder, warnings)
    assert (first.altered, first.rows, first.segments) == (0, 0, 0)
    assert list(map(is_segment, folder.read_whole)).count(True) == 1
    folder.read_whole.clear()
    assert push_all(store, folder, warnings).bytes == 0
    assert not any(map(is_segment, folder.read_whole))


def test_a_storage_that_tells_nothing_is_read_on_demand(make, folder, warnings):
    folder.tags = False
    store = make(range(50))
    push_all(store, folder, warnings)
    alter(folder, folder.segments[0])
    assert push_all(store, folder, warnings).altered == 0
    pushed = push_all(store, folder, warnings, verify=True)
    assert (pushed.altered, pushed.segments) == (1, 1)
    assert push_all(store, folder, warnings, verify=True).altered == 0
    assert fetched(fetcher(folder, warnings), range(50)) == [*range(50)]


def test_an_uncatalogued_object_that_was_altered_is_left_out(make, folder, warnings):
    store = make(range(15))
    push_all(store, folder, warnings)
    for name in folder.catalogues:
        folder.remove(name)
    alter(folder, folder.segments[0])
    pushed = push_all(store, folder, warnings, verify=True)
    assert (pushed.altered, pushed.resumed, pushed.rows) == (1, 0, 15)
    assert fetched(fetcher(folder, warnings), range(15)) == [*range(15)]


def test_catalogues_are_fetched_once(make, folder, warnings, tmp_path):
    push_all(make(range(30)), folder, warnings)
    kept = KeptCatalogues(tmp_path / "kept", warnings.append)

    def read():
        folder.read_whole.clear()
        return len(read_catalogue(folder, warnings.append, kept).missing([key_of(SPEC, 3)]))

    assert read() == 0
    assert folder.read_whole == folder.catalogues
    assert read() == 0
    assert folder.read_whole == []
    push_all(make(range(40, 50)), folder, warnings)
    assert read() == 0
    assert len(folder.read_whole) == 1  # the new one
    for path in (tmp_path / "kept").iterdir():
        path.write_bytes(b"damaged")
    assert read() == 0
    assert folder.read_whole == folder.catalogues
    assert not warnings


def test_kept_catalogues_are_bounded(tmp_path, warnings):
    kept = KeptCatalogues(tmp_path / "kept", warnings.append, most=250)
    data = {catalogue_name(digest_of(d)): d for d in (bytes([n]) * 100 for n in range(3))}
    first, second, third = data
    kept.put(first, data[first])
    kept.put(second, data[second])
    os.utime(tmp_path / "kept" / Path(second).name, (1, 1))
    assert kept.get(first) == data[first]
    kept.put(third, data[third])
    assert kept.get(second) is None
    assert kept.get(first) == data[first]
    assert kept.get(third) == data[third]
    kept.put(second, bytes(300))  # more than all may take
    assert kept.get(second) is None
    assert len(list((tmp_path / "kept").iterdir())) == 2
    (tmp_path / "file").write_bytes(b"")
    KeptCatalogues(tmp_path / "file", warnings.append).put(first, data[first])
    assert "fetched again the next time" in warnings[0]


def test_few_items_are_on_their_way_at_once():
    lock, now, most = threading.Lock(), 0, 0
    turn = threading.Event()

    def work(item):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            if now == 3:
                turn.set()
        assert turn.wait(10)
        with lock:
            now -= 1
        return item * item

    assert sorted(as_they_end(work, range(20), 3)) == [(n, n * n) for n in range(20)]
    assert most == 3
    started = []
    each = as_they_end(started.append, iter(range(1000)), 2)
    next(each)
    each.close()
    assert len(started) <= 4

    def fail(n):
        raise RemoteError(f"no {n}")

    with pytest.raises(RemoteError, match="no"):
        list(as_they_end(fail, range(5), 2))
