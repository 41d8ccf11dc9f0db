"""A device with memory of its own, emulated on the CPU: it copies, counts, and runs out."""

import weakref
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lpipstore.pipeline.common.budget import TooLittle
from lpipstore.pipeline.common.device import Ready, Sent
from lpipstore.pipeline.distances import scoring

CPU = torch.device("cpu")
PLENTY = 1 << 30


@dataclass
class Emulated:
    """In the place of the CPU (see `lpipstore.pipeline.common.device.installed`).

    Attributes
    ----------
    memory
        Bytes that it says it has free, and that uploads may take; None as the CPU.
    fails, fails_down
        Numbers of the uploads, and of the downloads, counted from 0, that find no memory.
    uploads, downloads
        Bytes of each copy.
    most
        The most bytes of uploads that were on the device at a time.
    """

    memory: int | None = None
    fails: set[int] = field(default_factory=set)
    fails_down: set[int] = field(default_factory=set)
    where: torch.device = CPU
    local: bool = False
    uploads: list[int] = field(default_factory=list)
    downloads: list[int] = field(default_factory=list)
    forgotten: int = 0
    most: int = 0
    _there: list[Callable[[], Any]] = field(default_factory=list)

    def upload(self, array: NDArray[Any]) -> torch.Tensor:
        """Return a copy, or raise as a device without memory does."""
        return self.send([array], len(array))()

    def send(self, parts: Iterable[NDArray[Any]], rows: int) -> Sent:
        """Copy arrays into one, or raise as a device without memory does."""
        copied, start = None, 0
        for array in parts:
            number = len(self.uploads)
            self.uploads.append(array.nbytes)
            need = 0 if copied is not None else rows * array.nbytes // max(1, len(array))
            self._need(need, fail=number in self.fails)
            if copied is None:
                copied = np.empty((rows, *array.shape[1:]), array.dtype)
                self._there.append(weakref.ref(copied))
                self.most = max(self.most, self.held())
            copied[start : start + len(array)] = array
            start += len(array)
        assert copied is not None
        tensor = torch.from_numpy(copied)
        return lambda: tensor

    def held(self) -> int:
        """Return the bytes of the uploads that are still on the device."""
        there = [copied for reference in self._there if (copied := reference()) is not None]
        return sum(copied.nbytes for copied in there)

    def _need(self, count: int, *, fail: bool) -> None:
        if fail or (self.memory is not None and self.held() + count > self.memory):
            raise torch.OutOfMemoryError("emulated: out of memory")

    def download(self, tensor: torch.Tensor) -> Ready:
        """Return what gives a copy, or raise as a device without memory does."""
        number = len(self.downloads)
        copied = tensor.numpy().copy()
        self.downloads.append(copied.nbytes)
        self._need(0, fail=number in self.fails_down)
        return lambda: copied

    def free(self) -> int | None:
        """Return the memory."""
        return self.memory

    def forget(self) -> None:
        """Count that memory was to be given back."""
        self.forgotten += 1


def multiply_halves(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply halves as tensor cores do: products are exact, sums are float32."""
    assert a.dtype == b.dtype == torch.float16
    return torch.bmm(a.float(), b.float())


def fail_products(monkeypatch: pytest.MonkeyPatch, failing: Collection[int]) -> None:
    """Let those products find no memory whose numbers, counted from 0, are in `failing`."""
    numbers, products = count(), scoring.gram_distances

    def product(*args: Any, **options: Any) -> torch.Tensor:
        if next(numbers) in failing:
            raise torch.OutOfMemoryError("emulated: out of memory")
        return products(*args, **options)

    monkeypatch.setattr(scoring, "gram_distances", product)


def least(plan_for: Callable[[int], object]) -> int:
    """Return the smallest memory for which a plan can be made."""
    with pytest.raises(TooLittle) as told:
        plan_for(1)
    plan_for(told.value.least)
    return told.value.least
