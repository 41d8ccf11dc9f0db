import numpy as np
import pytest
from hypothesis import given, settings
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


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_it_is_a_dict_of_the_last_places(data):
    keytable_limit = data.draw(st.sampled_from([1, 3, 4096]))
    before, keytable._FEWEST_RECENT = keytable._FEWEST_RECENT, keytable_limit
    try:
        table, model = KeyTable(), {}
        for segment in range(1, data.draw(st.integers(1, 12)) + 1):
            keys = data.draw(st.lists(KEYS, max_size=6))
            checks = [segment * 100 + at for at in range(len(keys))]
            if data.draw(st.booleans()):
                table.add(segment, 5, records(keys, checks))
            else:
                table.add_all([(segment, 5, records(keys, checks))])
            for at, key in enumerate(keys):
                model[key] = (place_of(segment, 5 + at), checks[at])
            gone = data.draw(st.sets(st.integers(1, 12), max_size=2))
            table.discard_segments(gone)
            model = {k: v for k, v in model.items() if segment_of(v[0]) not in gone}
            lost = {v[0] for v in list(model.values())[:1]} if data.draw(st.booleans()) else set()
            table.discard_places(lost)
            model = {k: v for k, v in model.items() if v[0] not in lost}
            asked = [*model, *data.draw(st.lists(KEYS, max_size=3))]
            places, found = table.find(asked)
            expected = [model.get(key, (-1, None)) for key in asked]
            assert places.tolist() == [place for place, _ in expected]
            assert [c for c, p in zip(found.tolist(), places, strict=True) if p >= 0] == [
                check for _, check in expected if check is not None
            ]
    finally:
        keytable._FEWEST_RECENT = before


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
