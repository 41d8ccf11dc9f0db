"""Stores of other versions, and folders that cannot be written."""

import json
import os
import sqlite3
import subprocess

import pytest

from lpipstore.cache.errors import StoreError
from lpipstore.cache.store import FeatureStore


@pytest.fixture
def old_store(tmp_path, made):
    with FeatureStore(tmp_path / "old") as store:
        made.put(store, range(5))
    return tmp_path / "old"


@pytest.mark.parametrize("version", [0, 2])
def test_a_store_of_another_version_is_named_and_left_as_it_is(old_store, version):
    group = old_store / "pools" / "zarr.json"
    metadata = json.loads(group.read_text())
    metadata["attributes"]["lpipstore"]["format"] = version
    group.write_text(json.dumps(metadata))
    before = sorted(path for path in old_store.rglob("*"))
    with pytest.raises(StoreError, match=rf"has format {version}, .* reads format 1; use another"):
        FeatureStore(old_store)
    assert sorted(path for path in old_store.rglob("*")) == before


def test_an_index_of_another_version_is_named(old_store):
    with sqlite3.connect(old_store / "index.sqlite") as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(StoreError, match="has format 7"):
        FeatureStore(old_store)


def test_a_read_only_place_is_named(tmp_path, made):
    place = tmp_path / "mount"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        with FeatureStore(place / "store") as store:
            made.put(store, range(5))
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        for path in (place / "store", place / "other"):
            with pytest.raises(StoreError, match=f"{path.name}.* not writable.*choose another"):
                FeatureStore(path)
    finally:
        subprocess.run(["umount", str(place)], check=True)
