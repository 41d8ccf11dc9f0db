import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lpipstore.cache import keytable
from lpipstore.cache.keytable import KeyTable, place_of, segment_of, slot_of
from lpipstore.cache.segments import RECORD, split_keys

HALVES = st.sampled_from([b"\x00" * 8, b"\x01" + b"\x00" * 7, b"\xff" * 8])
KEYS = st.one_of(st.builds(bytes.__add__, HALVES, HALVES), st.binary(min_size=16, max_size=16))


def records(keys, check):
    made = np.empty(len(keys), RECORD)
    made["hi"], made["lo"] = split_keys(keys).T
    made["check"] = check
    return made


@given(data=st.data(), fewest=st.sampled_from([1, 3, 4096]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_key_is_where_it_was_put_last(data, fewest):
    before, keytable._FEWEST_RECENT = keytable._FEWEST_RECENT, fewest
    try:
        follow_history(data)
    finally:
        keytable._FEWEST_RECENT = before


def follow_history(data):
    table, history = KeyTable(), {}  # of each key: (place, check, discarded), the last one last
    for segment in range(1, data.draw(st.integers(1, 6)) + 1):
        keys = data.draw(st.lists(KEYS, max_size=4))
        made = records(keys, [segment * 100 + at for at in range(len(keys))])
        if data.draw(st.booleans()):
            table.add(segment, 5, made)
        else:
            table.add_all([(segment, 5, made)])
        for at, key in enumerate(keys):
            history.setdefault(key, []).append((place_of(segment, 5 + at), segment * 100 + at))
        gone = data.draw(st.sets(st.integers(1, 6), max_size=2))
        lost = data.draw(st.sets(st.sampled_from(places_in(history)), max_size=1))
        table.discard_segments(gone)
        table.discard_places(lost)
        for key, spots in history.items():
            history[key] = [
                (None, None)
                if place is None or segment_of(place) in gone or place in lost
                else (place, check)
                for place, check in spots
            ]
        asked = [*history, *data.draw(st.lists(KEYS, max_size=2))]
        for key, place, check in zip(asked, *map(list, table.find(asked)), strict=True):
            assert table.find_one(key)[0] == place
            spots = history.get(key, [(None, None)])
            if spots[-1][0] is not None:
                assert (place, check) == spots[-1]
            else:  # an older copy that is still there may be served, never one that is gone
                assert place == -1 or (place, check) in spots


def places_in(history):
    return [place for spots in history.values() for place, _ in spots if place is not None] or [0]


def test_places_hold_segment_and_slot():
    place = place_of(123_456, keytable.MOST_SLOTS - 1)
    assert (segment_of(place), slot_of(place)) == (123_456, keytable.MOST_SLOTS - 1)


@pytest.mark.parametrize("fewest", [1, 4096])
def test_many_rows_are_found(monkeypatch, fewest):
    monkeypatch.setattr(keytable, "_FEWEST_RECENT", fewest)
    rng = np.random.default_rng(1)
    keys = [rng.bytes(16) for _ in range(20_000)]
    table = KeyTable()
    for segment in range(20):
        part = keys[segment * 1000 : (segment + 1) * 1000]
        table.add(segment, 0, records(part, np.arange(1000) + segment))
    places, checks = table.find(keys)
    assert places.tolist() == [place_of(n // 1000, n % 1000) for n in range(20_000)]
    assert checks.tolist() == [n % 1000 + n // 1000 for n in range(20_000)]
    assert table.find([rng.bytes(16)])[0].tolist() == [-1]
