"""Rows by plan: what a step needs is there, and nothing else beside what comes next."""

import threading

import pytest
import torch

from lpipstore.pipeline.features.held import HeldRows


class Loader:
    """Makes rows of parts, and remembers what was held when each was loaded."""

    def __init__(self):
        self.loaded, self.held = [], []
        self.rows = None

    def load(self, part):
        self.loaded.append(part)
        self.held.append(set(self.rows._held))
        return torch.full((2,), part)


@pytest.mark.parametrize("ahead", [False, True])
def test_rows_are_loaded_once_while_they_are_needed_and_let_go_before_others_come(ahead):
    loader = Loader()
    rows = loader.rows = HeldRows(loader.load, (lambda _: True) if ahead else None)
    steps = [(1, 1), (0, 1), (2, 1), (2, 3), (0, 3)]
    with rows.reading():
        for step, soon in zip(steps, [*steps[1:], ()], strict=True):
            assert [int(part[0]) for part in rows.get(step, soon)] == list(step)
            assert rows._held.keys() == set(step)
    assert loader.loaded == [1, 0, 2, 3, 0]
    if not ahead:
        assert loader.held == [set(), {1}, {1}, {2}, {3}]


def test_what_would_take_a_forward_is_not_read_ahead():
    loader = Loader()
    rows = loader.rows = HeldRows(loader.load, lambda part: part != 5)
    with rows.reading():
        rows.get([1], [5])
        assert loader.loaded == [1]
        rows.get([5], [])
    assert loader.loaded == [1, 5]


def test_an_error_of_what_was_read_ahead_comes_up_when_it_is_needed():
    def load(part):
        if part == 2:
            raise MemoryError("no room")
        return torch.zeros(1)

    rows = HeldRows(load, lambda _: True)
    with rows.reading():
        rows.get([1], [2])
        with pytest.raises(MemoryError, match="no room"):
            rows.get([2])


def test_where_no_thread_can_be_started_rows_are_read_here(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    loader = Loader()
    rows = loader.rows = HeldRows(loader.load, lambda _: True)
    with rows.reading():
        rows.get([1], [2])
        assert loader.loaded == [1, 2]
        assert int(rows.get([2])[0][0]) == 2
    assert loader.loaded == [1, 2]
