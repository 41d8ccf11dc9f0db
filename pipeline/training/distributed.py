"""Train in several processes, started by torchrun; each takes a share of every step."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

import torch
from torch import distributed

from ...cache.errors import LpipstoreError, UsageError, setting

_PATIENCE = timedelta(hours=24)  # the first process may forward a whole collection meanwhile


@dataclass(frozen=True)
class Processes:
    """The rank of this process among those that train together; a single process is 0 of 1.

    `patient` is the process group with a long timeout, for waits during another's long work.
    """

    rank: int = 0
    world: int = 1
    patient: distributed.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def add(self, numbers: torch.Tensor) -> torch.Tensor:
        """Sum `numbers` over all processes, in place, and return them."""
        if self.world > 1:
            distributed.all_reduce(numbers)
        return numbers

    def wait(self) -> None:
        """Wait until all processes are here; the wait fails if one of them has ended."""
        if self.world > 1:
            distributed.barrier(self.patient)


def rank_here() -> int:
    """Return the rank of this process, as set by torchrun; 0 for a single process."""
    return int(os.environ.get("RANK", "0"))


def device_of_process(choice: str) -> str:
    """Return the device for this process; under torchrun each process gets its own GPU.

    Raises
    ------
    UsageError
        torchrun started more processes on this machine than it has GPUs; nccl would hang or fail.
    """
    if "LOCAL_RANK" not in os.environ or choice not in ("auto", "cuda"):
        return choice
    if not torch.cuda.is_available():
        return choice
    number, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= gpus:
        raise UsageError(
            f"torchrun started process {number + 1} for {gpus} GPUs: give "
            f"{setting('nproc_per_node', gpus)}, or {setting('device', 'cpu')}"
        )
    return f"cuda:{number}"


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Join the other processes that torchrun started: over nccl on GPUs, over gloo on CPUs.

    Every wait is limited. Over gloo, the connection to a process that ended is reset, which ends
    every wait for it; over nccl, torchrun ends the others. The wait for a process that never
    arrives has torch's default timeout, half an hour at most; the wait for one that does long work
    has `_PATIENCE`.

    Raises
    ------
    LpipstoreError
        Another process ended, or cannot be reached.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield Processes()
        return
    on_gpu = device.type == "cuda"
    with _losses():
        distributed.init_process_group(
            "nccl" if on_gpu else "gloo",
            device_id=device if on_gpu else None,  # else a barrier guesses the GPU by the rank
        )
        try:
            group = distributed.new_group(backend="gloo", timeout=_PATIENCE)
            patient = cast(distributed.ProcessGroup, group)  # of all processes, so of this one
            processes = Processes(distributed.get_rank(), distributed.get_world_size(), patient)
            yield processes
            processes.wait()  # a process that leaves early would cut the others off
        finally:
            distributed.destroy_process_group()


@contextmanager
def _losses() -> Iterator[None]:
    """Raise `LpipstoreError` if another process is lost; gloo has no exception type for that."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and "/gloo/" not in str(error):
            raise
        raise LpipstoreError(
            "another process of this training ended or cannot be reached "
            f"({str(error).splitlines()[0]}): look for its own message; the same command goes on "
            "after the last finished epoch"
        ) from error
