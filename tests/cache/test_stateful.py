"""Random histories of the store, with a dict as its model."""

import random
import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lpipstore.cache.store import FeatureStore
from tests.cache.conftest import Made, disk_bytes

LIMIT = 1 << 20
NUMBERS = st.lists(st.integers(0, 400), min_size=1, max_size=60)


class Histories(RuleBasedStateMachine):
    """What is put, and whether anything may be gone: nothing is, until something was done."""

    @initialize(compress=st.booleans(), dtype=st.sampled_from(["uint16", "int16", "float32"]))
    def open(self, compress, dtype):
        self.folder = Path(tempfile.mkdtemp())
        self.compress = compress
        self.pools = [Made(2000, dtype), Made(3, "float32", recipe="small")]
        self.model = {}
        self.must = set()  # keys that have to be there: nothing was lost since they were put
        self.pins = []
        self.store = self.opened()

    def opened(self):
        return FeatureStore(self.folder / "store", limit=LIMIT, compress=self.compress)

    @rule(pool=st.integers(0, 1), numbers=NUMBERS)
    def put(self, pool, numbers):
        made = self.pools[pool]
        before = self.store.stat().evicted_segments
        admitted = made.put(self.store, numbers)
        for n in numbers:
            self.model[made.key(n)] = made.row(n)
        if self.store.stat().evicted_segments > before:
            self.must = set()
        if admitted == len(numbers) and self.store.stat().evicted_segments == before:
            self.must |= set(made.keys(numbers))
        if not self.pins:
            assert admitted == len(numbers)

    @rule(pool=st.integers(0, 1), numbers=NUMBERS)
    def get_many(self, pool, numbers):
        made = self.pools[pool]
        keys = made.keys(numbers)
        out = np.empty((len(keys), made.spec.length), made.spec.dtype)
        for key, row, there in zip(keys, out, self.store.get_many(keys, out), strict=True):
            if there:
                np.testing.assert_array_equal(row, self.model[key])
            else:
                assert key not in self.must

    @rule(pool=st.integers(0, 1), number=st.integers(0, 400))
    def get(self, pool, number):
        key = self.pools[pool].key(number)
        row = self.store.get(key)
        if row is None:
            assert key not in self.must
        else:
            np.testing.assert_array_equal(row, self.model[key])

    @rule(pool=st.integers(0, 1))
    def scan(self, pool):
        made = self.pools[pool]
        seen = set()
        for keys, rows in self.store.scan(made.spec, batch_rows=11):
            for key, row in zip(keys, rows, strict=True):
                np.testing.assert_array_equal(row, self.model[key])
                assert key not in seen
                seen.add(key)
        every = set(made.keys(range(401)))
        assert self.must & every <= seen

    @rule(numbers=NUMBERS)
    def missing(self, numbers):
        keys = [key for made in self.pools for key in made.keys(numbers)]
        missing = self.store.missing(keys)
        assert not self.must & set(missing)
        assert all(key in self.model for key in set(keys) - set(missing))

    @rule(numbers=NUMBERS)
    def pin(self, numbers):
        self.pins.append(self.store.pin("history", self.pools[0].keys(numbers)))

    @precondition(lambda self: self.pins)
    @rule(numbers=NUMBERS, whole=st.booleans())
    def release(self, numbers, whole):
        if whole:
            self.pins.pop().release()
        else:
            self.pins[-1].release(self.pools[0].keys(numbers))

    @rule(share=st.floats(0, 1))
    def evict(self, share):
        if self.store.evict(int(share * LIMIT)).segments:
            self.must = set()

    @rule(pool=st.integers(0, 1))
    def clear(self, pool):
        made = self.pools[pool]
        self.store.clear(made.spec.recipe)
        self.must -= set(made.keys(range(401)))

    @rule(compress=st.booleans())
    def reopen(self, compress):
        self.pins = []
        self.store.close()
        self.compress = compress
        self.store = self.opened()

    @rule(tail=st.binary(max_size=50))
    def crash(self, tail):
        """Leave everything as it is, as a killed process does."""
        import os

        opened = self.store._handle.opened
        for segment in opened.writer._open.values():
            os.pwrite(segment.file.fd, tail, segment.tail)
            segment.file.close()
        opened.writer._open.clear()
        opened.state.helpers.shutdown()
        opened.state.index.close()
        self.pins = []
        before = self.opened()
        if before.stat().evicted_segments:
            self.must = set()
        self.store = before

    @rule(seed=st.integers(0, 10**6), how=st.sampled_from(["flip", "cut", "delete", "index"]))
    def corrupt(self, seed, how):
        draw = random.Random(seed)
        files = sorted(
            path
            for path in self.folder.rglob("*")
            if path.parent.parent.name == "pools" and path.name.startswith("c.")
        )
        self.must = set()
        if how == "index":
            (self.folder / "store" / "index.sqlite").unlink(missing_ok=True)
            self.pins = []
        elif files:
            path = draw.choice(files)
            data = bytearray(path.read_bytes())
            if how == "flip" and data:
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
                path.write_bytes(data)
            elif how == "cut":
                path.write_bytes(data[: draw.randrange(len(data) + 1)])
            else:
                path.unlink()

    @rule()
    def repair(self):
        self.store.verify(repair=True)
        assert self.store.verify().ok

    @invariant()
    def limit_holds(self):
        if hasattr(self, "store"):
            assert disk_bytes(self.folder / "store") <= LIMIT + LIMIT // 16

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)


Histories.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestHistories = Histories.TestCase
