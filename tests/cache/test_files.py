import pytest

from lpipstore.cache.index import FileIdentity, FileRecord
from lpipstore.cache.store import FeatureStore

NOW = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
LONG_AGO = NOW - 3600 * SECOND


def identity(n, **changes):
    facts = {"path": b"/photos/%d" % n, "size": n, "mtime_ns": LONG_AGO, "inode": n + 10}
    return FileIdentity(**{**facts, "seen_ns": NOW, **changes})


def record(n):
    return FileRecord(b"%016d" % n, f"{n}x{n}")


def test_files_are_recalled_in_the_order_asked(store):
    store.remember_files([(identity(n), record(n)) for n in range(1500)])
    asked = [identity(n) for n in (1499, 5, 2000, 5)]
    assert store.recall_files(asked) == [record(1499), record(5), None, record(5)]
    assert store.recall_files([]) == []


@pytest.mark.parametrize(
    "changed", [{"size": 9}, {"mtime_ns": LONG_AGO + 1}, {"inode": 9}, {"path": b"/x"}]
)
def test_a_file_that_changed_is_unknown(store, changed):
    store.remember_files([(identity(1), record(1))])
    assert store.recall_files([identity(1, **changed)]) == [None]


def test_the_last_word_counts(store):
    store.remember_files([(identity(1), record(1))])
    store.remember_files([(identity(1, size=7), record(2))])
    assert store.recall_files([identity(1), identity(1, size=7)]) == [None, record(2)]


def test_files_changed_just_before_they_were_seen_are_not_remembered(store):
    fresh = identity(1, mtime_ns=NOW - SECOND)  # though that was long ago when it is written down
    ahead = identity(2, mtime_ns=NOW + 10**15)
    store.remember_files([(fresh, record(1)), (ahead, record(2)), (identity(3), record(3))])
    assert store.recall_files([fresh, ahead, identity(3)]) == [None, None, record(3)]


def test_names_that_are_no_text_are_kept(store):
    strange = identity(1, path=b"/photos/\xff\xfe\n.jpg", inode=2**63 - 1)
    store.remember_files([(strange, record(1))])
    assert store.recall_files([strange]) == [record(1)]


def test_the_table_stays_within_its_share(tmp_path, du):
    with FeatureStore(tmp_path / "store", limit=1 << 20) as store:
        for start in range(0, 2000, 250):
            store.remember_files([(identity(n), record(n)) for n in range(start, start + 250)])
            assert du(store.path) <= 1 << 20
        known = [n for n in range(2000) if store.recall_files([identity(n)])[0]]
    assert known == list(range(2000 - len(known), 2000)) and 400 <= len(known) <= 600


def test_when_a_file_was_seen_is_no_part_of_what_it_is(store):
    store.remember_files([(identity(1), record(1))])
    assert store.recall_files([identity(1, seen_ns=NOW + SECOND)]) == [record(1)]
