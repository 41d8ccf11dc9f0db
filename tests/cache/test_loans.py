"""Segments that another process fills: entered whole or not at all, within the limit."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from lpipstore.cache.store import FeatureStore, RowsLost, StoreError, StoreFull

COUNT = 40


def opened_files(store):
    return sorted(os.listdir(store.path / "open"))


@pytest.fixture
def store(tmp_path):
    with FeatureStore(tmp_path / "store") as store:
        yield store


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("durable", [False, True])
def test_rows_of_another_process_are_served_and_found_again(tmp_path, made, compress, durable):
    with FeatureStore(tmp_path / "store", compress=compress, durable=durable) as store:
        loan = store.lend(made.spec, COUNT)
        assert loan.rows == COUNT
        assert loan.begin() == 0
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            args = made.keys(range(COUNT)), made.rows(range(COUNT))
            written = pool.submit(loan.write, *args).result(60)
        assert made.held(store, range(COUNT)) == []  # nobody knows of them yet
        assert store.accept([(loan, written)]) == [True]
        assert made.held(store, range(COUNT)) == list(range(COUNT))
        assert opened_files(store) == []
    with FeatureStore(tmp_path / "store") as store:
        assert made.held(store, range(COUNT)) == list(range(COUNT))
        assert store.verify().ok


def test_several_segments_are_entered_at_once(store, made):
    loans = [store.lend(made.spec, 10) for _ in range(3)]
    assert len({loan.path for loan in loans}) == 3
    parts = [range(at, at + 10) for at in (0, 10, 20)]
    written = [loan.write(made.keys(p), made.rows(p)) for loan, p in zip(loans, parts, strict=True)]
    assert store.accept(list(zip(loans, written, strict=True))) == [True] * 3
    assert made.held(store, range(30)) == list(range(30))
    assert store.stat().pools[0].segments == 3


def test_a_file_that_is_not_what_its_writer_said_is_removed(store, made):
    short, other, good = (store.lend(made.spec, 10) for _ in range(3))
    written = [loan.write(made.keys(range(10)), made.rows(range(10))) for loan in (short, other)]
    os.truncate(short.path, 1000)
    other.write(made.keys(range(10, 20)), made.rows(range(10, 20)))
    of_good = good.write(made.keys(range(20, 25)), made.rows(range(20, 25)))
    returned = list(zip((short, other, good), (*written, of_good), strict=True))
    assert store.accept(returned) == [False, False, True]
    assert made.held(store, range(30)) == list(range(20, 25))
    assert opened_files(store) == []
    assert store.accept(returned) == [False] * 3  # nothing is lent any more


def test_a_loan_counts_against_the_limit_until_it_is_taken_back(tmp_path, made):
    with FeatureStore(tmp_path / "store", limit=2 << 20) as store:
        loans = []
        while (loan := store.lend(made.spec, 25)) is not None:
            loans.append(loan)
        assert 3 < len(loans) < 20
        assert store.stat().bytes <= 2 << 20
        assert made.put(store, range(5)) == 0
        for loan in loans:
            store.take_back(loan)
        assert opened_files(store) == []
        assert made.put(store, range(5)) == 5


def test_a_pin_keeps_rows_that_others_made(tmp_path, made):
    with FeatureStore(tmp_path / "store", limit=1 << 20) as store:
        with store.pin("run", made.keys(range(10))):
            loan = store.lend(made.spec, 10)
            store.accept([(loan, loan.write(made.keys(range(10)), made.rows(range(10))))])
            made.put(store, range(100, 1000))
            assert made.held(store, range(10)) == list(range(10))
        made.put(store, range(1000, 2000))
        assert made.held(store, range(10)) == []


def test_attempts_are_counted_and_what_is_complete_is_found(store, made):
    loan, keys = store.lend(made.spec, 4), made.keys(range(4))
    assert [loan.begin() for _ in range(3)] == [0, 1, 2]
    assert loan.found(keys) is None
    written = loan.write(keys, made.rows(range(4)))
    again = loan.found(keys)
    np.testing.assert_array_equal(again.records, written.records)
    assert loan.found(keys[:3]) is None
    assert loan.begin() >= 1  # of an attempt that wrote rows, no more is known
    assert loan.found(keys) is None


def test_what_is_still_lent_is_removed_when_the_store_is_closed(tmp_path, made):
    with FeatureStore(tmp_path / "store") as store:
        store.lend(made.spec, 4)
        assert len(opened_files(store)) == 1
    assert opened_files(store) == []
    with FeatureStore(tmp_path / "store") as store:
        assert store.verify().ok
        assert store.stat().rows == 0


def test_a_worker_says_why_it_cannot_write(store, made, monkeypatch):
    loan, gone = store.lend(made.spec, 4), store.lend(made.spec, 4)
    store.take_back(gone)
    with pytest.raises(StoreError, match="cannot be written: .*No such file"):
        gone.write(made.keys(range(4)), made.rows(range(4)))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lpipstore.cache.loans.write_rows", full)
    with pytest.raises(StoreFull, match="no space left for the store"):
        loan.write(made.keys(range(4)), made.rows(range(4)))


KILLED = """
    import os, signal, sys
    sys.path.insert(0, {tests!r})
    from conftest import Made
    from lpipstore.cache import writer
    from lpipstore.cache.store import FeatureStore
    made = Made()
    store = FeatureStore({path!r})
    lent = [store.lend(made.spec, 10) for _ in range(3)]
    written = [l.write(made.keys(range(10 * n, 10 * n + 10)), made.rows(range(10 * n, 10 * n + 10)))
               for n, l in enumerate(lent[:2])]
    lent[2].begin()
    if {during!r}:
        writer.enter_sealed = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        store.accept(list(zip(lent, written)))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("during", [False, True], ids=["before the commit", "after publishing"])
def test_complete_files_of_a_killed_coordinator_are_adopted(tmp_path, made, during):
    path = str(tmp_path / "store")
    script = KILLED.format(tests=str(Path(__file__).parent), path=path, during=during)
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -signal.SIGKILL
    with FeatureStore(path) as store:
        assert made.held(store, range(30)) == list(range(20))
        assert opened_files(store) == []
        assert store.verify().ok
    with FeatureStore(path) as store:
        assert made.held(store, range(30)) == list(range(20))


# -- where rows lie ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_rows_are_read_by_where_they_lie(tmp_path, make_rows, dtype):
    made = make_rows(dtype=dtype)
    for compress in (False, True):  # rows of both kinds together
        with FeatureStore(tmp_path / "store", compress=compress) as store:
            made.put(store, range(30 * compress, 30 * compress + 30))
    with FeatureStore(tmp_path / "store") as store:
        made.put(store, range(60, 70))
        order = [65, 3, 40, 3, 12, 59]
        where = pickle.loads(pickle.dumps(store.locate(made.spec, made.keys(order))))
        np.testing.assert_array_equal(where.read(), made.rows(order))
        assert where.nbytes == where.read().nbytes
        part = where[np.array([4, 2])]
        np.testing.assert_array_equal(part.read(), made.rows([12, 40]))
        assert len(part.files) == 2
        assert where[1:3].digest() == store.locate(made.spec, made.keys([3, 40])).digest()
        assert where[1:3].digest() != where[2:4].digest()
        assert where.keys == made.keys(order)


def test_rows_that_are_gone_or_damaged_are_named(store, made):
    made.put(store, range(8))
    with pytest.raises(RowsLost, match="2 of 3 rows are not in the store") as caught:
        store.locate(made.spec, made.keys([8, 1, 9]))
    assert caught.value.keys == made.keys([8, 9])
    where = store.locate(made.spec, made.keys(range(8)))
    with open(where.files[0].sealed, "r+b") as file:
        file.seek(int(where.offsets[5]) + 7)
        file.write(b"\xff\xfe\xfd")
    with pytest.raises(RowsLost, match="1 of 8 rows") as caught:
        where.read()
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.keys == made.keys([5])
    assert again.message == caught.value.message
    nowhere = replace(where, files=(replace(where.files[0], sealed="/nowhere/a", staged="/b"),))
    with pytest.raises(RowsLost, match="does not see its files, such as /nowhere/a"):
        nowhere.read()


def test_rows_of_a_segment_that_another_process_writes_are_read(tmp_path, made):
    with FeatureStore(tmp_path / "store") as one, FeatureStore(tmp_path / "store") as other:
        made.put(one, range(5))
        where = other.locate(made.spec, made.keys(range(5)))
        np.testing.assert_array_equal(where.read(), made.rows(range(5)))
        one.close()  # seals it under another name
        np.testing.assert_array_equal(where.read(), made.rows(range(5)))
