"""The contract of what keeps sealed segments, and a store whose segments are not in its folder."""

import errno
import os

import numpy as np
import pytest

from lpipstore.cache.errors import StoreError
from lpipstore.cache.footer import Contents
from lpipstore.cache.segmentfiles import LocalSegments, SegmentListing, SegmentStat, read_bytes
from lpipstore.cache.store import FeatureStore

POOL = "made-0123456789ab"
KEY, OTHER = f"{POOL}/c.0.0", f"{POOL}/c.12.0"
LIMIT = 2 << 20


class Held:
    """The bytes of a segment in memory."""

    def __init__(self, content):
        self.content = content
        self.size = len(content)

    def read_at(self, buffers, offset):
        done = offset
        for buffer in buffers:
            part = self.content[done : done + memoryview(buffer).nbytes]
            memoryview(buffer).cast("B")[: len(part)] = part
            done += len(part)
        return done - offset


class MemorySegments:
    """Copies segments into memory, as object storage copies them over the network."""

    place = "memory:"

    def __init__(self):
        self.segments = {}
        self.gone = set()

    def open(self, key):
        return Held(self.segments[key]) if key in self.segments else None

    def stat(self, key):
        size = len(self.segments.get(key, b""))
        return SegmentStat(size, size, 0) if key in self.segments else None

    def list(self):
        return SegmentListing(frozenset(self.segments), frozenset(self.gone))

    def publish(self, staged, key):
        self.segments[key] = staged.read_bytes()

    def take_back(self, key, staged):
        self.segments.pop(key, None)

    def replace_ending(self, key, start, ending):
        self.segments[key] = self.segments[key][:start] + ending

    def delete(self, key):
        self.gone.add(key)
        self.segments.pop(key, None)

    def deleted(self, key):
        return key in self.gone

    def forget(self, key):
        self.gone.discard(key)


# -- the contract: what every implementation does ----------------------------------------------


@pytest.fixture(params=["local", "durable", "memory"])
def files(request, tmp_path):
    (tmp_path / "pools" / POOL).mkdir(parents=True)
    if request.param == "memory":
        return MemorySegments()
    return LocalSegments(tmp_path / "pools", durable=request.param == "durable")


@pytest.fixture
def publish(files, tmp_path):
    def put(key, content):
        staged = tmp_path / "staged"
        staged.write_bytes(content)
        files.publish(staged, key)
        staged.unlink(missing_ok=True)

    return put


def test_what_is_published_can_be_read(files, publish):
    assert files.open(KEY) is None and files.stat(KEY) is None
    publish(KEY, b"0123456789")
    file, stat = files.open(KEY), files.stat(KEY)
    assert file.size == stat.size == 10 and stat.whole >= 10
    first, second = bytearray(3), np.zeros(2, np.uint8)
    assert file.read_at([first, second], 2) == 5
    assert bytes(first) + second.tobytes() == b"23456"
    assert read_bytes(file, 100, 8) == b"89" and read_bytes(file, 5, 10) == b""
    assert files.open(OTHER) is None


def test_what_is_published_is_listed(files, publish):
    assert files.list() == SegmentListing(frozenset(), frozenset())
    publish(KEY, b"one")
    publish(OTHER, b"two")
    assert files.list() == SegmentListing(frozenset([KEY, OTHER]), frozenset())


def test_publishing_again_replaces(files, publish):
    publish(KEY, b"half")
    publish(KEY, b"whole")
    assert read_bytes(files.open(KEY), 10, 0) == b"whole"


def test_what_is_taken_back_can_be_written_on(files, tmp_path):
    staged = tmp_path / "staged"
    with staged.open("w+b", buffering=0) as writer:
        writer.write(b"rows")
        files.publish(staged, KEY)
        files.take_back(KEY, staged)
        assert files.open(KEY) is None and not files.deleted(KEY)
        writer.write(b" and more")
        assert staged.read_bytes() == b"rows and more"
        files.take_back(OTHER, staged)  # it was never published
        assert staged.read_bytes() == b"rows and more"


@pytest.mark.parametrize("ending", [b"", b"new", b"much longer than before"])
def test_an_ending_is_replaced(files, publish, ending):
    publish(KEY, b"0123old")
    files.replace_ending(KEY, 4, ending)
    assert read_bytes(files.open(KEY), 100, 0) == b"0123" + ending


def test_what_is_deleted_is_known_until_it_is_forgotten(files, publish):
    publish(KEY, bytes(10_000))
    publish(OTHER, b"stays")
    files.delete(KEY)
    assert files.open(KEY) is None and files.stat(KEY) is None
    assert files.deleted(KEY) and not files.deleted(OTHER)
    assert files.list() == SegmentListing(frozenset([OTHER]), frozenset([KEY]))
    for _ in range(2):
        files.forget(KEY)
        assert files.list() == SegmentListing(frozenset([OTHER]), frozenset())
    assert not files.deleted(KEY)


def test_bytes_are_free_as_soon_as_a_segment_is_deleted(tmp_path, du):
    (tmp_path / "pools" / POOL).mkdir(parents=True)
    local = LocalSegments(tmp_path / "pools", durable=False)
    (tmp_path / "pools" / KEY).write_bytes(bytes(1 << 20))
    before = du(tmp_path)
    local.delete(KEY)
    assert before - du(tmp_path) >= 1 << 20


# -- a store on top of it ----------------------------------------------------------------------


@pytest.fixture
def memory():
    return MemorySegments()


@pytest.fixture
def reopened(tmp_path, memory):
    """Open the store in `tmp_path` whose sealed segments are in memory."""
    return lambda **options: FeatureStore(tmp_path, sealed=memory, **options)


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "packed"])
def test_rows_outlive_the_store(reopened, memory, made, segment_files, tmp_path, compress):
    with reopened(compress=compress, limit=LIMIT) as store:
        made.put(store, range(100))
        assert made.held(store, range(100)) == list(range(100))
    assert len(memory.segments) > 1 and segment_files(tmp_path) == []
    with reopened() as store:
        assert made.held(store, range(110)) == list(range(100))
        scanned = [key for keys, _ in store.scan(made.spec) for key in keys]
        assert scanned == made.keys(range(100))
        assert store.stat().rows == 100
        report = store.verify()
        assert (report.rows, report.findings) == (100, [])


def test_the_same_bytes_as_in_a_local_folder(reopened, memory, made, tmp_path):
    with reopened() as store, FeatureStore(tmp_path / "local") as local:
        made.put(store, range(100))
        made.put(local, range(100))
    for key, content in memory.segments.items():
        assert (tmp_path / "local" / "pools" / key).read_bytes() == content


def test_eviction_keeps_the_limit(reopened, memory, made):
    with reopened(limit=LIMIT) as store:
        for start in range(0, 1000, 50):
            made.put(store, range(start, start + 50))
        stat = store.stat()
        assert stat.evicted_segments > 0 and stat.bytes <= LIMIT and stat.corrupt_rows == 0
        assert made.held(store, range(1000))[-1] == 999
        assert sum(map(len, memory.segments.values())) <= LIMIT and not memory.gone
        assert store.verify().findings == []
        store.clear()
    assert memory.segments == {} and memory.gone == set()


def test_a_corrupt_row_is_a_miss_and_mended(reopened, memory, made):
    with reopened() as store:
        made.put(store, range(10))
    ((key, content),) = memory.segments.items()
    memory.segments[key] = bytes([content[0] ^ 1]) + content[1:]
    with reopened() as store:
        assert [f.kind for f in store.verify().findings] == ["corrupt row"]
        assert store.verify(repair=True).ok and store.verify().findings == []
        assert made.held(store, range(10)) == list(range(1, 10))


def test_a_lost_segment_is_a_miss(reopened, memory, made):
    with reopened() as store:
        made.put(store, range(10))
        store.evict(1 << 40)
        (key,) = memory.segments
        memory.segments.clear()
        (finding,) = store.verify().findings
        assert (finding.kind, finding.where) == ("missing segment", f"memory:/{key}")
    with reopened() as store:
        assert made.held(store, range(10)) == [] and store.stat().corrupt_rows == 10


def test_a_lost_index_is_rebuilt(reopened, tmp_path, memory, made):
    with reopened() as store:
        made.put(store, range(10))
    (key,) = memory.segments
    memory.segments[key.replace("c.0.0", "c.7.0")] = b"no segment"
    for path in tmp_path.glob("index.sqlite*"):
        path.unlink()
    with reopened() as store:
        assert made.held(store, range(10)) == list(range(10))
        assert store.stat().removed_orphans == 1 and len(memory.segments) == 1


def test_a_killed_writer_is_recovered(reopened, memory, made, crash, tmp_path):
    store = reopened()
    made.put(store, range(10))
    crash(store, b"half a row")
    with reopened() as store:
        assert store.stat().adopted_orphans == 1 and len(memory.segments) == 1
        assert made.held(store, range(20)) == list(range(10))
        assert store.verify().findings[1:] == []
    assert os.listdir(tmp_path / "open") == []


@pytest.mark.parametrize("sealed", [False, True], ids=["before the commit", "after it"])
def test_killed_between_the_copy_and_its_removal(reopened, memory, made, crash, tmp_path, sealed):
    store = reopened()
    made.put(store, range(10))
    target = next(iter(store._handle.opened.writer._open.values()))
    target.file.finish(Contents.of(target.parts), target.segment.pool.slots, durable=False)
    memory.publish(target.file.path, target.segment.key)
    if sealed:
        with store._handle.opened.state.transaction() as transaction:
            transaction.execute("UPDATE segments SET sealed = 1")
    crash(store)
    with reopened() as store:
        assert os.listdir(tmp_path / "open") == []
        assert made.held(store, range(20)) == list(range(10))
        assert store.stat().adopted_orphans == (0 if sealed else 1)
        assert store.verify().ok


def test_publishing_that_fails_leaves_the_segment_open(reopened, memory, made, monkeypatch):
    def fail(*_):
        raise OSError(errno.EHOSTUNREACH, "No route to host")

    with reopened() as store:
        made.put(store, range(10))
        with monkeypatch.context() as patched:
            patched.setattr(memory, "publish", fail)
            with pytest.raises(StoreError, match="No route to host"):
                store.evict(0)
        assert made.held(store, range(10)) == list(range(10))
        made.put(store, range(10, 20))
    assert len(memory.segments) == 1
    with reopened() as store:
        assert made.held(store, range(20)) == list(range(20)) and store.verify().findings == []


def test_an_orphan_that_cannot_be_published_waits(reopened, memory, made, crash, monkeypatch):
    def fail(*_):
        raise OSError(errno.EHOSTUNREACH, "No route to host")

    store = reopened()
    made.put(store, range(10))
    crash(store)
    with monkeypatch.context() as patched:
        patched.setattr(memory, "publish", fail)
        with reopened() as store:
            assert made.held(store, range(10)) == list(range(10))
            assert store.stat().adopted_orphans == 0
            assert [f.kind for f in store.verify().findings] == ["orphan left"]
    with reopened() as store:
        assert made.held(store, range(10)) == list(range(10))
        assert store.stat().adopted_orphans == 1
