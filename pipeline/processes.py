"""Training in several processes: started by torchrun, each with a share of every step."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed

from ..cache.errors import UsageError


@dataclass(frozen=True)
class Processes:
    """The number of this process among those that train together; alone it is 0 of 1."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def add(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return the sum over all processes."""
        if self.world > 1:
            distributed.all_reduce(numbers)
        return numbers

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.world > 1:
            distributed.barrier()


def rank_here() -> int:
    """Return the number of this process, as torchrun tells it; 0 alone."""
    return int(os.environ.get("RANK", "0"))


def device_of_process(choice: str) -> str:
    """Return the device for this process: under torchrun each gets a GPU of its own.

    Raises
    ------
    UsageError
        This machine has more processes than GPUs; nccl would hang or fail.
    """
    if "LOCAL_RANK" not in os.environ or choice not in ("auto", "cuda"):
        return choice
    if not torch.cuda.is_available():
        return choice
    number, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= gpus:
        raise UsageError(
            f"torchrun started process {number + 1} for {gpus} GPUs: give --nproc-per-node {gpus}, "
            "or --device cpu"
        )
    return f"cuda:{number}"


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Meet the other processes that torchrun started: over nccl on GPUs, over gloo on CPUs."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield Processes()
        return
    on_gpu = device.type == "cuda"
    distributed.init_process_group(
        "nccl" if on_gpu else "gloo",
        device_id=device if on_gpu else None,  # else a barrier guesses the GPU by the rank
    )
    try:
        processes = Processes(distributed.get_rank(), distributed.get_world_size())
        yield processes
        processes.wait()  # who leaves first would cut the others off
    finally:
        distributed.destroy_process_group()
