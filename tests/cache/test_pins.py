import os
import signal
import sqlite3

import pytest

from lpipstore.cache import pins
from lpipstore.cache.store import FeatureStore

LIMIT = 2 << 20


@pytest.fixture
def small(tmp_path):
    with FeatureStore(tmp_path / "store", limit=LIMIT) as opened:
        yield opened


def fill(store, made, start=10_000, rows=1000):
    """Put more rows than the store has room for."""
    return sum(made.put(store, range(n, n + 50)) for n in range(start, start + rows, 50))


def test_pinned_rows_stay_until_they_are_released(small, made):
    made.put(small, range(100))
    with small.pin("run", made.keys(range(100))):
        fill(small, made)
        assert made.held(small, range(100)) == list(range(100))
        assert small.stat().pinned_segments == 4
    assert small.stat().pinned_segments == 0
    fill(small, made, 20_000)
    assert made.held(small, range(100)) == []


def test_rows_put_later_are_pinned_too(small, made):
    with small.pin("run", made.keys(range(100))):
        made.put(small, range(100))
        fill(small, made)
        assert made.held(small, range(100)) == list(range(100))


def test_what_the_run_no_longer_needs_may_leave(small, made):
    made.put(small, range(128))
    pin = small.pin("run", made.keys(range(128)))
    pin.release(made.keys(range(64)))
    fill(small, made)
    assert made.held(small, range(128)) == list(range(64, 128))
    pin.release()
    pin.release()
    assert small.stat().pinned_segments == 0


def test_when_all_is_pinned_the_store_admits_no_more(small, made, du):
    with small.pin("run", made.keys(range(1000))):
        admitted = made.put(small, range(1000))
        assert 300 < admitted < 1000
        assert made.put(small, range(2000, 2010)) <= 10
        assert du(small.path) <= LIMIT
        assert made.held(small, range(1000)) == list(range(admitted))
    assert made.put(small, range(2000, 2100)) == 100


def test_eviction_and_clearing_leave_pins_alone(small, made):
    made.put(small, range(100))
    with small.pin("run", [made.key(0)]):
        small.evict(0)
        cleared = small.clear()
        assert cleared.kept_segments == 1
        assert made.held(small, range(100)) == list(range(32))


def in_child(action):
    """Run `action` in a forked process and return its number and how it ended."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return child, os.waitpid(child, 0)[1]


def test_a_pin_ends_with_its_process(small, made):
    made.put(small, range(100))

    def pin_and_die():
        store = FeatureStore(small.path, limit=LIMIT)
        store.pin("run", made.keys(range(100)))
        os.kill(os.getpid(), signal.SIGKILL)

    assert os.WTERMSIG(in_child(pin_and_die)[1]) == signal.SIGKILL
    assert small.stat().pinned_segments == 4
    fill(small, made)
    assert small.stat().pinned_segments == 0
    assert made.held(small, range(100)) == []


def test_a_number_taken_again_by_another_process_keeps_nothing(small, made):
    made.put(small, range(100))
    pin = small.pin("run", made.keys(range(100)))
    change(small, "UPDATE leases SET started = '1'")
    fill(small, made)
    assert made.held(small, range(100)) == []
    pin.release()


@pytest.mark.parametrize(("age", "stays"), [(0, True), (pins.LEASE_S + 1, False)])
def test_a_lease_of_another_process_space_lasts_as_long_as_it_is_renewed(small, made, age, stays):
    made.put(small, range(100))
    small.pin("run", made.keys(range(100)))
    change(small, f"UPDATE leases SET space = 'elsewhere', beat = beat - {age}")
    fill(small, made)
    assert bool(made.held(small, range(100))) == stays


def test_a_lease_is_renewed_while_the_run_works(small, made, monkeypatch):
    made.put(small, range(10))
    with small.pin("run", made.keys(range(10))) as pin:
        change(small, "UPDATE leases SET beat = 1")
        pin._renewed -= pins.LEASE_S
        made.put(small, range(10, 20))
        with sqlite3.connect(small.path / "index.sqlite") as connection:
            beat = connection.execute("SELECT beat FROM leases").fetchone()[0]
        connection.close()
        assert beat > 1


def test_a_forked_child_leaves_its_parents_pin_alone(small, made):
    made.put(small, range(10))
    with small.pin("run", made.keys(range(10))) as pin:
        assert in_child(pin.release)[1] == 0
        assert small.stat().pinned_segments == 1


def change(store, statement):
    connection = sqlite3.connect(store.path / "index.sqlite")
    with connection:
        connection.execute(statement)
    connection.close()


def test_a_run_that_was_taken_for_gone_pins_anew(small, made):
    made.put(small, range(100))
    with small.pin("run", made.keys(range(100))) as pin:
        change(small, "UPDATE leases SET space = 'elsewhere', beat = 1")
        with FeatureStore(small.path, limit=LIMIT) as other:
            fill(other, made)
        assert small.stat().pinned_segments == 0
        pin._renewed -= pins.LEASE_S  # it was stopped for so long
        made.put(small, range(100))
        fill(small, made, 20_000)
        assert made.held(small, range(100)) == list(range(100))
    assert small.stat().pinned_segments == 0


def test_pins_without_a_lease_keep_nothing(small, made):
    made.put(small, range(100))
    small.pin("run", made.keys(range(100)))
    change(small, "DELETE FROM leases")
    fill(small, made)
    assert small.stat().pinned_segments == 0 and made.held(small, range(100)) == []


def test_rows_are_pinned_though_the_first_put_of_them_failed(small, made, monkeypatch):
    with small.pin("run", made.keys(range(10))) as pin:
        keep = pin.keep

        def keep_and_fail(*arguments):
            keep(*arguments)
            raise RuntimeError("struck")

        with monkeypatch.context() as patched:
            patched.setattr(pin, "keep", keep_and_fail)
            with pytest.raises(RuntimeError, match="struck"):
                made.put(small, range(10))
        made.put(small, range(10))
        assert small.stat().pinned_segments == 1


def test_a_process_keeps_its_own_pins_where_nothing_tells_when_it_started(small, made, monkeypatch):
    """As on systems without ``/proc``."""
    monkeypatch.setattr(pins, "_started", lambda _: None)
    monkeypatch.setattr(pins, "_process_space", lambda: "unknown/1/2")
    made.put(small, range(100))
    with small.pin("run", made.keys(range(100))):
        small.evict(0)
        assert made.held(small, range(100)) == list(range(100))
    small.evict(0)
    assert made.held(small, range(100)) == []
