"""Distances of a list on disk: what a killed process leaves, and what cannot be gone on with."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from lpipstore.cache.errors import LpipstoreError
from lpipstore.pipeline.pairlists import file as listresults
from lpipstore.pipeline.pairlists.file import DistanceFile, write_parts, write_table

COUNT = 150_000  # three chunks


def numbers(pairs):
    return (pairs / 7).astype(np.float32)


def test_what_was_written_in_time_outlives_a_process_that_never_closes(tmp_path, monkeypatch):
    monkeypatch.setattr(listresults, "_LEAST_SECONDS", 0)
    monkeypatch.setattr(listresults, "_WRITING_SHARE", 0)
    pairs = np.arange(0, COUNT, 3)
    DistanceFile(tmp_path, COUNT, {"of": "a"}).put(pairs, numbers(pairs))
    again = DistanceFile(tmp_path, COUNT, {"of": "a"})
    assert np.array_equal(again.values[::3], numbers(pairs))
    assert np.isnan(again.values[1::3]).all()
    assert not list(tmp_path.rglob("*.partial"))


def test_a_second_goes_by_between_two_writes_and_closing_writes_the_rest(tmp_path):
    file = DistanceFile(tmp_path, COUNT, {})
    file.put(np.array([5, 100_000]), np.array([0.5, 0.25], np.float32))
    assert np.isnan(DistanceFile(tmp_path, COUNT, {}).values).all()
    file.close()
    values = DistanceFile(tmp_path, COUNT, {}).values
    assert (values[5], values[100_000], np.isnan(values).sum()) == (0.5, 0.25, COUNT - 2)


@pytest.mark.parametrize("content", [b"", b"short"])
def test_a_torn_chunk_is_as_if_it_were_not_there(tmp_path, content):
    pairs = np.arange(COUNT)
    file = DistanceFile(tmp_path, COUNT, {})
    file.put(pairs, numbers(pairs))
    file.close()
    (tmp_path / "distances.zarr" / "c" / "1").write_bytes(content)
    known = ~np.isnan(DistanceFile(tmp_path, COUNT, {}).values)
    assert np.array_equal(np.flatnonzero(~known), np.arange(65_536, 131_072))


def test_other_pairs_and_damage_are_told(tmp_path):
    DistanceFile(tmp_path, COUNT, {"of": "a"})
    for count, of in ((COUNT, "b"), (COUNT - 1, "a")):
        with pytest.raises(LpipstoreError, match="begun with other images"):
            DistanceFile(tmp_path, count, {"of": of})
    (tmp_path / "distances.zarr" / "zarr.json").write_text("{")
    with pytest.raises(LpipstoreError, match="is damaged"):
        DistanceFile(tmp_path, COUNT, {"of": "a"})


def test_a_table_has_the_same_bytes_however_it_is_cut_into_chunks(tmp_path):
    count = 300_000  # more than a page of Parquet holds
    whole = pa.table(
        {"i": np.arange(count), "note": [f"{n % 9_999} of many" for n in range(count)]}
    )
    pieces = pa.concat_tables([whole[:7], whole[7:123_456], whole[123_456:]])
    assert pieces.column("note").num_chunks == 3
    for number, table in enumerate((whole, pieces)):
        write_table(tmp_path / str(number), table)
    write_table(tmp_path / "2", pa.parquet.read_table(tmp_path / "1"))
    assert len({(tmp_path / str(number)).read_bytes() for number in range(3)}) == 1


def test_a_table_in_parts_has_the_bytes_of_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("lpipstore.pipeline.pairlists.file.LINES_AT_ONCE", 4)
    table = pa.table({"i": list(range(10)), "path": [f"{n}.png" for n in range(10)]})
    write_table(tmp_path / "whole", table)
    write_parts(tmp_path / "parts", iter([table[:4], table[4:8], table[8:]]))
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts", "whole"]
