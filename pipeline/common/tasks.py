"""The seam between the stages and what runs them: tasks, and the executor that carries them out.

A task is a module-level function of plain data. Here, an executor runs it at once in the calling
thread, and rows are handed over as they are; on a Dask cluster (or any other
`concurrent.futures.Executor` of processes) they are described by where they lie. A stage submits
its tasks to `completed` and does not know which it is.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain
from threading import local
from typing import Any, Generic, TypeVar

import torch

from ...cache.errors import LpipstoreError
from ...cache.located import Located, RowsLost
from .plane import Plane

_MOST_DEATHS = 20  # of workers under one task, after which it is given up
_MOST_MENDS = 3
_LOOK_S = 1.0  # how often to look after workers while no task ends

Label = TypeVar("Label")
Clock = Callable[[], AbstractContextManager[None]]
Mend = Callable[[RowsLost, Located], Located]
"""``mend(error, rows)`` makes the rows that a task did not find again; returns where they lie."""


class Here(Executor):
    """Runs what is submitted at once, in the calling thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401
        """Call ``fn`` before returning; an interrupt is raised, other errors are kept."""
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - as any executor does
            done.set_exception(error)
        return done


@dataclass(frozen=True)
class Crew:
    """An executor, and what stages have to know of it.

    Attributes
    ----------
    executor
        Carries out the tasks.
    elsewhere
        Whether that is in other processes, so that rows have to be described.
    workers
        Returns how many tasks run side by side.
    ahead
        Tasks submitted per worker: those that run, and those that wait.
    memory
        Bytes that one task may take, and the rows that its process keeps; None is for the caller
        to say.
    deaths
        Errors that mean that workers died under a task: it is submitted again.
    look
        Called now and then while no task ends; may raise `LpipstoreError`.
    moved
        Called with the bytes of each task that has ended elsewhere: of rows that it read or
        wrote, and of what it returned.
    plane
        How bytes reach workers that do not see the files of this process; None: all do.
    """

    executor: Executor = field(default_factory=Here)
    elsewhere: bool = False
    workers: Callable[[], int] = lambda: 1
    ahead: int = 1
    memory: int | None = None
    deaths: tuple[type[BaseException], ...] = ()
    look: Callable[[], None] = lambda: None
    moved: Callable[[int], None] = lambda count: None
    plane: Plane | None = None

    def within(self, room: int | None) -> "Crew":
        """Return the crew with at most `room` bytes for each task."""
        fitting = [memory for memory in (room, self.memory) if memory is not None]
        return replace(self, memory=min(fitting, default=None))

    def submit(self, function: Callable[..., Any], args: Sequence[Any]) -> Future[Any]:
        """Submit a task."""
        if self.elsewhere:
            return self.executor.submit(in_worker, self.memory, function, args)
        return self.executor.submit(function, *args)


HERE = Crew()
"""The crew of a process by itself."""


@dataclass(frozen=True)
class Task(Generic[Label]):
    """``function(*args)``, and a label by which the caller knows its result.

    `bytes` are those that travel with it or come back: all tasks under way have `Crew.memory` for
    them.
    """

    label: Label
    function: Callable[..., Any]
    args: Sequence[Any]
    bytes: int = 0


def completed(
    crew: Crew,
    tasks: Iterable[Task[Label]],
    clock: Clock = nullcontext,
    mend: Mend | None = None,
) -> Generator[tuple[Label, Any], None, None]:
    """Carry out tasks, a few per worker at a time; yield each label and result as it completes.

    Parameters
    ----------
    crew
        Carries them out. `HERE` does so one by one, in order, and takes the next task only when
        the last one and its arguments are let go.
    tasks
        Taken one by one, as workers have room.
    clock
        Runs while this waits for tasks, or works on them.
    mend
        Called for the `Located` arguments of a task that lost rows; then it is submitted again,
        three times at most.

    Raises
    ------
    LpipstoreError
        Workers died under the same task again and again, or the scheduler is gone.
    Exception
        What a task raised. Tasks that have not begun are cancelled.
    """
    waiting: dict[Future[Any], tuple[Task[Label], int, int]] = {}

    def begin(task: Task[Label], deaths: int = 0, mends: int = 0) -> None:
        with clock():
            waiting[crew.submit(task.function, task.args)] = task, deaths, mends

    def laden(more: int) -> bool:
        travelling = sum(task.bytes for task, _, _ in waiting.values()) + more
        return crew.memory is not None and travelling > crew.memory

    def finished() -> Iterator[tuple[Label, Any]]:
        with clock():
            done = _wait(crew, waiting)
        for future in done:
            task, deaths, mends = waiting.pop(future)
            label = task.label
            try:
                result = future.result()
            except RowsLost as lost:
                if mend is None or mends == _MOST_MENDS:
                    raise
                begin(_mended(task, lost, mend), deaths, mends + 1)
            except crew.deaths as death:
                if deaths >= _MOST_DEATHS:
                    raise LpipstoreError(
                        f"workers died {deaths + 1} times under the same task ({death}): give "
                        "them more memory; the same command goes on from what is finished"
                    ) from death
                begin(task, deaths + 1, mends)
            except CancelledError as error:
                raise LpipstoreError(
                    "the Dask scheduler is gone or has dropped its tasks: start it again and give "
                    "the same command, which goes on from what is finished"
                ) from error
            else:
                if crew.elsewhere:
                    crew.moved(_bytes_of([*task.args, result]))
                del task, future  # and with them the rows, before the next ones are loaded
                yield label, result

    try:
        for task in tasks:
            while waiting and laden(task.bytes):
                yield from finished()
            begin(task)
            del task
            while len(waiting) >= max(1, crew.workers() * crew.ahead):
                yield from finished()
        while waiting:
            yield from finished()
    finally:
        for future in waiting:
            future.cancel()


def _wait(crew: Crew, waiting: Iterable[Future[Any]]) -> list[Future[Any]]:
    """Return futures that are done, at least one."""
    while True:
        done = wait(waiting, _LOOK_S if crew.elsewhere else None, FIRST_COMPLETED).done
        if done:
            return list(done)
        crew.look()


def _bytes_of(values: Iterable[Any]) -> int:
    """Return the bytes of what a task took or returned, as far as its parts tell."""
    parts = chain.from_iterable(v if isinstance(v, list) else [v] for v in values)
    return sum(getattr(part, "nbytes", 0) for part in parts)


def _mended(task: Task[Label], lost: RowsLost, mend: Mend) -> Task[Label]:
    args = [mend(lost, value) if isinstance(value, Located) else value for value in task.args]
    return Task(task.label, task.function, args, task.bytes)


_here = local()  # one of each thread of a worker


def in_worker(memory: int | None, function: Callable[..., Any], args: Sequence[Any]) -> Any:  # noqa: ANN401
    """Carry out a task in a worker: on one thread, within the memory of a task."""
    _here.memory = memory
    with threads(1):
        return function(*args)


def memory_of_task(default: int) -> int:
    """Return the bytes that the task of this thread may take."""
    return getattr(_here, "memory", None) or default


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads in this thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
