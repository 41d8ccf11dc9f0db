"""Tasks of a crew: a few at a time, again when workers die or rows are lost, never in silence."""

import weakref
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

import pytest
import torch

from lpipstore.cache.errors import LpipstoreError
from lpipstore.cache.store import RowsLost
from lpipstore.pipeline.common.tasks import (
    HERE,
    Crew,
    Here,
    Task,
    completed,
    memory_of_task,
    threads,
)


class Later(Executor):
    """Keeps what is submitted until somebody waits, then ends the last one first."""

    def __init__(self):
        self.begun, self.most, self.calls = [], 0, 0

    def submit(self, fn, /, *args):
        future = Future()
        self.begun.append((future, fn, args))
        self.calls += 1
        self.most = max(self.most, len(self.begun))
        return future

    def work(self):
        future, fn, args = self.begun.pop()
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(fn(*args))
        except Exception as error:
            future.set_exception(error)


@pytest.fixture
def later(monkeypatch):
    from lpipstore.pipeline.common import tasks

    executor, wait = Later(), tasks.wait

    def working(futures, *args):
        executor.work()
        return wait(futures, *args)

    monkeypatch.setattr(tasks, "wait", working)
    return executor


def square(x):
    return x * x


def test_here_tasks_run_one_by_one_in_order():
    tasks = (Task(n, square, (n,)) for n in range(5))
    assert list(completed(HERE, tasks)) == [(n, n * n) for n in range(5)]


def test_here_the_arguments_of_a_task_are_let_go_before_the_next_is_made():
    alive = []

    def tasks():
        for n in range(4):
            assert all(ref() is None for ref in alive)
            rows = torch.zeros(10)
            alive.append(weakref.ref(rows))
            yield Task(n, torch.sum, (rows,))
            del rows

    for _, result in completed(HERE, tasks()):
        assert result == 0
        del result
    assert len(alive) == 4


def test_here_an_interrupt_is_raised_at_once_and_errors_by_the_future():
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Here().submit(stop)
    assert isinstance(Here().submit(square, None).exception(), TypeError)


def test_elsewhere_a_few_tasks_per_worker_are_under_way(later):
    crew = Crew(later, elsewhere=True, workers=lambda: 2, ahead=3)
    found = dict(completed(crew, (Task(n, square, (n,)) for n in range(20))))
    assert found == {n: n * n for n in range(20)}
    assert later.most == 6


def test_elsewhere_bytes_under_way_have_the_memory_of_a_task(later):
    crew = Crew(later, elsewhere=True, workers=lambda: 2, ahead=3, memory=100)
    tasks = (Task(n, square, (n,), 1000 if n == 7 else 40) for n in range(20))
    found = dict(completed(crew, tasks))
    assert found == {n: n * n for n in range(20)}
    assert later.most == 2


def test_a_task_whose_worker_died_is_submitted_again(later):
    deaths = [BrokenProcessPool(), BrokenProcessPool()]

    def fragile(x):
        if x == 3 and deaths:
            raise deaths.pop()
        return x

    crew = Crew(later, elsewhere=True, deaths=(BrokenProcessPool,), ahead=4)
    found = dict(completed(crew, (Task(n, fragile, (n,)) for n in range(6))))
    assert found == {n: n for n in range(6)}
    assert later.calls == 8


def test_a_task_that_kills_every_worker_is_given_up(later):
    def deadly():
        raise BrokenProcessPool("gone")

    crew = Crew(later, elsewhere=True, deaths=(BrokenProcessPool,))
    with pytest.raises(LpipstoreError, match=r"workers died 21 times under the same task \(gone\)"):
        list(completed(crew, [Task(0, deadly, ())]))


def test_an_error_of_a_task_is_raised_and_the_others_are_cancelled(later):
    def wrong(x):
        raise ValueError(x)

    crew = Crew(later, elsewhere=True, ahead=3)
    with pytest.raises(ValueError, match="2"):
        list(completed(crew, (Task(n, wrong, (n,)) for n in range(9))))
    assert [future.cancelled() for future, *_ in later.begun] == [True, True]


def test_a_scheduler_that_drops_tasks_is_named(later):
    crew = Crew(later, elsewhere=True, ahead=2)
    found = completed(crew, (Task(n, square, (n,)) for n in range(9)))
    next(found)
    for future, *_ in later.begun:
        future.cancel()
        future.set_running_or_notify_cancel()
    later.begun.append((Future(), square, (1,)))
    with pytest.raises(LpipstoreError, match="the Dask scheduler is gone or has dropped its tasks"):
        list(found)


def test_lost_rows_are_mended_three_times_at_most(tmp_path, later, make_located):
    where = make_located(5)
    seen = []

    def read(rows):
        seen.append(rows)
        if len(seen) < 3:
            raise RowsLost("gone", rows.keys[:1])
        return len(rows)

    mended = []

    def mend(lost, rows):
        mended.append(lost.keys)
        return rows[:]

    crew = Crew(later, elsewhere=True)
    assert list(completed(crew, [Task("a", read, (where,))], mend=mend)) == [("a", 5)]
    assert mended == [where.keys[:1]] * 2

    def never(rows):
        raise RowsLost("gone for good", rows.keys)

    with pytest.raises(RowsLost, match="gone for good"):
        list(completed(crew, [Task("a", never, (where,))], mend=mend))
    assert len(mended) == 5


@pytest.fixture
def make_located(shelve):
    def make(count):
        shelf = shelve(20)
        return shelf.features.locate(shelf.contents[:count])

    return make


def test_in_a_worker_a_task_has_one_thread_and_its_memory():
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        crew = Crew(pool, elsewhere=True, memory=123)
        asked = [Task("threads", torch.get_num_threads, ()), Task("memory", memory_of_task, (7,))]
        assert dict(completed(crew, asked)) == {"threads": 1, "memory": 123}
    assert memory_of_task(7) == 7


def test_threads_are_restored_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="x"), threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise ValueError("x")
    assert torch.get_num_threads() == before


def test_while_no_task_ends_workers_are_looked_after(monkeypatch):
    from lpipstore.pipeline.common import tasks

    monkeypatch.setattr(tasks, "_LOOK_S", 0.01)

    class Never(Executor):
        def submit(self, fn, /, *args):
            return Future()

    def look():
        raise LpipstoreError("nobody is there")

    with pytest.raises(LpipstoreError, match="nobody is there"):
        list(completed(Crew(Never(), elsewhere=True, look=look), [Task(0, square, (1,))]))
