"""One store, several processes."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from lpipstore.cache.errors import StoreError
from lpipstore.cache.opening import folder_lock
from lpipstore.cache.store import FeatureStore

LIMIT = 8 << 20
# Forked, not spawned: a spawned process could not import this file when `pytest` runs it
FORK = multiprocessing.get_context("fork")
FORKING = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


def write_and_watch(path, first, made, du, results, start):
    """Write until four times the limit has gone by, looking at the disk after every batch."""
    worst = 0
    start.wait()
    with FeatureStore(path, limit=LIMIT) as store:
        for at in range(first, first + 2000, 20):
            made.put(store, range(at, at + 20))
            made.held(store, range(at - 40, at + 20))
            worst = max(worst, du(path))
    results.put(worst)


@FORKING
def test_the_limit_holds_with_four_writers(tmp_path, made, du):
    results, start = FORK.Queue(), FORK.Barrier(4)
    path = tmp_path / "store"
    writers = [
        FORK.Process(target=write_and_watch, args=(path, 10_000 * n, made, du, results, start))
        for n in range(4)
    ]
    for writer in writers:
        writer.start()
    worst = [results.get(timeout=120) for _ in writers]
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    segment = LIMIT // 16
    assert max(worst) <= LIMIT + 4 * segment
    assert du(path) <= LIMIT
    with FeatureStore(path, limit=LIMIT) as store:
        assert store.verify().ok and store.stat().corrupt_rows == 0
        assert store.stat().rows > LIMIT // 2 // 4004


def put_many_rows(path, numbers, made, start):
    start.wait()
    with FeatureStore(path) as store:
        for n in numbers:
            made.put(store, [n, n + 1])


@FORKING
def test_two_writers_lose_no_row(tmp_path, made):
    path = tmp_path / "store"
    start = FORK.Barrier(2)
    writers = [
        FORK.Process(target=put_many_rows, args=(path, range(at, 200 + at), made, start))
        for at in (0, 100)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    with FeatureStore(path) as store:
        assert made.held(store, range(301)) == list(range(301))
        assert store.verify().ok and os.listdir(path / "open") == []


def forked(action):
    """Run `action` in a child forked from here; return how it ended."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


@FORKING
def test_a_forked_worker_that_does_nothing_or_closes_harms_nothing(store, made):
    made.put(store, range(10))
    assert forked(lambda: None) == 0
    assert forked(store.close) == 0
    made.put(store, range(10, 20))
    assert made.held(store, range(20)) == list(range(20))
    assert len(os.listdir(store.path / "open")) == 1


@FORKING
def test_a_forked_worker_may_use_the_store(store, made):
    made.put(store, range(10))

    def use():
        assert made.held(store, range(20)) == list(range(10))
        made.put(store, range(10, 20))
        store.close()

    assert forked(use) == 0
    made.put(store, range(20, 30))
    assert made.held(store, range(30)) == list(range(30))
    assert store.verify().ok


def test_a_killed_writer_is_recovered_while_a_child_of_it_lives(tmp_path, made):
    code = textwrap.dedent("""
        import os, signal, sys, numpy as np
        from lpipstore.cache.keys import PoolSpec
        from lpipstore.cache.store import FeatureStore, StoreError
        spec = PoolSpec("a", 100, "uint16", {})
        store = FeatureStore(sys.argv[1])
        store.put(spec, spec.key(b"1"), np.arange(100, dtype=np.uint16))
        there, here = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(here, b"1")  # after what a fork does to locks
            signal.pause()
        os.read(there, 1)
        print(child, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    run = [sys.executable, "-c", code, str(tmp_path / "store")]
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        assert parent.wait() == -signal.SIGKILL
        with FeatureStore(tmp_path / "store") as store:  # the child holds no lock
            assert store.stat().rows == store.stat().adopted_orphans == 1
            assert store.verify().ok
        assert os.listdir(tmp_path / "store" / "open") == []
        os.kill(child, signal.SIGKILL)


def test_a_child_does_not_keep_the_lock_of_a_writer_that_was_killed(tmp_path, made, monkeypatch):
    monkeypatch.setattr("lpipstore.cache.lock.PATIENCE_S", 5.0)
    code = textwrap.dedent("""
        import os, signal, sys
        from lpipstore.cache.store import FeatureStore, StoreError
        store = FeatureStore(sys.argv[1])
        there, here = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(here, b"1")  # after what a fork does to locks
            signal.pause()
        os.read(there, 1)
        print(child, flush=True)
        with store._handle.opened.state.transaction():
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    run = [sys.executable, "-c", code, str(tmp_path / "store")]
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        assert parent.wait() == -signal.SIGKILL
        with FeatureStore(tmp_path / "store") as store:
            assert made.put(store, range(3)) == 3
        os.kill(child, signal.SIGKILL)


def test_a_writer_that_hangs_is_named(tmp_path, made, monkeypatch):
    with FeatureStore(tmp_path) as one, FeatureStore(tmp_path) as other:
        made.put(other, range(3))
        monkeypatch.setattr("lpipstore.cache.lock.PATIENCE_S", 0.05)
        with one._handle.opened.state.transaction():
            with pytest.raises(StoreError, match="another process has been writing"):
                made.put(other, range(5))
            assert made.held(other, range(3)) == [0, 1, 2]  # reading goes on
        assert made.put(other, range(5)) == 5


def test_a_row_that_two_processes_put_at_once_counts_once(tmp_path, made):
    with FeatureStore(tmp_path) as one, FeatureStore(tmp_path) as other:
        made.put(one, range(20))
        # what the other had looked up just before
        other._handle.opened.writer._put_new(
            made.spec, made.keys(range(30)), list(made.rows(range(30)))
        )
        assert one.stat().rows == other.stat().rows == 30
        assert made.held(one, range(30)) == list(range(30))


def test_reading_does_not_wait_for_a_writer_that_hangs(tmp_path, made, monkeypatch):
    monkeypatch.setattr("lpipstore.cache.state._FLUSH_S", 0.0)
    with FeatureStore(tmp_path) as one, FeatureStore(tmp_path) as other:
        made.put(other, range(3))
        with one._handle.opened.state.transaction():
            assert made.held(other, range(3)) == [0, 1, 2]
        assert other.stat().hits == 3


def test_a_process_that_hangs_while_it_opens_the_store_is_named(tmp_path, monkeypatch):
    FeatureStore(tmp_path).close()
    monkeypatch.setattr("lpipstore.cache.lock.PATIENCE_S", 0.05)
    with folder_lock(tmp_path), pytest.raises(StoreError, match="has been opening"):
        FeatureStore(tmp_path)


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def no_lock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_lock)
    with pytest.raises(StoreError, match=r"No locks available.*local disk \(store\)"):
        FeatureStore(tmp_path)
