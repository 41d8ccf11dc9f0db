"""What the store writes is Zarr, read here by zarr-python alone."""

import json

import numpy as np
import pytest
import xxhash
import zarr

from lpipstore.cache.keytable import segment_of, slot_of
from lpipstore.cache.store import FeatureStore

DTYPES = ["uint16", "int16", "float32"]


def array_of(store, at=0):
    return zarr.open(store.path / "pools" / store.stat().pools[at].folder, mode="r")


def zarr_row(store, key):
    """Return the number of a key's row in its pool's array."""
    state = store._handle.opened.state
    place = int(state.find([key])[0][0])
    segment = state.segments[segment_of(place)]
    return segment.number * segment.pool.slots + slot_of(place)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("compress", [False, True], ids=["plain", "packed"])
def test_zarr_reads_what_get_returns(tmp_path, make_rows, dtype, compress):
    made = make_rows(dtype=dtype)
    with FeatureStore(tmp_path, limit=2 << 20, compress=compress) as store:
        made.put(store, range(75))
    with FeatureStore(tmp_path) as store:
        array = array_of(store)
        assert array.dtype == dtype
        for n in range(75):
            row = zarr_row(store, made.key(n))
            np.testing.assert_array_equal(array[row], store.get(made.key(n)))
        empty = set(range(array.shape[0])) - {zarr_row(store, key) for key in made.keys(range(75))}
        for row in empty:
            np.testing.assert_array_equal(array[row], np.full(2000, array.fill_value))


def test_the_group_lists_the_pools(store, make_rows):
    for name in ("a", "b"):
        make_rows(recipe=name).put(store, range(3))
    group = zarr.open_group(store.path / "pools", mode="r")
    assert sorted(name for name, _ in group.arrays()) == [p.folder for p in store.stat().pools]


@pytest.mark.parametrize(("dtype", "steps"), [("uint16", 65535), ("int16", 32767)])
def test_attributes_say_what_made_the_rows(store, make_rows, dtype, steps):
    make_rows(dtype=dtype).put(store, [0])
    attributes = array_of(store).attrs
    assert attributes["scale_factor"] == 1 / steps
    assert attributes["recipe"] == {"recipe": "made"}


def test_float_rows_have_no_scale(store, make_rows):
    make_rows(dtype="float32").put(store, [0])
    assert "scale_factor" not in array_of(store).attrs


def test_an_evicted_shard_cannot_pass_for_data(tmp_path, made):
    with FeatureStore(tmp_path, limit=1 << 20) as store:
        made.put(store, range(400))
        assert store.stat().evicted_segments > 0
        array = array_of(store)
    assert (array[:10] == 65535).all()


def test_the_bytes_of_a_segment_stay_the_same_over_versions(tmp_path, make_rows):
    # a change here is a change of the format: it needs a new format version
    made = make_rows(length=10)
    with FeatureStore(tmp_path, limit=1 << 20) as store:
        made.put(store, range(7))
        folder = tmp_path / "pools" / store.stat().pools[0].folder
    assert (
        xxhash.xxh3_128_hexdigest((folder / "c.0.0").read_bytes())
        == "2e215bac85d7103baee62e728c89705c"
    )
    metadata = json.loads((folder / "zarr.json").read_text())
    assert metadata["codecs"][0]["name"] == "sharding_indexed"
    assert [codec["name"] for codec in metadata["codecs"][0]["configuration"]["codecs"]] == [
        "bytes",
        "crc32c",
    ]
