import errno
import os
import subprocess

import numpy as np
import pytest

from lpipstore.cache import eviction
from lpipstore.cache.disk import whole_bytes
from lpipstore.cache.errors import StoreError
from lpipstore.cache.keys import PoolSpec
from lpipstore.cache.store import FeatureStore

LIMIT = 2 << 20
IN_SEGMENT = 32  # rows of 4,004 bytes in a sixteenth of the limit


@pytest.fixture
def small(tmp_path):
    with FeatureStore(tmp_path / "store", limit=LIMIT) as opened:
        yield opened


def segments_of(numbers):
    return sorted({n // IN_SEGMENT for n in numbers})


def fill_until(store, made, evicted):
    """Put segment after segment until so many had to leave."""
    for start in range(10_000, 20_000, IN_SEGMENT):
        if store.stat().evicted_segments >= evicted:
            return
        made.put(store, range(start, start + IN_SEGMENT))
    raise AssertionError("nothing was evicted")


def test_least_recently_used_segments_leave_first(small, made):
    made.put(small, range(10 * IN_SEGMENT))
    made.held(small, range(IN_SEGMENT))  # segment 0 is used again, 1 is now the oldest
    fill_until(small, made, evicted=3)
    held = [n for n in range(10 * IN_SEGMENT) if small.contains(made.key(n))]
    assert segments_of(held) == [0, 4, 5, 6, 7, 8, 9]
    assert len(held) == 7 * IN_SEGMENT  # whole segments left


def test_putting_a_row_that_is_there_counts_as_use(small, made):
    made.put(small, range(10 * IN_SEGMENT))
    made.put(small, [0])
    fill_until(small, made, evicted=1)
    assert small.contains(made.key(0)) and not small.contains(made.key(IN_SEGMENT))


def test_looking_whether_a_row_is_there_is_no_use(small, made):
    made.put(small, range(10 * IN_SEGMENT))
    assert small.missing(made.keys(range(IN_SEGMENT))) == []
    fill_until(small, made, evicted=1)
    assert not small.contains(made.key(0))


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("length", [10, 2000, 60_000])
def test_the_limit_holds_in_bytes_on_disk(tmp_path, make_rows, du, length, compress):
    made = make_rows(length=length)
    with FeatureStore(tmp_path / "store", limit=LIMIT, compress=compress) as store:
        batch = max(1, min(400, 100_000 // length))
        for start in range(0, 60 * batch, batch):
            made.put(store, range(start, start + batch))
            assert du(store.path) <= LIMIT
            assert store.stat().bytes == du(store.path)
        last = range(59 * batch, 60 * batch)
        assert made.held(store, last) == list(last)
    assert du(tmp_path / "store") <= LIMIT


def test_a_row_larger_than_a_segment_has_one_of_its_own(small, make_rows, du):
    made = make_rows(length=200_000)  # 400 kB where a segment is to have 131 kB
    for n in range(8):
        assert made.put(small, [n]) == 1
        assert du(small.path) <= LIMIT
    assert made.held(small, [6, 7]) == [6, 7]


def test_a_row_larger_than_the_store_is_not_admitted(small, made, make_rows):
    made.put(small, range(20))
    assert make_rows(length=2 << 20).put(small, [0]) == 0
    assert made.held(small, range(20)) == list(range(20))


def test_a_smaller_limit_is_kept_from_the_start(tmp_path, made, du):
    with FeatureStore(tmp_path / "store", limit=8 << 20) as store:
        made.put(store, range(1500))
    assert du(tmp_path / "store") > LIMIT
    with FeatureStore(tmp_path / "store", limit=LIMIT) as store:
        assert du(store.path) <= LIMIT
        served = made.held(store, range(1500))
        assert served == list(range(1500 - len(served), 1500)) and len(served) > 200
        made.put(store, range(2000, 2100))
        assert du(store.path) <= LIMIT


def test_evict_says_what_left(small, made, du):
    made.put(small, range(8 * IN_SEGMENT))
    before = small.stat()
    target = du(small.path) - 200_000
    freed = small.evict(target)
    after = small.stat()
    assert du(small.path) <= target
    assert freed.segments in (2, 3)  # the log is reckoned with as long as it may get
    assert freed.rows == freed.segments * IN_SEGMENT
    assert before.rows - after.rows == freed.rows
    assert after.evicted_bytes - before.evicted_bytes == freed.bytes > 200_000
    assert small.evict(0).rows == after.rows
    assert made.held(small, range(8 * IN_SEGMENT)) == []


def test_clear_takes_the_pools_that_are_meant(tmp_path, make_rows, du, segment_files):
    kinds = [make_rows(recipe=name) for name in ("one", "two")]
    with FeatureStore(tmp_path / "store") as store:
        for made in kinds:
            made.put(store, range(40))
        cleared = store.clear({"recipe": "one"})
        assert (cleared.freed.rows, cleared.kept_segments) == (40, 0)
        assert kinds[0].held(store, range(40)) == []
        assert kinds[1].held(store, range(40)) == list(range(40))
        assert [pool.recipe for pool in store.stat().pools] == [{"recipe": "two"}]
        assert store.clear({"recipe": "three"}).freed.segments == 0
        assert store.clear().freed.rows == 40
        assert store.stat().pools == [] and du(store.path) < 300_000
        assert kinds[0].put(store, range(5)) == 5
        assert segment_files(store.path)[0].name.endswith(".1")  # not 0 again
        assert kinds[0].held(store, range(5)) == list(range(5))


def test_another_process_sees_that_rows_left(tmp_path, made):
    with FeatureStore(tmp_path) as one, FeatureStore(tmp_path) as two:
        made.put(one, range(40))
        assert made.held(two, range(40)) == list(range(40))
        one.evict(0)
        assert made.held(two, range(40)) == [] and two.missing([made.key(0)])
        assert two.stat().corrupt_rows == 0
        one.clear()
        assert made.put(two, range(40)) == 40
        assert made.held(one, range(40)) == list(range(40))


def test_rows_of_a_segment_count_once_when_read_as_values(small, made):
    made.put(small, range(3))
    out = np.empty((3, 2000), np.float32)
    small.get_many(made.keys(range(3)), out)
    assert small.stat().hits == 3


def test_small_rows_fill_segments_too(small):
    spec = PoolSpec("tiny", 1, "uint16", {})
    keys = [spec.key(b"%d" % n) for n in range(30_000)]
    rows = np.arange(30_000, dtype=np.uint16)[:, None]
    assert small.put_many(spec, keys, rows) == 30_000
    out = np.empty_like(rows)
    found = small.get_many(keys, out)
    assert found[-1000:].all()
    np.testing.assert_array_equal(out[found], rows[found])


def test_the_order_of_uses_outlives_a_clock_that_goes_back(small, made, monkeypatch):
    with monkeypatch.context() as ahead:
        ahead.setattr("time.time_ns", lambda: 1 << 62)
        made.put(small, range(400))
    made.put(small, range(1000, 1400))
    assert made.held(small, range(384)) == []  # the last ones share a segment with later ones
    assert len(made.held(small, range(1000, 1400))) > 350


def test_a_file_whose_blocks_are_not_counted_yet_takes_its_length(tmp_path):
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(1_000_000)
    assert whole_bytes(path) == 1_000_000


def test_an_index_that_was_moved_aside_counts(tmp_path, made, du):
    with FeatureStore(tmp_path) as store:
        made.put(store, range(50))
    (tmp_path / "index.sqlite").write_bytes(bytes(1 << 20))
    with FeatureStore(tmp_path) as store:
        assert store.stat().bytes == du(tmp_path) > 1 << 20


@pytest.fixture
def immutable():
    """Make a file one that can neither be renamed nor emptied, as long as the test takes."""
    made_so = []

    def make(path):
        done = subprocess.run(["chattr", "+i", path], check=False, capture_output=True)
        if done.returncode:
            pytest.skip("files cannot be made immutable here")
        made_so.append(path)

    yield make
    for path in made_so:
        subprocess.run(["chattr", "-i", path], check=True)


def check_in_step(store, made, numbers):
    """What the index knows is served, and nothing is left of what is not."""
    known = [n for n in numbers if store.contains(made.key(n))]
    assert made.held(store, numbers) == known
    assert not list(store.path.glob("pools/*/*.evicted"))
    stat = store.stat()
    assert (stat.rows, stat.corrupt_rows) == (len(known), 0)
    assert store.verify().findings == []
    return known


@pytest.mark.parametrize("action", ["evict", "clear", "put", "limit"])
def test_a_segment_that_cannot_leave(small, made, segment_files, immutable, action):
    numbers = range(10 * IN_SEGMENT)
    made.put(small, numbers)
    small.evict(1 << 40)
    immutable(segment_files(small.path)[1])
    actions = {
        "evict": lambda: small.evict(0),
        "clear": small.clear,
        "put": lambda: fill_until(small, made, evicted=9),
        "limit": lambda: small.set_limit(1 << 20),
    }
    with pytest.raises(StoreError, match="Operation not permitted"):
        actions[action]()
    known = check_in_step(small, made, range(20_000))
    assert segments_of([n for n in known if n in numbers]) == list(range(1, 10))
    assert small.stat().evicted_segments == 1
    assert small.limit == LIMIT


@pytest.mark.parametrize("moment", ["rename", "truncate", "commit"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "struck"), KeyboardInterrupt()])
def test_an_eviction_that_fails_halfway(small, made, monkeypatch, moment, error):
    numbers = range(8 * IN_SEGMENT)
    made.put(small, numbers)
    calls = []

    def failing(call):
        def fail(*arguments):
            calls.append(arguments)
            if len(calls) == 3:
                raise error
            return call(*arguments)

        return fail

    with monkeypatch.context() as patched:
        if moment == "rename":
            patched.setattr(type(small.path), "rename", failing(type(small.path).rename))
        elif moment == "truncate":
            patched.setattr(os, "truncate", failing(os.truncate))
        else:
            calls += [(), ()]
            patched.setattr(eviction, "delete_segments", failing(eviction.delete_segments))
        with pytest.raises((StoreError, KeyboardInterrupt)):
            small.evict(0)
    known = check_in_step(small, made, numbers)
    assert segments_of(known) == ([] if moment == "commit" else list(range(2, 8)))
    made.put(small, numbers)
    assert check_in_step(small, made, numbers) == list(numbers)
