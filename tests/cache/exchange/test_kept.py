"""Catalogues that a machine keeps, and how much is on its way at once."""

import os
import threading
from pathlib import Path

import pytest

from lpipstore.cache.exchange.catalogue import read_catalogue
from lpipstore.cache.exchange.folder import (
    RemoteError,
    catalogue_name,
    digest_of,
)
from lpipstore.cache.exchange.kept import KeptCatalogues
from lpipstore.cache.exchange.requests import as_they_end

from .remote import SPEC, key_of, push_all


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
