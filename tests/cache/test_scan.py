import os
import subprocess
import sys

import numpy as np
import pytest

from lpipstore.cache.errors import UsageError
from lpipstore.cache.store import FeatureStore


@pytest.fixture(params=[False, True], ids=["plain", "packed"])
def filled(tmp_path, made, request):
    with FeatureStore(tmp_path / "store", limit=2 << 20, compress=request.param) as opened:
        made.put(opened, range(300))
        yield opened


@pytest.mark.parametrize("batch_rows", [None, 1, 7, 1000])
def test_every_row_comes_once_in_storage_order(filled, made, batch_rows):
    seen = []
    for keys, rows in filled.scan(made.spec, batch_rows=batch_rows):
        assert len(keys) == len(rows) <= (batch_rows or 300)
        numbers = range(len(seen), len(seen) + len(keys))
        assert keys == made.keys(numbers)
        np.testing.assert_array_equal(rows, made.rows(numbers))
        seen += keys
    assert len(seen) == 300


def test_values_are_scaled(filled, made):
    _, rows = next(filled.scan(made.spec, batch_rows=3, dtype="float32"))
    np.testing.assert_allclose(rows, made.rows(range(3)) / 65535, rtol=2e-7)


def test_a_scan_can_be_left_and_begun_again(filled, made):
    next(filled.scan(made.spec))
    assert sum(len(keys) for keys, _ in filled.scan(made.spec)) == 300


def test_an_empty_pool_has_nothing(store, made):
    assert list(store.scan(made.spec)) == []
    with pytest.raises(UsageError, match="int16"):
        store.scan(made.spec, dtype="int16")


def test_corrupt_rows_are_left_out_and_dropped(filled, made, segment_files):
    with segment_files(filled.path)[0].open("r+b") as file:
        file.seek(100)
        byte = file.read(1)[0]
        file.seek(100)
        file.write(bytes([byte ^ 1]))
    seen = [key for keys, _ in filled.scan(made.spec) for key in keys]
    assert seen == made.keys(range(1, 300))
    assert filled.missing(made.keys(range(300))) == [made.key(0)]
    assert filled.stat().corrupt_rows == 1


def test_evicted_rows_do_not_come(filled, made, du):
    scan = filled.scan(made.spec, batch_rows=10)
    next(scan)
    filled.evict(du(filled.path) - 600_000)
    left = [key for keys, _ in scan for key in keys]
    gone = set(filled.missing(made.keys(range(300))))
    assert gone and set(made.keys(range(20, 300))) - set(left) <= gone
    assert len(left) == len(set(left))


def test_memory_does_not_grow_with_the_store(tmp_path):
    code = """
import resource, sys
import numpy as np
from lpipstore.cache.keys import PoolSpec
from lpipstore.cache.store import FeatureStore
spec = PoolSpec("a", 32_000, "uint16", {})
with FeatureStore(sys.argv[1]) as store:
    sum(int(rows[0, 0]) for _, rows in store.scan(spec))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
    peaks = []
    for rows in (100, 3200):  # 6 MB and 205 MB
        from lpipstore.cache.keys import PoolSpec

        spec = PoolSpec("a", 32_000, "uint16", {})
        with FeatureStore(tmp_path / str(rows)) as store:
            block = np.arange(100 * 32_000, dtype=np.uint16).reshape(100, 32_000)
            for start in range(0, rows, 100):
                keys = [spec.key(b"%d" % n) for n in range(start, start + 100)]
                store.put_many(spec, keys, block)
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / str(rows))],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "MALLOC_ARENA_MAX": "1"},
        )
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 16 << 20  # of 199 MB more
