"""Pools of threads on systems that may refuse to start one."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import TypeVar

Result = TypeVar("Result")
Given = TypeVar("Given")


def _quietly(error: RuntimeError) -> None:
    """Do nothing (the default of `submit`'s `refused`)."""


def submit(
    pool: Executor,
    work: Callable[[Given], Result],
    given: Given,
    refused: Callable[[RuntimeError], None] = _quietly,
) -> Future[Result]:
    """Let a pool call ``work(given)``; without a thread for it, call it here before returning.

    `refused` is then told why the system starts no thread. If a pool has some of its threads, they
    may do the work a second time, and nobody takes that result.
    """
    try:
        return pool.submit(work, given)
    except RuntimeError as error:
        refused(error)
    done: Future[Result] = Future()
    try:
        done.set_result(work(given))
    except Exception as error:  # noqa: BLE001 - as a pool does: whoever takes the result gets it
        done.set_exception(error)
    return done
