"""Rows that a worker keeps: read once, and never more of them than its memory allows."""

import numpy as np
import pytest

from lpipstore.cache.located import Located
from lpipstore.pipeline.features.kept import KeptRows, forget_rows, rows_at


@pytest.fixture
def reads(monkeypatch):
    """How often rows were read from the disk."""
    seen, read = [], Located.read_into

    def counting(where, *into):
        seen.append(len(where))
        read(where, *into)

    monkeypatch.setattr(Located, "read_into", counting)
    return seen


def test_rows_are_read_once_while_there_is_room(shelve, reads):
    shelf = shelve(30)
    kept, where = KeptRows(), shelf.features.locate(shelf.contents)
    parts = [where[:10], where[10:20], where[20:]]
    room = 2 * parts[0].nbytes
    for part, rows in zip(parts[:2], (shelf.rows[:10], shelf.rows[10:20]), strict=True):
        np.testing.assert_array_equal(kept.get(part, room), rows)
    same = shelf.features.locate(shelf.contents[:10])  # described anew
    assert kept.get(same, room) is kept.get(parts[0], room)
    assert reads == [10, 10]
    kept.get(parts[2], room)  # for which the second part leaves, used longest ago
    kept.get(parts[0], room)
    assert reads == [10, 10, 10]
    kept.get(parts[1], room)
    assert reads == [10, 10, 10, 10]


def test_a_row_that_another_set_has_is_not_read_again(shelve, reads):
    shelf = shelve(30)
    kept, where = KeptRows(), shelf.features.locate(shelf.contents)
    room = 3 * where.nbytes
    kept.get(where[:10], room)
    order = np.array([12, 3, 3, 9, 11])
    np.testing.assert_array_equal(kept.get(where[order], room), shelf.rows[order])
    np.testing.assert_array_equal(kept.get(where[2:13], room), shelf.rows[2:13])
    np.testing.assert_array_equal(kept.get(where[4:8], room), shelf.rows[4:8])
    assert reads == [10, 2, 1]


def test_more_rows_than_there_is_room_are_kept_alone(shelve, reads):
    shelf = shelve(30)
    kept, where = KeptRows(), shelf.features.locate(shelf.contents)
    for _ in range(2):
        np.testing.assert_array_equal(kept.get(where, 1), shelf.rows)
    kept.clear()
    kept.get(where, 1)
    assert reads == [30, 30]


def test_a_process_lets_go_of_its_rows_when_told(shelve, reads):
    shelf = shelve(12)
    where = shelf.features.locate(shelf.contents)
    for _ in range(2):
        rows_at(where)
    forget_rows()
    rows_at(where)
    forget_rows()
    assert reads == [12, 12]
