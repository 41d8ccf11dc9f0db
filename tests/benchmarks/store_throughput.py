"""The feature store against plain reads and writes of the same rows, and against other caches.

    python tests/benchmarks/store_throughput.py [--folder DIR] [--megabytes 512]

Prints a table for each row size: seconds, MB/s and microseconds a row of everything measured, and
then each ratio beside its target. Reads come from the page cache for everyone, and nobody starts
before the disk is quiet. Every figure is the median of the rounds; within a round the contenders
run one after the other on the same rows.

The store reads and hashes with more than one thread, so it needs processors that nobody else uses;
what it takes with one thread only is shown too. Needs the packages of the extra ``bench``; those
that are missing are left out.
"""

import argparse
import os
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from lpipstore.cache import reader
from lpipstore.cache.keys import PoolSpec
from lpipstore.cache.store import FeatureStore

PUT_BYTES = 16 << 20  # rows of one put_many: about what comes out of a backbone at once
GET_BYTES = 64 << 20  # rows of one get_many: a small block of a matrix
SLOW_ROWS = 256  # contenders that take milliseconds a row do so many rows only


class Bench:
    """Rows of one size, and the seconds that everybody took with them."""

    def __init__(self, folder, row_bytes, total):
        self.folder = folder
        self.row_bytes = row_bytes
        self.count = total // row_bytes
        self.length = row_bytes // 2
        rng = np.random.default_rng(0)
        self.rows = rng.integers(0, 60_000, (self.count, self.length), dtype=np.uint16)
        self.spec = PoolSpec("bench", self.length, "uint16", {"row": str(row_bytes)})
        self.keys = [self.spec.key(b"%d" % n) for n in range(self.count)]
        self.order = list(range(self.count))
        random.Random(1).shuffle(self.order)
        self.out = np.zeros_like(self.rows)
        self.seconds = {}

    def time(self, name, action, rows=None):
        os.sync()  # what was written before must not be on its way to the disk meanwhile
        began = time.perf_counter()
        action()
        spent = (time.perf_counter() - began) / (rows or self.count)
        self.seconds.setdefault(name, []).append(spent)

    def fresh(self, name):
        path = self.folder / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        return path

    def checked(self, order):
        if not np.array_equal(self.out[: len(order)], self.rows[order]):
            raise AssertionError("rows came back wrong")
        self.out[:] = 0

    def batches(self, order, batch_bytes):
        count = max(1, batch_bytes // self.row_bytes)
        for start in range(0, len(order), count):
            yield start, order[start : start + count]


def plain(bench, round_):
    path = bench.fresh("plain")
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    size = bench.row_bytes

    def write():
        for n in range(bench.count):
            os.pwrite(fd, bench.rows[n], n * size)

    def write_durably():
        for _, numbers in bench.batches(range(bench.count), PUT_BYTES):
            for n in numbers:
                os.pwrite(fd, bench.rows[n], n * size)
            os.fdatasync(fd)

    def read(order):
        for i, n in enumerate(order):
            os.preadv(fd, [bench.out[i]], n * size)

    bench.time("pwrite", write)
    os.ftruncate(fd, 0)
    bench.time("pwrite + fdatasync", write_durably)
    bench.time("pread random", lambda: read(bench.order))
    bench.checked(bench.order)
    one = np.empty(bench.length, np.uint16)

    def stream():
        for n in range(bench.count):
            os.preadv(fd, [one], n * size)

    bench.time("pread in order", lambda: read(range(bench.count)))
    bench.time("pread in order, one buffer", stream)
    os.close(fd)


def ours(bench, round_, durable=False, compress=False):
    name = "store" + ", durable" * durable + ", lz4" * compress
    path = bench.fresh("store")
    store = FeatureStore(path, durable=durable, compress=compress)
    first = bench.rows[:1]
    store.put_many(bench.spec, [bench.spec.key(b"warm")], first)  # makes the pool

    def write():
        for start, numbers in bench.batches(range(bench.count), PUT_BYTES):
            rows = bench.rows[start : start + len(numbers)]
            store.put_many(bench.spec, bench.keys[start : start + len(numbers)], rows)

    bench.time(f"{name}: put_many", write)
    if durable:
        store.close()
        return
    read_ours(bench, store, name)
    if not compress:
        began = time.perf_counter()
        freed = store.evict(0)
        spent = time.perf_counter() - began
        bench.seconds.setdefault("store: evict", []).append(spent / freed.rows)
    store.close()


def read_ours(bench, store, name):
    def read(order):
        for start, numbers in bench.batches(order, GET_BYTES):
            keys = [bench.keys[n] for n in numbers]
            assert store.get_many(keys, bench.out[start : start + len(numbers)]).all()

    def scan():
        seen = 0
        for keys, _ in store.scan(bench.spec):
            seen += len(keys)
        assert seen == bench.count + 1

    def singly():
        for n in bench.order[:SLOW_ROWS]:
            assert store.get(bench.keys[n]) is not None

    bench.time(f"{name}: get_many random", lambda: read(bench.order))
    bench.checked(bench.order)
    reader.HELPERS, helpers = 1, reader.HELPERS
    bench.time(f"{name}: get_many, one thread", lambda: read(bench.order))
    reader.HELPERS = helpers
    bench.time(f"{name}: scan", scan)
    bench.time(f"{name}: get one by one", singly, min(SLOW_ROWS, bench.count))


def npy_files(bench, round_):
    path = bench.fresh("npy")
    path.mkdir()

    def write():
        for n in range(bench.count):
            np.save(path / f"{n}.npy", bench.rows[n])

    def read():
        for i, n in enumerate(bench.order):
            bench.out[i] = np.load(path / f"{n}.npy")

    bench.time(".npy files: write", write)
    bench.time(".npy files: read", read)


def with_diskcache(bench, round_):
    import diskcache

    path = bench.fresh("diskcache")
    cache = diskcache.Cache(str(path), size_limit=1 << 40, eviction_policy="none")
    count = min(bench.count, 4 * SLOW_ROWS)

    def write():
        for n in range(count):
            cache.set(bench.keys[n], bench.rows[n].tobytes())

    def read():
        for i, n in enumerate(n for n in bench.order if n < count):
            bench.out[i] = np.frombuffer(cache.get(bench.keys[n]), np.uint16)

    bench.time("diskcache: write", write, count)
    bench.time("diskcache: read", read, count)
    cache.close()


def with_diskcache_lru(bench, round_):
    """A bounded LRU cache of arrays, as one would write it: what our store is a choice against."""
    import diskcache

    path = bench.fresh("diskcache")
    cache = diskcache.Cache(str(path), size_limit=1 << 40, eviction_policy="least-recently-used")
    count = min(bench.count, 4 * SLOW_ROWS)

    def write():
        for n in range(count):
            cache[bench.keys[n]] = bench.rows[n]

    def read():
        for i, n in enumerate(n for n in bench.order if n < count):
            bench.out[i] = cache[bench.keys[n]]

    bench.time("diskcache, LRU, arrays: write", write, count)
    bench.time("diskcache, LRU, arrays: read", read, count)
    cache.close()


def with_lmdb(bench, round_):
    import lmdb

    path = bench.fresh("lmdb")
    room = 2 * bench.count * (bench.row_bytes + 8192) + (64 << 20)
    environment = lmdb.open(str(path), map_size=room, sync=False)

    def write():
        for _, numbers in bench.batches(range(bench.count), PUT_BYTES):
            with environment.begin(write=True) as transaction:
                for n in numbers:
                    transaction.put(bench.keys[n], bench.rows[n].tobytes())

    def read():
        with environment.begin(buffers=True) as transaction:
            for i, n in enumerate(bench.order):
                bench.out[i] = np.frombuffer(transaction.get(bench.keys[n]), np.uint16)

    bench.time("lmdb (no checksum): write", write)
    bench.time("lmdb (no checksum): read", read)
    environment.close()


def with_h5py(bench, round_):
    import h5py

    path = bench.fresh("rows.h5")
    with h5py.File(path, "w") as file:
        kept = file.create_dataset(
            "rows", bench.rows.shape, "u2", chunks=(1, bench.length), fletcher32=True
        )

        def write():
            for n in range(bench.count):
                kept[n] = bench.rows[n]
            file.flush()

        bench.time("h5py (fletcher32): write", write)
    with h5py.File(path, "r") as file:
        kept = file["rows"]

        def read():
            for i, n in enumerate(bench.order):
                kept.read_direct(bench.out, np.s_[n], np.s_[i])

        bench.time("h5py (fletcher32): read", read)


def with_zarr(bench, round_):
    import zarr

    path = bench.fresh("zarr")
    count = min(bench.count, SLOW_ROWS)
    kept = zarr.create_array(
        store=str(path),
        shape=(count, bench.length),
        chunks=(1, bench.length),
        dtype="uint16",
        compressors=[zarr.codecs.Crc32cCodec()],
    )

    def write():
        for n in range(count):
            kept[n] = bench.rows[n]

    def read():
        for i, n in enumerate(n for n in bench.order if n < count):
            bench.out[i] = kept[n]

    bench.time("zarr-python: write rows", write, count)
    bench.time("zarr-python: read rows", read, count)


CONTENDERS = [
    plain,
    ours,
    lambda bench, round_: ours(bench, round_, durable=True),
    lambda bench, round_: ours(bench, round_, compress=True),
    npy_files,
    with_diskcache,
    with_diskcache_lru,
    with_lmdb,
    with_h5py,
    with_zarr,
]

# what is compared, with what, and how much of its speed is asked for at 64 kB and at 1 MB
TARGETS = [
    ("store: get_many random", "pread random", 0.7, 0.9),
    ("store: get_many, one thread", "pread random", None, None),
    ("store: scan", "pread in order", 0.6, 0.9),
    ("store: scan", "pread in order, one buffer", None, None),
    ("store: put_many", "pwrite", 0.9, 0.9),
    ("store, durable: put_many", "pwrite + fdatasync", 0.7, 0.7),
    ("store: get_many random", "diskcache, LRU, arrays: read", 8, None),
    ("store: get_many random", "diskcache: read", None, None),
    ("store: get_many random", "zarr-python: read rows", 25, None),
    ("pread random", "diskcache: read", None, None),
    ("store: get_many random", "lmdb (no checksum): read", None, None),
    ("store: get_many random", "h5py (fletcher32): read", None, None),
    ("store: get_many random", ".npy files: read", None, None),
    ("store: put_many", "diskcache, LRU, arrays: write", 8, None),
    ("store: put_many", "diskcache: write", None, None),
    ("store: put_many", "zarr-python: write rows", None, None),
    ("store: put_many", "lmdb (no checksum): write", None, None),
    ("store: put_many", "h5py (fletcher32): write", None, None),
    ("store: put_many", ".npy files: write", None, None),
]


def show(bench, large):
    print(f"\nrows of {bench.row_bytes:,} bytes, {bench.count:,} of them")
    print(f"  {'':34} {'us/row':>10} {'least':>10} {'most':>10} {'MB/s':>8}")
    medians = {name: statistics.median(spent) for name, spent in bench.seconds.items()}
    for name, spent in bench.seconds.items():
        low, high = min(spent) * 1e6, max(spent) * 1e6
        rate = bench.row_bytes / medians[name] / 1e6
        print(f"  {name:34} {medians[name] * 1e6:10.1f} {low:10.1f} {high:10.1f} {rate:8.0f}")
    print(f"\n  {'ratio of speeds (median of rounds)':62} {'ratio':>7} {'target':>7}")
    for mine, other, small_target, large_target in TARGETS:
        if mine in medians and other in medians:
            pairs = zip(bench.seconds[other], bench.seconds[mine], strict=True)
            ratio = statistics.median(theirs / own for theirs, own in pairs)
            target = large_target if large else small_target
            said = "" if target is None else f"{target:7} {'met' if ratio >= target else 'NOT MET'}"
            print(f"  {mine + ' / ' + other:62} {ratio:7.2f} {said}")
    evict = medians["store: evict"] * 1e6
    said = "" if large else f"{'<= 20':>7} {'met' if evict <= 20 else 'NOT MET'}"
    print(f"  {'eviction, microseconds a row':62} {evict:7.2f} {said}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    print(f"{os.cpu_count()} processors; {options.megabytes} MB, {options.rounds} rounds")
    try:
        for row_bytes in (64 << 10, 1 << 20):
            bench = Bench(folder, row_bytes, options.megabytes << 20)
            for round_ in range(options.rounds):
                for contender in CONTENDERS:
                    try:
                        contender(bench, round_)
                    except ImportError as error:
                        if round_ == 0:
                            print(f"left out: {error}")
            show(bench, row_bytes >= 1 << 20)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
