"""The limit belongs to the store: it is kept there, and is the same for every process."""

import json
import multiprocessing
import shutil
import sqlite3

import pytest

from lpipstore.cache import opening
from lpipstore.cache.errors import StoreError, UsageError
from lpipstore.cache.eviction import Freed
from lpipstore.cache.opening import LimitChange
from lpipstore.cache.store import FeatureStore

LARGE, SMALL = 8 << 20, 2 << 20
FORK = multiprocessing.get_context("fork")
FORKING = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


def never() -> int:
    raise AssertionError("the store has a limit")


@pytest.fixture
def path(tmp_path, made):
    """A store with a limit and more rows than a smaller one takes."""
    with FeatureStore(tmp_path / "store", limit=LARGE) as store:
        assert store.limit_change is None
        made.put(store, range(1500))
    return tmp_path / "store"


def test_a_forgotten_limit_evicts_nothing(path, made):
    for _ in range(2):
        with FeatureStore(path, first_limit=never) as store:
            assert (store.limit, store.stat().limit, store.limit_change) == (LARGE, LARGE, None)
            assert made.held(store, range(1500)) == list(range(1500))


def test_a_smaller_limit_says_what_left_and_stays(path, made, du):
    with FeatureStore(path, limit=SMALL) as store:
        change = store.limit_change
        assert (change.before, change.after) == (LARGE, SMALL)
        assert change.freed.rows == 1500 - store.stat().rows > 500
        assert du(path) <= SMALL
    with FeatureStore(path, limit=SMALL) as store:
        assert store.limit_change is None
    with FeatureStore(path) as store:
        made.put(store, range(3000, 4000))
        assert du(path) <= SMALL
        assert store.set_limit(LARGE) == LimitChange(SMALL, LARGE, Freed())
        assert store.set_limit(None) == LimitChange(LARGE, None, Freed())
        made.put(store, range(5000, 5400))
        assert store.set_limit(SMALL).freed.rows > 0
        assert du(path) <= SMALL
        store.set_limit(None)
    with FeatureStore(path, first_limit=never) as store:
        assert store.limit is None


def test_the_first_limit_is_asked_for_once(tmp_path):
    asked = []

    def first():
        asked.append(1)
        return SMALL

    for _ in range(3):
        with FeatureStore(tmp_path / "store", first_limit=first) as store:
            assert store.limit == SMALL
    assert len(asked) == 1
    with FeatureStore(tmp_path / "other"):  # without any
        pass
    with FeatureStore(tmp_path / "other", first_limit=never) as store:
        assert store.limit is None


def test_a_first_limit_that_cannot_be_had_makes_nothing(tmp_path):
    with pytest.raises(AssertionError):
        FeatureStore(tmp_path / "store", first_limit=never)
    assert not (tmp_path / "store").exists()


def write(path, made, changed, results):
    with FeatureStore(path) as store:
        made.put(store, range(100))
        results.put(store.limit)
        changed.wait()
        results.put(store.limit)
        for first in range(2000, 4000, 50):
            made.put(store, range(first, first + 50))
        results.put(store.stat().bytes)


@FORKING
def test_a_process_that_has_the_store_open_keeps_to_the_new_limit(path, made):
    changed, results = FORK.Event(), FORK.Queue()
    writer = FORK.Process(target=write, args=(path, made, changed, results))
    writer.start()
    assert results.get(timeout=60) == LARGE
    with FeatureStore(path, limit=SMALL) as store:
        changed.set()
        assert results.get(timeout=60) == SMALL
        assert results.get(timeout=60) <= SMALL
        writer.join()
        assert writer.exitcode == 0
        assert made.held(store, [3999]) == [3999]


@pytest.mark.parametrize("lost", ["index.sqlite", "pools/zarr.json"])
def test_it_outlives_a_lost_index_and_lost_metadata(path, lost):
    (path / lost).unlink()
    with FeatureStore(path) as store:
        assert store.limit == LARGE and store.verify().ok
    group = json.loads((path / "pools" / "zarr.json").read_text())
    assert group["attributes"]["lpipstore"]["limit"] == LARGE


def test_an_index_that_is_exchanged_while_the_store_is_open(path, tmp_path, made):
    with FeatureStore(path) as store:
        shutil.rmtree(path)
        assert made.put(store, range(10)) == 10
        assert store.limit == LARGE
        (path / "index.sqlite").unlink()
        assert store.set_limit(SMALL).before == LARGE
        assert store.limit == SMALL


def test_a_limit_that_cannot_be_written_is_not_changed(path, made, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with FeatureStore(path) as store:
        with monkeypatch.context() as patched:
            patched.setattr(opening, "write_group", full)
            with pytest.raises(StoreError, match="no space left"):
                store.set_limit(4 * LARGE)
        assert store.limit == LARGE
    with FeatureStore(path) as store:
        assert store.limit == LARGE


def test_a_limit_below_a_mebibyte_is_refused(store):
    with pytest.raises(UsageError, match="at least 1 MiB"):
        store.set_limit(1000)
    assert store.limit is None


def test_a_store_that_keeps_no_limit_yet_gets_the_first_one(path):
    """Such as one that was made before limits were kept."""
    with sqlite3.connect(path / "index.sqlite") as connection:
        connection.execute("DELETE FROM meta WHERE name = 'limit'")
    connection.close()
    group = json.loads((path / "pools" / "zarr.json").read_text())
    del group["attributes"]["lpipstore"]["limit"]
    (path / "pools" / "zarr.json").write_text(json.dumps(group))
    with FeatureStore(path, first_limit=lambda: SMALL) as store:
        assert store.limit == SMALL


def test_a_home_folder_is_meant_by_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with FeatureStore("~/store") as store:
        assert store.path == tmp_path / "home" / "store"
    assert not (tmp_path / "~").exists()
