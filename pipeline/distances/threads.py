"""Two lanes of arithmetic side by side, each with half of torch's threads.

torch's threads share every single operation and wait for one another after it: where a core is busy
with something else, all of them wait, at every step, for the one that has to share that core. Two
lanes that each do a whole share of the work meet once. On two cores each lane is one thread, and
nobody waits.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")

LANES = 2  # fixed, whatever the machine: sums are added up by lanes


def in_lanes(work: Callable[[int], None], device: torch.device) -> None:
    """Call ``work(lane)`` for each lane, side by side where the CPU does the work.

    Raises what a lane raises, when the other has ended.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads < LANES:
        for lane in range(LANES):
            work(lane)
        return
    share = threads // LANES
    torch.set_num_threads(share)
    try:
        with ThreadPoolExecutor(
            LANES - 1, "lpipstore-lane", torch.set_num_threads, (share,)
        ) as others:
            running = [others.submit(work, lane) for lane in range(1, LANES)]
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
