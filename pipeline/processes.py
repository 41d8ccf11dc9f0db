"""Training in several processes: started by torchrun, each with a share of every step."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed


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
    """Return the device for this process: under torchrun each gets a GPU of its own."""
    if "LOCAL_RANK" in os.environ and choice in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    return choice


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Meet the other processes that torchrun started: over nccl on GPUs, over gloo on CPUs."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield Processes()
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        processes = Processes(distributed.get_rank(), distributed.get_world_size())
        yield processes
        processes.wait()  # who leaves first would cut the others off
    finally:
        distributed.destroy_process_group()
