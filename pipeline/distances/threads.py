"""Arithmetic on two threads side by side, instead of splitting each operation across threads.

torch splits every single operation across its threads, which then wait for one another: if a core
is busy with something else, all of them wait, at every step, for the thread on that core. Two
threads of our own, each with half of the work, wait for each other once. On two cores each computes
on one core, and neither waits; on more, each has half of torch's threads.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")

THREADS = 2  # on every machine: the order of sums depends on it


def in_threads(work: Callable[[int], None], device: torch.device) -> None:
    """Call ``work(thread)`` for each thread, in parallel on a CPU.

    An exception in one thread is raised when the other has ended.
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
    """Call ``work(item)`` for each item, in parallel, with each call on one thread.

    There are as many threads as torch has here. For products: if several threads share a product,
    MKL splits its sums by their number.
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
    """Compute on one thread, for work whose steps are too short to split across threads.

    Threads that wait for one another at each step make a busy machine twenty times slower; and on
    one thread, sums have the same bits on every machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
