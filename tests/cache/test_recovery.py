"""What a killed process leaves, written out step by step."""

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
import zarr

from lpipstore.cache import writer
from lpipstore.cache.index import Index
from lpipstore.cache.segmentfiles import LocalSegments, SegmentListing
from lpipstore.cache.store import FeatureStore


def opened_names(path):
    return [file.name for file in (path / "open").iterdir()]


@pytest.mark.parametrize("tail", [b"", b"half a row" * 100])
@pytest.mark.parametrize("compress", [False, True], ids=["plain", "packed"])
def test_committed_rows_of_a_killed_writer_are_adopted(tmp_path, made, crash, tail, compress):
    store = FeatureStore(tmp_path, compress=compress)
    made.put(store, range(10))
    made.put(store, range(10, 25))
    crash(store, tail)
    assert len(opened_names(tmp_path)) == 1
    with FeatureStore(tmp_path) as store:
        assert opened_names(tmp_path) == []
        assert made.held(store, range(30)) == list(range(25))
        stat = store.stat()
        assert (stat.adopted_orphans, stat.removed_orphans, stat.corrupt_rows) == (1, 0, 0)
        array = zarr.open(tmp_path / "pools" / stat.pools[0].folder, mode="r")
        np.testing.assert_array_equal(array[:25], made.rows(range(25)))


def test_a_file_without_committed_rows_is_removed(tmp_path, made, crash, monkeypatch):
    store = FeatureStore(tmp_path)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "enter_rows", killed)
    with pytest.raises(KeyboardInterrupt):
        made.put(store, range(10))
    crash(store, b"rows without an entry")
    with FeatureStore(tmp_path) as store:
        assert opened_names(tmp_path) == [] and made.held(store, range(10)) == []
        assert store.stat().removed_orphans == 1


def test_a_file_that_the_index_never_knew_is_removed(tmp_path):
    FeatureStore(tmp_path).close()
    (tmp_path / "open" / "made-0123456789ab.7").write_bytes(b"rows")
    with FeatureStore(tmp_path) as store:
        assert opened_names(tmp_path) == [] and store.stat().removed_orphans == 1


def test_killed_while_it_made_the_store(tmp_path, made):
    pid = os.fork()
    if not pid:
        Path.replace = lambda *_: os._exit(9)  # between writing the group's metadata and its name
        FeatureStore(tmp_path)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert [path.name for path in (tmp_path / "pools").iterdir()] == [
        f".lpipstore-unfinished-{pid}"
    ]
    with FeatureStore(tmp_path) as store:
        made.put(store, range(10))
        assert store.verify().findings == []
        assert made.held(store, range(10)) == list(range(10))


def test_killed_between_rename_and_commit(tmp_path, made, crash):
    store = FeatureStore(tmp_path)
    made.put(store, range(10))
    state = store._handle.opened.state
    target = next(iter(store._handle.opened.writer._open.values()))
    contents = writer.Contents.of(target.parts)
    target.file.finish(contents, target.segment.pool.slots, durable=False)
    state.sealed.publish(target.file.path, target.segment.key)
    crash(store)
    with FeatureStore(tmp_path) as store:
        assert made.held(store, range(10)) == list(range(10))
        assert store.stat().adopted_orphans == 1 and store.verify().ok
        pool = store.stat().pools[0]
        assert zarr.open(tmp_path / "pools" / pool.folder).shape[0] >= 10


def test_a_living_writer_is_left_alone(tmp_path, made):
    with FeatureStore(tmp_path) as one:
        made.put(one, range(10))
        with FeatureStore(tmp_path) as two:
            assert len(opened_names(tmp_path)) == 1
            assert made.held(two, range(10)) == list(range(10))
            made.put(one, range(10, 20))
            assert made.held(two, range(20)) == list(range(20))
            made.put(two, range(20, 30))
            assert len(opened_names(tmp_path)) == 2
        assert made.held(one, range(30)) == list(range(30))
        assert one.stat().adopted_orphans == one.stat().removed_orphans == 0


def test_a_failed_put_leaves_the_rows_before_it(tmp_path, made, monkeypatch):
    with FeatureStore(tmp_path) as store:
        made.put(store, range(10))

        def fail(*_):
            raise RuntimeError("struck")

        with monkeypatch.context() as patched:
            patched.setattr(writer, "enter_rows", fail)
            with pytest.raises(RuntimeError, match="struck"):
                made.put(store, range(10, 20))
        assert made.held(store, range(20)) == list(range(10))
        made.put(store, range(5, 20))
        assert made.held(store, range(20)) == list(range(20))
    with FeatureStore(tmp_path) as store:
        assert made.held(store, range(20)) == list(range(20)) and store.verify().ok


def test_a_failed_seal_leaves_the_segment_open(tmp_path, made, monkeypatch):
    with FeatureStore(tmp_path) as store:
        made.put(store, range(10))

        def fail(*_):
            raise RuntimeError("struck")

        with monkeypatch.context() as patched:
            patched.setattr(writer, "grow", fail)
            with pytest.raises(RuntimeError, match="struck"):
                store.evict(0)
        assert made.held(store, range(10)) == list(range(10))
        made.put(store, range(10, 20))
    with FeatureStore(tmp_path) as store:
        assert made.held(store, range(20)) == list(range(20)) and store.verify().ok


def interrupt(*_):
    raise KeyboardInterrupt


def test_an_interrupt_after_the_commit_of_rows_leaves_them(tmp_path, made, monkeypatch):
    with FeatureStore(tmp_path) as store:
        made.put(store, range(10))
        with monkeypatch.context() as patched:
            patched.setattr(store._handle.opened.state, "entered", interrupt)
            with pytest.raises(KeyboardInterrupt):
                made.put(store, range(10, 18))
        assert made.held(store, range(20)) == list(range(18))
        made.put(store, range(20, 30))
    with FeatureStore(tmp_path) as store:
        assert made.held(store, range(30)) == [*range(18), *range(20, 30)]
        assert store.verify().findings == [] and store.stat().corrupt_rows == 0


@pytest.mark.parametrize("sealed", [False, True])
def test_an_interrupt_while_a_segment_is_sealed_loses_nothing(tmp_path, made, monkeypatch, sealed):
    rename, commit = writer.os.rename, Index.transaction

    def rename_and_interrupt(*paths):
        rename(*paths)
        raise KeyboardInterrupt

    @contextlib.contextmanager
    def commit_and_interrupt(*arguments, **options):
        with commit(*arguments, **options) as transaction:
            yield transaction
        raise KeyboardInterrupt

    with FeatureStore(tmp_path) as store:
        made.put(store, range(10))
        with monkeypatch.context() as patched:
            if sealed:
                patched.setattr(Index, "transaction", commit_and_interrupt)
            else:
                patched.setattr(writer.os, "rename", rename_and_interrupt)
            with pytest.raises(KeyboardInterrupt):
                store.evict(1 << 40)
        assert bool(opened_names(tmp_path)) != sealed
        written = [os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.exists()]
        assert any(file.startswith(str(tmp_path / "pools")) for file in written) is False
        assert len([file for file in written if file.startswith(str(tmp_path / "open"))]) != sealed
        assert store.verify().findings == []
        made.put(store, range(10, 20))
        store.evict(1 << 40)
        assert opened_names(tmp_path) == []
        assert made.held(store, range(20)) == list(range(20))
        assert store.verify().findings == []


def test_a_seal_that_was_undone_meanwhile_is_not_taken_for_one(tmp_path, made, monkeypatch):
    def with_sealed(files):
        key = f"{next(files.root.glob('made*')).name}/c.0.0"
        return SegmentListing(frozenset([key]), frozenset())

    with FeatureStore(tmp_path) as store:
        made.put(store, range(10))
        with monkeypatch.context() as patched:
            patched.setattr(LocalSegments, "list", with_sealed)
            with FeatureStore(tmp_path) as other:
                assert made.held(other, range(10)) == list(range(10))
                assert other.stat().adopted_orphans == 0
        made.put(store, range(20))
        assert opened_names(tmp_path) == [next((tmp_path / "pools").glob("made*")).name + ".0"]
        assert store.verify().findings == []
