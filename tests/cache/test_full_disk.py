"""A disk that fills: a small tmpfs, mounted for the test."""

import os
import resource
import subprocess
from pathlib import Path

import pytest

from lpipstore.cache.errors import StoreFull
from lpipstore.cache.index import FileIdentity, FileRecord
from lpipstore.cache.store import FeatureStore

SIZE = 4 << 20


@pytest.fixture
def disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def leave_free(disk, count):
    """Fill the disk up to a rest that the index needs to be opened."""
    free = os.statvfs(disk)
    (disk / "ballast").write_bytes(bytes(free.f_bavail * free.f_frsize - count))


def fill_up(store, made, first=0):
    """Put rows until the disk takes no more; return how many were taken."""
    for n in range(first, first + 5000, 10):
        try:
            made.put(store, range(n, n + 10))
        except StoreFull as error:
            assert "space" in str(error)
            return n
    raise AssertionError("the disk was not full")


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("ballast", [0, 1_000_000, 1_013_000])
def test_what_was_committed_stays_and_the_rest_goes_on_later(disk, made, durable, ballast):
    (disk / "ballast").write_bytes(bytes(ballast))
    path = disk / "store"
    with FeatureStore(path, durable=durable) as store:
        taken = fill_up(store, made)
        assert taken > 300
        for _ in range(3):  # it stays full, and says so each time
            with pytest.raises(StoreFull):
                made.put(store, range(taken, taken + 10))
            store._handle.opened.state.usage._saved = -1e9  # uses and counts have waited for long
            assert made.held(store, range(taken + 10)) == list(range(taken))
        assert store.stat().rows == taken
    with FeatureStore(path) as store:  # on the full disk
        assert made.held(store, range(taken + 10)) == list(range(taken))
        assert store.missing(made.keys(range(taken + 10))) == made.keys(range(taken, taken + 10))
        subprocess.run(["mount", "-o", f"remount,size={2 * SIZE}", str(disk)], check=True)
        assert made.put(store, range(taken + 10)) == taken + 10
        assert made.held(store, range(taken + 10)) == list(range(taken + 10))
    with FeatureStore(path) as store:
        assert made.held(store, range(taken + 10)) == list(range(taken + 10))
        assert store.verify().ok and os.listdir(path / "open") == []


def test_eviction_makes_room_on_a_full_disk(disk, made):
    with FeatureStore(disk / "store", limit=3 << 20) as store:
        made.put(store, range(400))
        free = os.statvfs(disk)
        (disk / "ballast").write_bytes(bytes(free.f_bfree * free.f_frsize))
        assert store.evict(1 << 20).segments > 0
        assert made.put(store, range(1000, 1050)) == 50
        assert made.held(store, range(1000, 1050)) == list(range(1000, 1050))


def test_a_full_disk_on_opening_and_remembering_is_said(disk, made):
    Path(disk / "ballast").write_bytes(bytes(SIZE - (64 << 10)))
    with pytest.raises(StoreFull, match="space"):
        FeatureStore(disk / "store")
    (disk / "ballast").write_bytes(bytes(SIZE - (600 << 10)))
    with FeatureStore(disk / "store") as store:
        entries = [
            (FileIdentity(b"/%0200d" % n, n, 1, n, 10**10), FileRecord(bytes(16), ""))
            for n in range(9000)
        ]
        with pytest.raises(StoreFull, match="space"):
            store.remember_files(entries)
        assert store.recall_files([entries[-1][0]]) == [None]
        assert made.held(store, range(3)) == []


def test_a_limit_on_the_size_of_files_is_a_full_disk(tmp_path, made):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with FeatureStore(tmp_path / "store") as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
        try:
            taken = fill_up(store, made)
            assert made.held(store, range(taken)) == list(range(taken))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert made.put(store, range(taken + 10)) == taken + 10
        assert store.verify().findings == []


def test_what_cannot_be_adopted_on_a_full_disk_is_not_told_as_adopted(disk, made, crash):
    path = disk / "store"
    store = FeatureStore(path)
    made.put(store, range(300))
    crash(store)
    leave_free(disk, 120_000)
    for _ in range(2):
        with FeatureStore(path) as store:
            report = store.verify()
            assert [(f.kind, f.repaired) for f in report.findings] == [("orphan left", False)]
            assert "No space left" in report.findings[0].where and not report.ok
            assert store.stat().adopted_orphans == 0
            assert made.held(store, range(300)) == list(range(300))
    (disk / "ballast").unlink()
    with FeatureStore(path) as store:
        assert [f.kind for f in store.verify().findings] == ["orphan adopted"]
        assert store.stat().adopted_orphans == 1 and os.listdir(path / "open") == []
        assert made.held(store, range(300)) == list(range(300))


def test_a_smaller_limit_makes_room_on_a_full_disk(disk, made):
    with FeatureStore(disk / "store", limit=3 << 20) as store:
        made.put(store, range(500))
    leave_free(disk, 120_000)
    with FeatureStore(disk / "store", limit=2 << 20) as store:
        assert store.limit_change.freed.rows > 0 and store.limit == 2 << 20
        assert store.stat().bytes <= 2 << 20
