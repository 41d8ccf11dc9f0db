"""A remote folder in memory, and rows whose numbers follow from their name."""

import numpy as np

from lpipstore.cache.exchange.catalogue import read_catalogue
from lpipstore.cache.exchange.fetch import Fetcher
from lpipstore.cache.exchange.folder import (
    Listed,
    digest_of,
    is_catalogue,
    is_segment,
)
from lpipstore.cache.exchange.push import push
from lpipstore.cache.keys import PoolSpec

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
