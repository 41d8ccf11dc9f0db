"""Arithmetic on two threads side by side, instead of threads that share each operation.

torch shares every single operation among its threads, which wait for one another after it: where a
core is busy with something else, all of them wait, at every step, for the one that has to share
that core. Two threads of ours that each do a whole share of the work meet once. On two cores each
computes on one core, and nobody waits; on more, each has half of torch's threads.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")

THREADS = 2  # whatever the machine has: sums are added up thread by thread


def in_threads(work: Callable[[int], None], device: torch.device) -> None:
    """Call ``work(thread)`` for each thread, side by side where the CPU does the work.

    Raises what a thread raises, when the other has ended.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads < THREADS:
        for thread in range(THREADS):
            work(thread)
        return
    share = threads // THREADS
    torch.set_num_threads(share)
    try:
        with ThreadPoolExecutor(
            THREADS - 1, "lpipstore-thread", torch.set_num_threads, (share,)
        ) as others:
            running = [others.submit(work, thread) for thread in range(1, THREADS)]
            work(0)
        for other in running:
            other.result()
    finally:
        torch.set_num_threads(threads)


def spread(work: Callable[[T], None], items: Iterable[T], device: torch.device) -> None:
    """Call ``work(item)`` for each item, on one thread each, on as many as torch has here.

    For products: where several threads share one, MKL cuts its sums by their number.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(threads, "lpipstore-part", torch.set_num_threads, (1,)) as pool:
        for _ in pool.map(work, items):
            pass


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: for work in steps that are too short to be worth sharing.

    Threads that wait for one another in each of them make a busy machine twenty times slower; and
    on one thread sums are the same to the bit, whatever the machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
