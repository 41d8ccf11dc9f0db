"""Nothing is removed, moved or written over that the store did not write."""

import sqlite3

import pytest

from lpipstore.cache.errors import StoreError
from lpipstore.cache.opening import is_store
from lpipstore.cache.store import FeatureStore


def tree(folder):
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def program_database(path, application):
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA application_id = {application}")
    connection.execute("CREATE TABLE photographs (name)")
    connection.commit()
    connection.close()


def test_files_of_others_within_a_store_stay(tmp_path, made, crash):
    store = FeatureStore(tmp_path)
    made.put(store, range(10))
    store.evict(1 << 40)
    made.put(store, range(10, 20))
    crash(store)
    pool = next((tmp_path / "pools").glob("made-*"))
    strange = [
        tmp_path / "pools" / ".zarr.json.swp",
        pool / ".zarr.json.swp",
        pool / "thesis.evicted",
        pool / "c.1.0.evicted.txt",
        tmp_path / "open" / "thesis.txt",
        tmp_path / "open" / "thesis.7",
        tmp_path / "pools" / "notes" / "letter.evicted",
        tmp_path / "pools" / "notes" / "c.0.0.evicted",
        tmp_path / "pools" / "copy of a pool" / "c.0.0",
        tmp_path / "pools" / "copy of a pool" / "zarr.json",
    ]
    for path in strange:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((pool / "zarr.json").read_bytes())
    (tmp_path / "pools" / "empty").mkdir()
    before = {path: path.read_bytes() for path in strange}
    with FeatureStore(tmp_path) as store:
        assert made.held(store, range(20)) == list(range(20))
        kinds = {finding.kind for finding in store.verify(repair=True).findings}
        assert kinds == {"orphan adopted", "unknown file"}
        store.evict(0)
        store.clear()
    FeatureStore(tmp_path).close()
    assert {path: path.read_bytes() for path in strange} == before
    assert (tmp_path / "pools" / "empty").is_dir()


def test_what_a_killed_process_left_is_removed_all_the_same(tmp_path, made):
    with FeatureStore(tmp_path) as store:
        made.put(store, range(10))
    pool = next((tmp_path / "pools").glob("made-*"))
    (tmp_path / "pools" / "half-0123456789ab").mkdir()
    left = [
        tmp_path / "pools" / ".lpipstore-unfinished-77",
        pool / ".lpipstore-unfinished-77",
        tmp_path / "pools" / "half-0123456789ab" / ".lpipstore-unfinished-77",
        pool / "c.9.0.evicted",
        tmp_path / "open" / "half-0123456789ab.3",
    ]
    for path in left:
        path.write_bytes(b"{")
    with FeatureStore(tmp_path) as store:
        assert not any(path.exists() for path in left)
        assert not (tmp_path / "pools" / "half-0123456789ab").exists()
        assert made.held(store, range(10)) == list(range(10))


@pytest.mark.parametrize("extra", ["open/thesis.txt", "pools/c.0.0", "mail", None])
def test_a_folder_with_a_lock_of_another_program_is_no_store(tmp_path, extra):
    (tmp_path / "lock").touch()
    if extra is None:
        program_database(tmp_path / "index.sqlite", 0)
    else:
        (tmp_path / extra).parent.mkdir(exist_ok=True)
        (tmp_path / extra).write_text("mine")
    before = tree(tmp_path)
    assert not is_store(tmp_path)
    with pytest.raises(StoreError, match="other things than|another program's database"):
        FeatureStore(tmp_path)
    after = tree(tmp_path)
    assert {name: after.get(name) for name in before} == before


@pytest.mark.parametrize("application", [0, 77])
def test_a_database_of_another_program_in_a_store_is_left_alone(tmp_path, made, application):
    with FeatureStore(tmp_path / "store") as store:
        made.put(store, range(10))
    index = tmp_path / "store" / "index.sqlite"
    index.unlink()
    program_database(index, application)
    before = index.read_bytes()
    for _ in range(2):
        with pytest.raises(StoreError, match="another program's database; move it"):
            FeatureStore(tmp_path / "store")
        assert index.read_bytes() == before
    index.rename(tmp_path / "photographs.sqlite")
    with FeatureStore(tmp_path / "store") as store:
        assert made.held(store, range(10)) == list(range(10))


def test_a_store_without_metadata_is_still_one(tmp_path, made):
    with FeatureStore(tmp_path) as store:
        made.put(store, range(10))
    for lost in (["pools/zarr.json"], ["index.sqlite"], ["pools/zarr.json", "index.sqlite"]):
        for name in lost:
            (tmp_path / name).unlink()
        assert is_store(tmp_path)
        with FeatureStore(tmp_path) as store:
            assert made.held(store, range(10)) == list(range(10))
