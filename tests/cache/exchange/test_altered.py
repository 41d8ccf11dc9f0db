"""Objects that were altered in a remote folder, and small segments sent as one object."""

import pytest
import zarr

from lpipstore.cache.exchange.folder import (
    Listed,
    is_segment,
)

from .remote import SPEC, fetched, fetcher, fill, push_all, row_of


def alter(folder, name):
    data = folder.objects[name]
    folder.objects[name] = data[:50] + bytes([data[50] ^ 1]) + data[51:]


def test_an_altered_object_is_noticed_and_mended(make, folder, warnings):
    store = make(range(50))
    push_all(store, folder, warnings)
    whole = dict(folder.objects)
    alter(folder, folder.segments[1])
    folder.read_whole.clear()
    pushed = push_all(store, folder, warnings)
    assert (pushed.altered, pushed.segments, pushed.resumed) == (1, 1, 0)
    assert 0 < pushed.rows < 50
    assert pushed.rows + pushed.there == 50
    assert [name for name in folder.read_whole if is_segment(name)] == [folder.segments[1]]
    assert {n: folder.objects[n] for n in folder.segments} == {n: whole[n] for n in folder.segments}
    folder.read_whole.clear()
    again = push_all(store, folder, warnings)
    assert (again.altered, again.bytes) == (0, 0)
    assert not any(map(is_segment, folder.read_whole))
    assert fetched(fetcher(folder, warnings), range(50)) == [*range(50)]
    assert not warnings


def test_an_altered_object_whose_rows_are_elsewhere(make, folder, warnings):
    push_all(make(range(15)), folder, warnings)
    (name,) = folder.segments
    alter(folder, name)
    pushed = push_all(make(range(5)), folder, warnings)
    assert (pushed.altered, pushed.rows) == (1, 5)
    assert warnings == [
        f"test://folder/{name} was altered, and this store lacks 10 of its rows: push again from "
        "a store that has them"
    ]
    assert fetched(fetcher(folder, []), range(5)) == [*range(5)]


def test_an_altered_object_is_removed_once_its_rows_are_elsewhere(make, folder, warnings):
    push_all(make(range(15)), folder, warnings)
    (name,) = folder.segments
    alter(folder, name)
    pushed = push_all(make(range(30)), folder, warnings)
    assert (pushed.altered, pushed.rows) == (1, 30)
    assert name not in folder.objects
    folder.read_whole.clear()
    assert push_all(make(range(30)), folder, warnings).bytes == 0
    assert not any(map(is_segment, folder.read_whole))
    assert fetched(fetcher(folder, warnings), range(30)) == [*range(30)]


@pytest.mark.parametrize("compress", [False, True])
def test_small_segments_are_sent_as_one(make, folder, warnings, tmp_path, compress):
    store = make(limit=None, compress=compress)
    for n in range(12):  # as workers of a cluster write them, a batch each
        fill(store, range(5 * n, 5 * n + 5))
        assert len(store.sealed()) == n + 1
    pushed = push_all(store, folder, warnings)
    assert (pushed.rows, pushed.segments) == (60, 1)
    assert fetched(fetcher(folder, warnings), range(60)) == [*range(60)]
    assert push_all(store, folder, warnings).bytes == 0
    for name in folder.catalogues:
        folder.remove(name)
    found = push_all(store, folder, warnings)  # by what is at its end
    assert (found.rows, found.segments, found.resumed) == (60, 0, 1)
    alter(folder, folder.segments[0])
    mended = push_all(store, folder, warnings)
    assert (mended.altered, mended.segments) == (1, 1)
    assert fetched(fetcher(folder, warnings), range(60)) == [*range(60)]
    for name, data in folder.objects.items():
        path = tmp_path / "zarr" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    if not compress:
        (array,) = (
            a for _, a in zarr.open_group(tmp_path / "zarr" / SPEC.folder, mode="r").arrays()
        )
        assert sorted(map(tuple, array[:])) == sorted(tuple(row_of(SPEC, n)) for n in range(60))


def test_the_same_content_under_another_tag_is_read_once(make, folder, warnings, monkeypatch):
    store = make(range(15))
    push_all(store, folder, warnings)
    listed = folder.list
    monkeypatch.setattr(
        folder,
        "list",
        lambda prefix="": {
            name: Listed(one.size, f"other {one.tag}") for name, one in listed(prefix).items()
        },
    )
    folder.read_whole.clear()
    first = push_all(store, folder, warnings)
    assert (first.altered, first.rows, first.segments) == (0, 0, 0)
    assert list(map(is_segment, folder.read_whole)).count(True) == 1
    folder.read_whole.clear()
    assert push_all(store, folder, warnings).bytes == 0
    assert not any(map(is_segment, folder.read_whole))


def test_a_storage_that_tells_nothing_is_read_on_demand(make, folder, warnings):
    folder.tags = False
    store = make(range(50))
    push_all(store, folder, warnings)
    alter(folder, folder.segments[0])
    assert push_all(store, folder, warnings).altered == 0
    pushed = push_all(store, folder, warnings, verify=True)
    assert (pushed.altered, pushed.segments) == (1, 1)
    assert push_all(store, folder, warnings, verify=True).altered == 0
    assert fetched(fetcher(folder, warnings), range(50)) == [*range(50)]


def test_an_uncatalogued_object_that_was_altered_is_left_out(make, folder, warnings):
    store = make(range(15))
    push_all(store, folder, warnings)
    for name in folder.catalogues:
        folder.remove(name)
    alter(folder, folder.segments[0])
    pushed = push_all(store, folder, warnings, verify=True)
    assert (pushed.altered, pushed.resumed, pushed.rows) == (1, 0, 15)
    assert fetched(fetcher(folder, warnings), range(15)) == [*range(15)]
