"""A device with memory of its own, emulated on the CPU: it copies, counts, and runs out."""

from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray

from lpipstore.pipeline.common.device import Ready

CPU = torch.device("cpu")


@dataclass
class Emulated:
    """In the place of the CPU (see `lpipstore.pipeline.common.device.installed`).

    Attributes
    ----------
    memory
        Bytes that it says it has free; None as the CPU.
    fails
        Numbers of the uploads, counted from 0, that find no memory.
    uploads, downloads
        Bytes of each copy.
    """

    memory: int | None = None
    fails: set[int] = field(default_factory=set)
    where: torch.device = CPU
    local: bool = False
    uploads: list[int] = field(default_factory=list)
    downloads: list[int] = field(default_factory=list)
    forgotten: int = 0

    def upload(self, array: NDArray[Any]) -> torch.Tensor:
        """Return a copy, or raise as a device without memory does."""
        number = len(self.uploads)
        self.uploads.append(array.nbytes)
        if number in self.fails:
            raise torch.OutOfMemoryError("emulated: out of memory")
        return torch.from_numpy(array.copy())

    def download(self, tensor: torch.Tensor) -> Ready:
        """Return what gives a copy."""
        copied = tensor.numpy().copy()
        self.downloads.append(copied.nbytes)
        return lambda: copied

    def free(self) -> int | None:
        """Return the memory."""
        return self.memory

    def forget(self) -> None:
        """Count that memory was to be given back."""
        self.forgotten += 1
