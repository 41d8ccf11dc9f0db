"""The data plane of a Dask cluster: workers ask, this process answers, the scheduler relays.

A worker logs its question as an event, which the scheduler passes on; the answer is the argument of
a function that runs on that worker. So both sides have to reach the scheduler and nothing else, and
no answer lies anywhere on the way. The scheduler keeps the last thousand questions of a run, some
kB each. Futures and scattered data would lie in the memory of scheduler and workers, for all rows
that any task under way may need, and would be lost with the worker that has them.
"""

import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from ...cache.errors import LpipstoreError
from ...pipeline.common.plane import Answer, Plane, Words
from ...pipeline.features.far import ROWS, stored_rows
from ...pipeline.features.kept import forget_rows
from .probe import sees

_THREADS = 4  # answers under way, of some 16 MB each
_LOOK_S = 1.0  # how often a worker looks whether anybody still wants its task
_AGAIN = 15  # looks after which it asks once more
_PATIENCE = 12  # times
_MOST_OF_TASK = "1 TB"

_waiting: dict[str, Future[bytes]] = {}  # questions of the tasks of this worker


@dataclass(frozen=True)
class AskCoordinator:
    """Asks through the scheduler; a `lpipstore.pipeline.common.plane.Ask`."""

    topic: str

    def __call__(self, what: str, *words: Words) -> bytes:
        """Return the answer; see `lpipstore.pipeline.common.plane.Ask`."""
        from distributed import get_worker

        worker, number = get_worker(), f"{self.topic}/{uuid.uuid4().hex}"
        answer = _waiting[number] = Future()
        question = {"number": number, "worker": worker.address, "what": what, "words": words}
        try:
            for look in range(_PATIENCE * _AGAIN):
                if look % _AGAIN == 0:
                    worker.log_event(self.topic, question)
                with suppress(TimeoutError):
                    return answer.result(_LOOK_S)
                if not _wanted(worker):
                    break
        finally:
            del _waiting[number]
        raise LpipstoreError(
            f"the process that coordinates the run does not answer the worker {worker.address}: "
            "give the same command again, which goes on from what is finished"
        )


def _wanted(worker: Any) -> bool:  # noqa: ANN401
    """Return whether the task of this thread is still wanted; not if its coordinator was killed."""
    task = worker.state.tasks.get(worker.get_current_task())
    return task is not None and task.state != "cancelled"


def take_answer(number: str, answer: bytes | None, error: str | None) -> None:
    """Take, on a worker, what was asked for; nobody may be waiting for it any more."""
    waiting = _waiting.get(number)
    if waiting is None or waiting.done():
        return
    if answer is None:
        waiting.set_exception(LpipstoreError(error or "no answer"))
    else:
        waiting.set_result(answer)


async def leave(topic: str) -> None:
    """Let a worker, which goes on without us, stop waiting and free the memory of our rows."""
    for number in [number for number in list(_waiting) if number.startswith(topic)]:
        take_answer(number, None, "the run has ended")
    forget_rows()


class Answers:
    """Answers the questions of workers, in threads.

    Parameters
    ----------
    client
        Of the cluster.
    topic
        Of the events.
    """

    def __init__(self, client: Any, topic: str) -> None:  # noqa: ANN401
        self._client, self._topic = client, topic
        self._offered: dict[str, Answer] = {}
        self._pending: set[str] = set()
        self._lock = Lock()
        self._threads = ThreadPoolExecutor(_THREADS, "lpipstore-answers")

    def offer(self, what: str, answer: Answer) -> None:
        """Answer what is asked under a name; see `lpipstore.pipeline.common.plane.Plane`."""
        self._offered[what] = answer

    def hear(self, event: tuple[float, dict[str, Any]]) -> None:
        """Take a question, unless it is being answered already."""
        question = event[1]
        with self._lock:
            if question["number"] in self._pending:
                return
            self._pending.add(question["number"])
        with suppress(RuntimeError):  # closed meanwhile
            self._threads.submit(self._answer, **question)

    def _answer(self, number: str, worker: str, what: str, words: tuple[Words, ...]) -> None:
        answer, error = None, None
        try:
            answer = self._offered[what](*words)
        except Exception as problem:  # noqa: BLE001 - the task that asked raises it
            error = str(problem) or type(problem).__name__
        try:
            # A worker that is gone needs no answer, and whether the scheduler is, others notice
            with suppress(OSError, TimeoutError):
                self._client.run(
                    take_answer, number, answer, error, workers=[worker], on_error="ignore"
                )
        finally:
            with self._lock:
                self._pending.discard(number)

    def close(self) -> None:
        """Answer no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)


@contextmanager
def open_plane(
    client: Any,  # noqa: ANN401
    store: Path,
    *,
    rows: bool,
    tell: Callable[[str], None],
) -> Iterator[Plane]:
    """Open the way to the workers of a client; they are told at the end.

    Parameters
    ----------
    client
        Of the cluster.
    store
        Whose rows workers may ask for.
    rows
        As for `lpipstore.pipeline.common.plane.Plane`.
    tell
        Called with a line if images turn out to travel.
    """
    import dask

    def seen(names: Sequence[str]) -> bool:
        found = sees(client, names)
        if not found:
            tell("workers do not see the images: they travel through the Dask scheduler")
        return found

    topic = f"lpipstore-{uuid.uuid4().hex}"
    answers = Answers(client, topic)
    answers.offer(ROWS, partial(stored_rows, store))
    client.subscribe_topic(topic, answers.hear)
    try:
        # Dask warns of tasks of more than 10 MB; images make larger ones
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": _MOST_OF_TASK}):
            yield Plane(AskCoordinator(topic), answers.offer, rows, seen)
    finally:
        answers.close()
        with suppress(OSError, TimeoutError):  # the scheduler may be gone
            client.unsubscribe_topic(topic)
            client.run(leave, topic, on_error="ignore", wait=False)
