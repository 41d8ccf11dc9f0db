"""The stopwatch: whose time counts, and as what."""

import threading

import pytest

from lpipstore.pipeline.common import progress
from lpipstore.pipeline.common.progress import Stopwatch


@pytest.fixture
def now(monkeypatch):
    """A list with one number: the time in seconds, for the test to set."""
    time = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: time[0])
    return time


def test_a_stage_inside_another_counts_once(now):
    clock = Stopwatch("outer")
    with clock("outer"):
        now[0] += 1
        with clock("inner"):
            now[0] += 2
        now[0] += 4
    assert clock.seconds == {"outer": 5, "inner": 2}
    assert clock.total() == 7


def test_what_a_thread_does_aside_counts_only_as_the_waiting_of_another(now):
    clock = Stopwatch()

    def work():
        with clock.aside(), clock("write"):
            now[0] += 3
        with clock("after"):
            now[0] += 1

    with clock("wait"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert clock.seconds == {"after": 1, "wait": 4}
