import dataclasses
import json
import subprocess
import sys
import threading

import numpy as np
import pytest

from lpipstore.cache.errors import StoreError, UsageError
from lpipstore.cache.keys import FILL_VALUES, PoolSpec
from lpipstore.cache.store import FeatureStore

DTYPES = ["uint16", "int16", "float32"]


@pytest.fixture(params=[False, True], ids=["plain", "packed"])
def packed_store(tmp_path, request):
    with FeatureStore(tmp_path / "store", compress=request.param) as opened:
        yield opened


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_come_back_as_they_were_put(packed_store, make_rows, dtype):
    made = make_rows(dtype=dtype)
    assert made.put(packed_store, range(50)) == 50
    row = packed_store.get(made.key(7))
    assert row.dtype == dtype
    np.testing.assert_array_equal(row, made.row(7))
    assert made.held(packed_store, [9, 3, 3, 49, 0]) == [9, 3, 3, 49, 0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_are_numbers_times_scale(packed_store, make_rows, dtype):
    made = make_rows(dtype=dtype)
    made.put(packed_store, range(5))
    out = np.full((3, 2000), -5, np.float32)
    assert packed_store.get_many(made.keys([4, 1, 0]), out).all()
    step = {"uint16": 65535, "int16": 32767, "float32": 1}[dtype]
    np.testing.assert_allclose(out, made.rows([4, 1, 0]) / step, rtol=2e-7)


def test_a_miss_is_false_and_cannot_pass_for_data(store, made):
    made.put(store, [1])
    out = np.zeros((3, 2000), np.uint16)
    assert store.get_many(made.keys([0, 1, 2]), out).tolist() == [False, True, False]
    assert (out[[0, 2]] == FILL_VALUES["uint16"]).all()
    values = np.zeros((2, 2000), np.float32)
    store.get_many(made.keys([0, 1]), values)
    assert np.isnan(values[0]).all() and np.isfinite(values[1]).all()
    assert store.get(made.key(5)) is None


def test_out_may_be_part_of_a_larger_array(store, made):
    made.put(store, range(4))
    whole = np.full((4, 2100), 7, np.uint16)
    assert store.get_many(made.keys(range(4)), whole[:, 50:2050]).all()
    np.testing.assert_array_equal(whole[:, 50:2050], made.rows(range(4)))
    assert (whole[:, :50] == 7).all() and (whole[:, 2050:] == 7).all()


def test_a_large_read_gives_what_single_reads_give(store, make_rows):
    made = make_rows(length=20_000)
    made.put(store, range(200))
    order = np.random.default_rng(0).permutation(200).tolist()
    assert made.held(store, order) == order


def test_put_says_what_is_kept_and_writes_nothing_twice(store, made, segment_files):
    assert store.put(made.spec, made.key(0), made.row(0))
    size = segment_files(store.path)[0].stat().st_size
    assert store.put(made.spec, made.key(0), made.row(0))
    assert made.put(store, [0, 0, 0]) == 3
    assert segment_files(store.path)[0].stat().st_size == size
    assert made.put(store, [0, 1, 1]) == 3
    assert store.stat().rows == 2
    assert store.put_many(made.spec, [], np.empty((0, 2000), np.uint16)) == 0


def test_missing_keeps_the_order_and_names_each_once(store, made):
    made.put(store, [2, 4])
    assert store.missing(made.keys([5, 2, 1, 5, 4, 3])) == made.keys([5, 1, 3])
    assert store.contains(made.key(2)) and not store.contains(made.key(1))
    assert store.missing([]) == []


def test_rows_stay_when_the_store_is_opened_again(tmp_path, made):
    with FeatureStore(tmp_path) as store:
        made.put(store, range(30))
    with FeatureStore(tmp_path) as store:
        assert made.held(store, range(40)) == list(range(30))
        made.put(store, range(30, 40))
        assert made.held(store, range(40)) == list(range(40))


def test_pools_stand_side_by_side(store, make_rows):
    pools = [make_rows(length=n, recipe=str(n)) for n in (1, 10, 3000)]
    for made in pools:
        made.put(store, range(20))
    for made in pools:
        assert made.held(store, range(20)) == list(range(20))
    stat = store.stat()
    assert sorted((pool.length, pool.rows) for pool in stat.pools) == [
        (1, 20),
        (10, 20),
        (3000, 20),
    ]


def test_packed_and_plain_rows_are_found_by_the_same_key(tmp_path, made):
    with FeatureStore(tmp_path) as store:
        made.put(store, range(5))
    with FeatureStore(tmp_path, compress=True) as store:
        made.put(store, range(10))
        assert made.held(store, range(10)) == list(range(10))
        assert [(pool.codec, pool.rows) for pool in store.stat().pools] == [("", 5), ("lz4", 5)]


def test_packed_rows_take_less_room(tmp_path, du):
    spec = PoolSpec("flat", 50_000, "uint16", {})
    row = np.repeat(np.arange(500, dtype=np.uint16), 100)
    sizes = []
    for compress in (False, True):
        with FeatureStore(tmp_path / str(compress), compress=compress) as store:
            for n in range(20):
                store.put(spec, spec.key(b"%d" % n), row)
        sizes.append(du(tmp_path / str(compress)))
    assert sizes[1] < sizes[0] / 4


def test_stat_is_plain_data_with_real_bytes(store, made, du):
    made.put(store, range(20))
    made.held(store, range(25))
    stat = store.stat()
    assert json.loads(json.dumps(dataclasses.asdict(stat))) == dataclasses.asdict(stat)
    assert (stat.rows, stat.hits, stat.misses, stat.limit) == (20, 20, 5, None)
    assert stat.bytes == du(store.path)
    assert stat.pools[0].recipe == {"recipe": "made"}


def test_counters_outlive_the_process(tmp_path, made):
    for _ in range(2):
        with FeatureStore(tmp_path) as store:
            made.put(store, [1])
            store.get(made.key(1))
            store.get(made.key(2))
    with FeatureStore(tmp_path) as store:
        assert (store.stat().hits, store.stat().misses) == (2, 2)


@pytest.mark.parametrize(
    ("keys", "rows", "says"),
    [
        ([b"x" * 16], np.zeros((1, 3), np.uint16), r"\(1, 3\)"),
        ([b"x" * 16], np.zeros((1, 2000), np.float32), "float32"),
        ([b"x" * 16], np.zeros((2, 2000), np.uint16), r"\(2, 2000\)"),
        ([b"x"], np.zeros((1, 2000), np.uint16), "16 bytes"),
    ],
)
def test_put_names_what_does_not_fit(store, made, keys, rows, says):
    with pytest.raises(UsageError, match=says):
        store.put_many(made.spec, keys, rows)


@pytest.mark.parametrize(
    ("out", "says"),
    [
        (np.zeros((2, 2000), np.uint16), r"\(1, length\)"),
        (np.zeros((1, 1999), np.uint16), "1999"),
        (np.zeros((1, 2000), np.int16), "int16"),
        (np.zeros((1, 2000), np.float64), "float64"),
        (np.zeros((1, 4000), np.uint16)[:, ::2], "contiguous"),
    ],
)
def test_get_names_what_does_not_fit(store, made, out, says):
    made.put(store, [0])
    with pytest.raises(UsageError, match=says):
        store.get_many([made.key(0)], out)


def test_a_closed_store_says_so(tmp_path, made):
    store = FeatureStore(tmp_path)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.get(made.key(0))


@pytest.mark.parametrize("content", ["notes.txt", "index.sqlite"])
def test_a_folder_with_other_things_is_left_alone(tmp_path, content):
    (tmp_path / content).write_text("mine")
    with pytest.raises(StoreError, match="other things"):
        FeatureStore(tmp_path)
    assert (tmp_path / content).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match="not a folder"):
            FeatureStore(path)


def test_a_limit_that_holds_nothing_is_refused(tmp_path):
    with pytest.raises(UsageError, match="1 MiB"):
        FeatureStore(tmp_path, limit=1000)


def test_threads_read_and_write_at_once(store, make_rows):
    made = make_rows(length=5000)
    written = threading.Event()
    errors = []

    def write(first):
        try:
            for start in range(first, first + 120, 10):
                made.put(store, range(start, start + 10))
        except Exception as error:
            errors.append(error)

    def read():
        try:
            while not written.is_set():
                made.held(store, range(0, 360, 7))
        except Exception as error:
            errors.append(error)

    writers = [threading.Thread(target=write, args=(first,)) for first in (0, 120, 240)]
    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in writers + readers:
        thread.start()
    for thread in writers:
        thread.join()
    written.set()
    for thread in readers:
        thread.join()
    assert errors == []
    assert made.held(store, range(360)) == list(range(360))


def test_importing_the_store_is_cheap():
    code = (
        "import sys, lpipstore.cache.store; "
        "print([name for name in ('torch', 'zarr', 'numcodecs', 'dask') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_rows_in_the_other_byte_order_are_the_same_rows(store, made):
    swapped = made.rows(range(5)).astype(">u2")
    assert store.put_many(made.spec, made.keys(range(5)), swapped) == 5
    assert made.held(store, range(5)) == list(range(5))
    single = np.arange(3, dtype=">f4")
    spec = PoolSpec("values", 3, "float32", {})
    store.put(spec, spec.key(b"1"), single)
    assert store.get(spec.key(b"1")).tolist() == [0.0, 1.0, 2.0]


def test_a_buffer_in_the_other_byte_order_is_refused(store, made):
    made.put(store, [1])
    for dtype in (">u2", ">f4"):
        with pytest.raises(UsageError, match="byte order, not >"):
            store.get_many([made.key(1)], np.empty((1, 2000), dtype))
