"""Several GPUs of this machine: one process for each, which makes rows and scores tiles there."""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue

from ...cache.errors import LpipstoreError
from ...pipeline.common.device import stand_in
from ...pipeline.common.tasks import Crew
from .own_workers import ignore_interrupts

_AHEAD = 2  # tasks in flight for each process: one runs, one waits


@contextmanager
def open_gpus(devices: Sequence[str], memory: int) -> Iterator[Crew]:
    """Return a crew with a process for each device, which ends with the ``with`` block.

    Parameters
    ----------
    devices
        As torch names them, such as ``cuda:0``.
    memory
        Bytes of this machine for the rows of all processes.

    Raises
    ------
    LpipstoreError
        A process ended under its work.
    """
    count, spawn = len(devices), multiprocessing.get_context("spawn")
    left: SimpleQueue[str] = spawn.SimpleQueue()
    for device in devices:
        left.put(device)
    try:
        with ProcessPoolExecutor(count, spawn, _take_device, (left,)) as executor:
            yield Crew(
                executor,
                elsewhere=True,
                workers=lambda: count,
                ahead=_AHEAD,
                memory=memory // count,
            )
    except BrokenProcessPool as error:
        raise LpipstoreError(
            f"a process of {', '.join(devices)} ended under its work, perhaps for lack of memory: "
            "the same command goes on from what is finished"
        ) from error


def _take_device(left: "SimpleQueue[str]") -> None:
    """Compute on a device that no other process has taken, whatever a task names."""
    ignore_interrupts()
    stand_in(left.get())
