"""Rows that travel between stores by way of a remote folder: what is sent, found, and lost."""

import threading

import numpy as np
import pytest
import zarr

from lpipstore.cache.errors import LpipstoreError
from lpipstore.cache.exchange import catalogue as catalogues
from lpipstore.cache.exchange import fetch as fetching
from lpipstore.cache.exchange import remote_segments
from lpipstore.cache.exchange.catalogue import need_catalogue, read_catalogue
from lpipstore.cache.exchange.folder import (
    RemoteError,
    is_segment,
)

from .remote import OTHER, SPEC, fetched, fetcher, fill, key_of, push_all, row_of


@pytest.mark.parametrize("compress", [False, True])
def test_rows_come_back_as_they_were(make, folder, warnings, compress):
    store = make(range(50), compress=compress)
    fill(store, range(30), OTHER)
    pushed = push_all(store, folder, warnings)
    assert (pushed.rows, pushed.there, pushed.corrupt, pushed.resumed) == (80, 0, 0, 0)
    assert pushed.segments == len(folder.segments) > 2
    assert folder.written[-1] in folder.catalogues  # it comes last
    remote = fetcher(folder, warnings)
    assert fetched(remote, range(60)) == [*range(50)]
    assert fetched(remote, range(30), OTHER) == [*range(30)]
    assert remote.rows == 80
    assert not warnings


def test_pushing_again_sends_nothing(make, folder, warnings):
    store = make(range(50))
    push_all(store, folder, warnings)
    written = len(folder.written)
    again = push_all(store, folder, warnings)
    assert (again.rows, again.bytes, again.there) == (0, 0, 50)
    assert len(folder.written) == written
    # Another store with the same rows, in other segments, has nothing to send either
    assert push_all(make(range(49, -1, -1)), folder, warnings).bytes == 0
    fill(store, range(50, 60))
    assert push_all(store, folder, warnings).rows == 10
    assert fetched(fetcher(folder, warnings), range(60)) == [*range(60)]


def test_only_the_pools_of_a_backbone(make, folder, warnings):
    store = make(range(5))
    fill(store, range(5), OTHER)
    assert push_all(store, folder, warnings, {"backbone": "squeeze"}).rows == 5
    remote = fetcher(folder, warnings)
    assert fetched(remote, range(5)) == []
    assert fetched(remote, range(5), OTHER) == [*range(5)]


def test_each_segment_is_a_zarr_array(make, folder, warnings, tmp_path):
    push_all(make(range(50)), folder, warnings)
    for name, data in folder.objects.items():
        path = tmp_path / "zarr" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    pool = zarr.open_group(tmp_path / "zarr" / SPEC.folder, mode="r")
    rows = np.concatenate([array[:] for _, array in pool.arrays()])
    assert sorted(map(tuple, rows)) == sorted(tuple(row_of(SPEC, n)) for n in range(50))
    assert dict(pool.attrs)["lpipstore"]["recipe"] == SPEC.recipe


def test_neighbouring_rows_come_in_one_request(make, folder, warnings, monkeypatch):
    push_all(make(range(300), limit=None), folder, warnings)
    assert fetched(fetcher(folder, warnings), range(100, 200)) == [*range(100, 200)]
    assert len(folder.asked) == 1
    folder.asked.clear()
    monkeypatch.setattr(fetching, "_GAP", 6100)  # one row
    assert fetched(fetcher(folder, warnings), [10, 11, 13, 16, 17]) == [10, 11, 13, 16, 17]
    assert sorted(size for _, _, size in folder.asked) == [2 * 6004 - 4, 4 * 6004 - 4]
    folder.asked.clear()
    monkeypatch.setattr(fetching, "_MOST_BYTES", 60_040)  # ten rows
    assert fetched(fetcher(folder, warnings), range(300)) == [*range(300)]
    assert len(folder.asked) == 30


def test_a_push_that_failed_goes_on(make, folder, warnings):
    store = make(range(100))

    def fail(what):
        if what == "write" and len(folder.segments) == 3:
            raise RemoteError("the line was cut")

    folder.before = fail
    with pytest.raises(RemoteError, match="cut"):
        push_all(store, folder, warnings)
    assert not folder.catalogues  # a reader sees nothing of it
    sent = folder.segments
    folder.before = lambda what: None
    written = len(folder.written)
    pushed = push_all(store, folder, warnings)
    assert pushed.resumed == len(sent) >= 3
    assert pushed.rows == 100
    assert not set(sent) & set(folder.written[written:])
    assert fetched(fetcher(folder, warnings), range(100)) == [*range(100)]


def test_an_object_that_does_not_arrive_whole(make, folder, warnings):
    def cut(name, data):
        folder.objects[name] = data[:-1] if is_segment(name) else data

    write, folder.write = folder.write, cut
    store = make(range(10))
    with pytest.raises(RemoteError, match="bytes after it was written"):
        push_all(store, folder, warnings)
    folder.write = write
    assert push_all(store, folder, warnings).rows == 10


def test_a_catalogue_that_was_removed_is_made_again(make, folder, warnings):
    store = make(range(50))
    push_all(store, folder, warnings)
    for name in folder.catalogues:
        del folder.objects[name]
    with pytest.raises(LpipstoreError, match="there is no catalogue of rows in test://folder"):
        need_catalogue(folder, read_catalogue(folder, warnings.append))
    pushed = push_all(store, folder, warnings)
    assert pushed.resumed == len(folder.segments)
    assert pushed.segments == 0
    assert fetched(fetcher(folder, warnings), range(50)) == [*range(50)]


def test_whoever_pushes_enters_what_others_have_left(make, folder, warnings):
    push_all(make(range(50), compress=True), folder, warnings)
    for name in folder.catalogues:
        del folder.objects[name]
    cut = folder.segments[1]
    folder.objects[cut] = folder.objects[cut][:-1]
    pushed = push_all(make([100]), folder, warnings)
    assert (pushed.resumed, pushed.segments) == (len(folder.segments) - 2, 1)
    came = fetched(fetcher(folder, warnings), range(101))
    assert 20 < len(came) == pushed.rows < 51
    assert 100 in came
    assert push_all(make([100]), folder, warnings).bytes == 0


@pytest.mark.parametrize("damage", ["truncated", "altered", "emptied", "removed"])
def test_damaged_objects_are_named_and_their_rows_missing(make, folder, warnings, damage):
    store = make(range(50))
    push_all(store, folder, warnings)
    name = folder.segments[0]
    data = folder.objects[name]
    keep = {"truncated": data[:20_000], "altered": data[:100] + b"?" + data[101:], "emptied": b""}
    if damage in keep:
        folder.objects[name] = keep[damage]
    else:
        del folder.objects[name]
    remote = fetcher(folder, warnings)
    came = fetched(remote, range(50))
    lost = 50 - len(came)
    assert (lost == 1) if damage == "altered" else (lost > 1)
    assert remote.damaged == {f"test://folder/{name}": lost}
    assert [line.partition(" is ")[0] for line in warnings] == [f"test://folder/{name}"]
    assert len(remote.missing([key_of(SPEC, n) for n in range(50)])) == lost
    folder.asked.clear()
    assert fetched(remote, set(range(50)) - set(came)) == []
    assert not folder.asked  # what is damaged is not asked for again
    folder.objects.pop(name, None)  # what the warning says
    assert push_all(store, folder, warnings).bytes > len(data)
    assert fetched(fetcher(folder, warnings), range(50)) == [*range(50)]


def test_truncated_objects_are_sent_again(make, folder, warnings):
    store = make(range(50))
    push_all(store, folder, warnings)
    name = folder.segments[0]
    folder.objects[name] = folder.objects[name][:500]
    assert push_all(store, folder, warnings).segments == 1
    assert fetched(fetcher(folder, warnings), range(50)) == [*range(50)]


def test_a_damaged_catalogue_is_named_and_left_out(make, folder, warnings):
    store = make(range(20))
    push_all(store, folder, warnings)
    fill(store, range(20, 40))
    push_all(store, folder, warnings)
    name = folder.catalogues[0]
    folder.objects[name] = folder.objects[name][:-10]
    assert len(fetched(fetcher(folder, warnings), range(40))) == 20
    assert [line.partition(" is ")[0] for line in warnings] == [f"test://folder/{name}"]
    assert push_all(store, folder, warnings).rows == 20
    assert fetched(fetcher(folder, warnings), range(40)) == [*range(40)]


def test_a_catalogue_of_another_format_is_refused(make, folder, warnings, monkeypatch):
    monkeypatch.setattr(remote_segments, "FORMAT_VERSION", 2)
    push_all(make(range(5)), folder, warnings)
    monkeypatch.undo()
    with pytest.raises(RemoteError, match="has format 2, and this lpipstore reads format 1"):
        read_catalogue(folder, warnings.append)


def test_rows_damaged_in_the_store_are_not_pushed(make, folder, warnings):
    store = make(range(10))
    (segment,) = store.sealed()
    path = store.path / "pools" / segment.key
    data = bytearray(path.read_bytes())
    data[segment.contents.starts[4] + 9] ^= 1
    path.write_bytes(data)
    pushed = push_all(store, folder, warnings)
    assert (pushed.rows, pushed.corrupt) == (9, 1)
    assert fetched(fetcher(folder, warnings), range(10)) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert push_all(store, folder, warnings).bytes == 0
    assert push_all(make([4]), folder, warnings).rows == 1
    assert fetched(fetcher(folder, warnings), range(10)) == [*range(10)]


def test_what_was_used_last_comes_first(make, folder, warnings):
    store = make(range(60))
    push_all(store, folder, warnings, {"backbone": "none"})
    store.get(key_of(SPEC, 25))
    push_all(store, folder, warnings)
    fill(store, range(60, 65))
    push_all(store, folder, warnings)
    listed = read_catalogue(folder, warnings.append).segments
    have = [{bytes(r[["hi", "lo"]].tobytes()[:16]) for r in s.records} for s in listed]
    assert key_of(SPEC, 60) in have[0]  # pushed last
    assert key_of(SPEC, 25) in have[1]


def test_many_catalogues_become_one(make, folder, warnings, monkeypatch):
    monkeypatch.setattr(catalogues, "MOST_CATALOGUES", 3)
    store, counts = make(), []
    for n in range(10):
        fill(store, [n])
        push_all(store, folder, warnings)
        counts.append(len(folder.catalogues))
    assert counts == [1, 2, 3, 1, 2, 3, 1, 2, 3, 1]
    assert fetched(fetcher(folder, warnings), range(10)) == [*range(10)]


def test_two_pushes_lose_nothing_at_whatever_moment_they_meet(make, folder, warnings, monkeypatch):
    """Before request number k of one push, another one happens; for every k, with merging."""
    monkeypatch.setattr(catalogues, "MOST_CATALOGUES", 2)
    first, second, number = make(), make(), 0
    expected = []
    for moment in range(200):
        fill(first, [number])
        fill(second, [number + 1])
        expected += [number, number + 1]
        number += 2
        count = 0

        def meet(what, moment=moment):
            nonlocal count
            count += 1
            if count == moment + 1:
                push_all(second, folder, warnings)

        folder.before = meet
        push_all(first, folder, warnings)
        folder.before = lambda what: None
        if count <= moment:
            break
        assert fetched(fetcher(folder, warnings), expected) == expected
    assert moment >= 8
    assert not warnings


def test_a_reader_meets_a_merge(make, folder, warnings, monkeypatch):
    monkeypatch.setattr(catalogues, "MOST_CATALOGUES", 2)
    store = make()
    for n in range(2):
        fill(store, [n])
        push_all(store, folder, warnings)
    fill(store, [2])
    once = []

    def merge(what):
        if what == "read" and not once:
            once.append(what)
            push_all(store, folder, warnings)

    folder.before = merge
    assert fetched(fetcher(folder, warnings), range(3)) == [0, 1, 2]
    assert len(folder.catalogues) == 1


def test_pushes_in_threads(make, folder, warnings, monkeypatch):
    monkeypatch.setattr(catalogues, "MOST_CATALOGUES", 2)
    stores = [make(range(40 * n, 40 * n + 60)) for n in range(4)]
    together = threading.Barrier(4)
    failures = []

    def run(store):
        together.wait()
        try:
            push_all(store, folder, warnings)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert fetched(fetcher(folder, warnings), range(180)) == [*range(180)]
