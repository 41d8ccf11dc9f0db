"""Rows whose numbers follow from their name, so that any test can tell a wrong one."""

import os
from pathlib import Path

import numpy as np
import pytest
import xxhash

from lpipstore.cache.keys import PoolSpec
from lpipstore.cache.store import FeatureStore


class Made:
    """A pool and the rows in it: row `n` is the same in every process and every run."""

    def __init__(self, length=2000, dtype="uint16", recipe="made"):
        self.spec = PoolSpec("made", length, dtype, {"recipe": recipe})

    def key(self, n):
        return self.spec.key(b"%d" % n)

    def keys(self, numbers):
        return [self.key(n) for n in numbers]

    def row(self, n):
        start = xxhash.xxh3_64_intdigest(b"%d" % n) % 60_000
        values = (np.arange(self.spec.length, dtype=np.int64) * (2 * n + 1) + start) % 60_000
        if self.spec.dtype == "float32":
            return (values / 60_000).astype(np.float32)
        return (values - 30_000 * (self.spec.dtype == "int16")).astype(self.spec.dtype)

    def rows(self, numbers):
        return np.stack([self.row(n) for n in numbers])

    def put(self, store, numbers):
        return store.put_many(self.spec, self.keys(numbers), self.rows(numbers))

    def held(self, store, numbers):
        """Return the numbers whose rows the store serves, having checked each of them."""
        numbers = list(numbers)
        out = np.empty((len(numbers), self.spec.length), self.spec.dtype)
        found = store.get_many(self.keys(numbers), out)
        served = [n for n, there in zip(numbers, found, strict=True) if there]
        np.testing.assert_array_equal(out[found], self.rows(served) if served else out[:0])
        return served


@pytest.fixture
def make_rows():
    """The class above: ``make_rows(length=…, dtype=…)``."""
    return Made


@pytest.fixture
def made():
    return Made()


@pytest.fixture
def store(tmp_path):
    with FeatureStore(tmp_path / "store") as opened:
        yield opened


def disk_bytes(folder):
    """What ``du`` says, hard links and all being none."""
    total = os.stat(folder).st_blocks * 512
    for path in Path(folder).rglob("*"):
        try:
            total += os.lstat(path).st_blocks * 512
        except FileNotFoundError:
            continue
    return total


@pytest.fixture
def du():
    return disk_bytes


@pytest.fixture
def segment_files():
    """List the sealed and open segments of a store, in the order of their numbers."""

    def listed(folder):
        sealed = sorted(
            Path(folder).glob("pools/*/c.*.0"), key=lambda path: int(path.name.split(".")[1])
        )
        return sealed + sorted(Path(folder).glob("open/*"))

    return listed


@pytest.fixture
def crash():
    """Leave a store as a killed process would: nothing sealed, every lock gone."""

    def abandon(store, tail=b""):
        opened = store._handle.opened
        for segment in opened.writer._open.values():
            os.pwrite(segment.file.fd, tail, segment.tail)
            segment.file.close()
        opened.writer._open.clear()
        opened.state.helpers.shutdown()
        opened.state.files.clear()
        opened.state.index.close()
        store._handle.closed = True

    return abandon
