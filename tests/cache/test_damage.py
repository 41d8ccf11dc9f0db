"""Whatever is done to the files: what is hurt is a miss, the rest is served, verify reports it."""

import contextlib
import json
import shutil
import sqlite3
import threading

import numpy as np
import pytest
import zarr

from lpipstore.cache import eviction, index, verify
from lpipstore.cache.store import FeatureStore

ROWS = 160  # five segments of 32 rows
IN_SEGMENT = 32


@pytest.fixture(params=[False, True], ids=["plain", "packed"])
def folder(tmp_path, made, request):
    with FeatureStore(tmp_path / "store", limit=2 << 20, compress=request.param) as store:
        made.put(store, range(ROWS))
    return tmp_path / "store"


@pytest.fixture
def after(folder, made):
    """Open the store and check: lost rows are misses and can be put again, the rest is served."""

    def check(lost, kinds, *, repair_first=False):
        lost = set(lost)
        with FeatureStore(folder) as store:
            report = store.verify(repair=repair_first)
            assert {finding.kind for finding in report.findings} == set(kinds)
            assert sum(f.rows for f in report.findings) == len(lost)
            served = made.held(store, range(ROWS))
            assert served == [n for n in range(ROWS) if n not in lost]
            assert store.stat().corrupt_rows == len(lost)
            assert made.put(store, range(ROWS)) == ROWS
            assert made.held(store, range(ROWS)) == list(range(ROWS))
            store.verify(repair=True)
            assert store.verify() == store.verify(repair=True)
            assert store.verify().ok and store.verify().findings == []
            assert made.held(store, range(ROWS)) == list(range(ROWS))
        for pool in (folder / "pools").glob("made*"):
            assert zarr.open(pool, mode="r")[:].shape[1] == 2000
        return report

    return check


def flip(path, at):
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))


@pytest.mark.parametrize("repair_first", [False, True])
def test_flipped_bits(folder, after, segment_files, repair_first):
    files = segment_files(folder)
    flip(files[0], 0)
    flip(files[2], files[2].stat().st_size // 3)
    hurt = {0}
    with FeatureStore(folder) as store:
        report = store.verify()
        hurt |= {
            2 * IN_SEGMENT + int(finding.where.split("slot ")[1])
            for finding in report.findings
            if "c.2.0" in finding.where
        }
    assert len(hurt) == 2 and report.rows == ROWS and not report.ok
    after(hurt, {"corrupt row"}, repair_first=repair_first)


@pytest.mark.parametrize("repair_first", [False, True])
def test_a_truncated_segment(folder, after, segment_files, made, repair_first):
    file = segment_files(folder)[1]
    with FeatureStore(folder) as store:
        state = store._handle.opened.state
        segment = next(s for s in state.segments.values() if s.number == 1)
        if segment.pool.codec:
            starts, sizes = state.files.extents(segment, 31)
        else:
            sizes = np.full(32, segment.pool.stride)
            starts = np.cumsum(sizes) - sizes
    with file.open("r+b") as opened:
        opened.truncate(int(starts[20]) + 7)
    kinds = {"corrupt row", "damaged footer"}
    after(range(IN_SEGMENT + 20, 2 * IN_SEGMENT), kinds, repair_first=repair_first)


def test_an_emptied_segment(folder, after, segment_files):
    segment_files(folder)[4].write_bytes(b"")
    after(range(4 * IN_SEGMENT, ROWS), {"corrupt row", "damaged footer"})


def test_deleted_segments(folder, after, segment_files):
    for at in (0, 3):
        segment_files(folder)[0 if at == 0 else 2].unlink()
    lost = [*range(IN_SEGMENT), *range(3 * IN_SEGMENT, 4 * IN_SEGMENT)]
    report = after(lost, {"missing segment"})
    assert all(finding.repaired for finding in report.findings)  # put right on opening


def test_a_segment_deleted_while_the_store_is_open(folder, made, segment_files):
    with FeatureStore(folder) as store:
        segment_files(folder)[1].unlink()
        served = made.held(store, range(ROWS))
        assert served == [n for n in range(ROWS) if n // IN_SEGMENT != 1]
        assert store.stat().corrupt_rows == IN_SEGMENT
        assert made.put(store, range(ROWS)) == ROWS
        assert made.held(store, range(ROWS)) == list(range(ROWS))


def test_segments_exchanged_for_each_other(folder, after, segment_files):
    one, two = segment_files(folder)[1:3]
    spare = folder / "spare"
    one.rename(spare)
    two.rename(one)
    spare.rename(two)
    after(range(IN_SEGMENT, 3 * IN_SEGMENT), {"corrupt row", "damaged footer"})


def test_a_damaged_footer_hurts_no_row(folder, after, segment_files):
    file = segment_files(folder)[0]
    flip(file, file.stat().st_size - 2)
    after([], {"damaged footer"})


@pytest.mark.parametrize("with_log", [False, True])
def test_a_deleted_index_is_rebuilt_from_the_segments(folder, after, with_log):
    for name in ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"][: 3 if with_log else 1]:
        (folder / name).unlink(missing_ok=True)
    after([], {"orphan adopted"})


def test_without_index_and_footer_the_rows_are_misses(folder, after, made, segment_files):
    (folder / "index.sqlite").unlink()
    flip(segment_files(folder)[2], segment_files(folder)[2].stat().st_size - 600)
    with FeatureStore(folder) as store:
        kinds = {finding.kind for finding in store.verify().findings}
        assert kinds == {"orphan adopted", "orphan removed"}
        served = made.held(store, range(ROWS))
        assert served == [n for n in range(ROWS) if n // IN_SEGMENT != 2]


def test_the_index_of_another_store(folder, after, tmp_path, make_rows):
    with FeatureStore(tmp_path / "other") as other:
        make_rows(recipe="other").put(other, range(50))
        make_rows().put(other, range(1000, 1100))
    shutil.copy(tmp_path / "other" / "index.sqlite", folder / "index.sqlite")
    after([], {"foreign index", "orphan adopted"})


@pytest.mark.parametrize("what", [b"no database at all", b"", None])
def test_an_index_that_is_none(folder, after, what):
    index = folder / "index.sqlite"
    if what is None:
        data = bytearray(index.read_bytes())
        data[100:] = bytes(len(data) - 100)
        what = bytes(data)
    index.write_bytes(what)
    kinds = {"orphan adopted"} if what == b"" else {"damaged index", "orphan adopted"}
    after([], kinds)


def test_a_page_of_the_index_destroyed_while_it_is_open(folder, made):
    with FeatureStore(folder) as store:
        connection = sqlite3.connect(folder / "index.sqlite")
        root = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'segments'"
        ).fetchone()[0]
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        with (folder / "index.sqlite").open("r+b") as file:
            file.seek((root - 1) * 4096)
            file.write(b"\xff" * 4096)
        assert made.held(store, range(ROWS)) == list(range(ROWS))
        assert not (report := store.verify()).ok and report.findings[0].kind == "damaged index"
        assert store.verify(repair=True).ok
        assert made.held(store, range(ROWS)) == list(range(ROWS))
        assert made.put(store, range(ROWS + 10)) == ROWS + 10


def test_an_index_deleted_while_it_is_open(folder, made):
    with FeatureStore(folder) as store, FeatureStore(folder) as second:
        made.put(store, range(200, 210))  # committed, but in a segment that is open
        for name in ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm"):
            (folder / name).unlink(missing_ok=True)
        for each in (store, second):
            assert set(range(ROWS)) <= set(made.held(each, range(210)))
            assert made.put(each, range(220)) == 220
            assert made.held(each, range(220)) == list(range(220))
        assert store.verify().ok


def test_destroyed_metadata_of_a_pool(folder, made):
    pool = next((folder / "pools").glob("made*"))
    before = (pool / "zarr.json").read_text()
    (pool / "zarr.json").write_text("{")
    with FeatureStore(folder) as store:
        assert made.held(store, range(ROWS)) == list(range(ROWS))
        assert [finding.kind for finding in store.verify().findings] == ["damaged pool"]
        assert store.verify(repair=True).ok and store.verify().findings == []
    assert (pool / "zarr.json").read_text() == before


def test_a_pool_whose_removal_was_cut_short_takes_rows_again(tmp_path, made):
    with FeatureStore(tmp_path) as store:
        made.put(store, range(3))
        store.evict(0)
        next((tmp_path / "pools").glob("made*/zarr.json")).unlink()
        assert made.put(store, range(3)) == 3
        store.evict(1 << 40)  # seals
        assert made.held(store, range(3)) == [0, 1, 2]
        assert store.verify().findings == []


def test_files_of_others_are_named_and_stay(folder, made):
    strange = [folder / "notes.txt", folder / "pools" / "notes.txt"]
    for path in strange:
        path.write_text("mine")
    with FeatureStore(folder) as store:
        report = store.verify(repair=True)
    assert sorted(finding.where for finding in report.findings) == sorted(map(str, strange))
    assert all(path.read_text() == "mine" for path in strange)


@pytest.mark.parametrize("repair", [False, True])
def test_rows_that_leave_while_they_are_verified_are_not_damage(folder, made, monkeypatch, repair):
    look = verify._corrupt_slots

    def evict_first(*arguments):
        with FeatureStore(folder) as other:
            if other.stat().rows:
                other.evict(0)
                made.put(other, range(1000, 1010))
        return look(*arguments)

    with FeatureStore(folder) as store:
        monkeypatch.setattr(verify, "_corrupt_slots", evict_first)
        report = store.verify(repair=repair)
        assert report.ok and not report.findings
        assert made.held(store, range(1000, 1010))
        assert store.stat().corrupt_rows == 0


@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize("moment", ["committed", "_corrupt_slots", "_marked_absent", "index_bytes"])
def test_rows_on_their_way_out_are_not_damage(folder, monkeypatch, repair, moment):
    emptied, asked = threading.Event(), threading.Event()
    look, delete, wait = getattr(verify, moment), eviction.delete_segments, index.wait_for_lock

    def evict_first(*arguments):
        if not evictor.ident:
            evictor.start()
            assert emptied.wait(10)
        return look(*arguments)

    def delete_slowly(*arguments):  # the files are gone, the index does not say so yet
        emptied.set()
        assert asked.wait(10)
        delete(*arguments)

    def tell_and_wait(*arguments):
        if emptied.is_set():
            asked.set()
        wait(*arguments)

    with FeatureStore(folder) as store, FeatureStore(folder) as other:
        evictor = threading.Thread(target=other.evict, args=[0])
        monkeypatch.setattr(eviction, "delete_segments", delete_slowly)
        monkeypatch.setattr(index, "wait_for_lock", tell_and_wait)
        monkeypatch.setattr(verify, moment, evict_first)
        report = store.verify(repair=repair)
        evictor.join()
        assert report.ok and not report.findings
        assert store.stat().rows == store.stat().corrupt_rows == 0


@pytest.mark.parametrize("content", ["", "{", "{}"])
def test_a_pool_with_destroyed_metadata_takes_rows_again(tmp_path, made, crash, content):
    store = FeatureStore(tmp_path)
    made.put(store, range(10))
    store.evict(1 << 40)
    made.put(store, range(10, 20))
    crash(store)
    metadata = next((tmp_path / "pools").glob("made*/zarr.json"))
    metadata.write_text(content)
    with FeatureStore(tmp_path) as store:
        metadata.write_text(content)
        assert made.put(store, range(30)) == 30
        store.evict(1 << 40)
        assert made.held(store, range(30)) == list(range(30))
    assert zarr.open(metadata.parent, mode="r").shape[1] == 2000


TABLES = [
    "meta",
    "counters",
    "pools",
    "segments",
    "entries",
    "dropped",
    "leases",
    "pins",
    "files",
    "entries_segment",
]


@pytest.mark.parametrize("table", TABLES)
def test_a_destroyed_part_of_the_index(folder, made, table):
    with contextlib.closing(sqlite3.connect(folder / "index.sqlite")) as connection:
        query = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
        page = connection.execute(query, [table]).fetchone()[0]
    with (folder / "index.sqlite").open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    with FeatureStore(folder, limit=2 << 20) as store:
        assert store.verify(repair=True).ok
        assert made.held(store, range(ROWS)) == list(range(ROWS))
        assert store.verify().findings == []


@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize("gone", [False, True], ids=["a row", "a segment"])
def test_rows_that_were_computed_again_are_not_lost(folder, made, segment_files, gone, repair):
    hurt = segment_files(folder)[1]
    if not gone:
        flip(hurt, 50)
    with FeatureStore(folder) as store:
        if gone:
            hurt.unlink()
        before = list(range(ROWS)) if not gone else [n for n in range(ROWS) if n // IN_SEGMENT != 1]
        assert set(made.held(store, range(ROWS))) <= set(before)
        assert made.put(store, range(ROWS)) == ROWS
        lost = store.stat().corrupt_rows
        assert lost == (IN_SEGMENT if gone else 1)
        findings = store.verify(repair=repair).findings
        assert sum(finding.rows for finding in findings) == 0
        assert {finding.kind for finding in findings} <= {"corrupt row"}
        assert made.held(store, range(ROWS)) == list(range(ROWS))


def test_rows_in_two_segments_are_lost_only_where_they_are_found(tmp_path, made, segment_files):
    with FeatureStore(tmp_path) as one, FeatureStore(tmp_path) as other:
        made.put(one, range(20))
        # what the other had looked up just before
        other._handle.opened.writer._put_new(
            made.spec, made.keys(range(20)), list(made.rows(range(20)))
        )
    first, second = segment_files(tmp_path)
    first.unlink()
    with FeatureStore(tmp_path) as store:
        assert made.held(store, range(20)) == list(range(20))
        assert store.stat().corrupt_rows == 0
        assert [f.rows for f in store.verify().findings] == []
        second.unlink()
        assert [(f.kind, f.rows) for f in store.verify().findings] == [("missing segment", 20)]


@pytest.mark.parametrize("opened", [False, True], ids=["closed", "open"])
@pytest.mark.parametrize("torn", [None, b"", b"{torn"], ids=["missing", "empty", "torn"])
def test_a_pool_whose_description_is_damaged(folder, made, torn, opened):
    """Opening the store repairs it; `verify` finds what happens to an open store."""
    (metadata,) = folder.glob("pools/*/zarr.json")
    whole = json.loads(metadata.read_text())

    def damage():
        metadata.unlink()
        if torn is not None:
            metadata.write_bytes(torn)

    if not opened:
        damage()
    with FeatureStore(folder) as store:
        if opened:
            damage()
        report = store.verify()
        (finding,) = report.findings
        assert finding.kind == "damaged pool"
        assert report.ok == finding.repaired == (not opened)
        store.verify(repair=True)
        assert store.verify().ok
        assert json.loads(metadata.read_text()) == whole
        assert made.held(store, range(3)) == [0, 1, 2]
