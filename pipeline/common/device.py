"""What moves between this machine's memory and a device: the seam behind which a GPU lies.

Stages upload rows and pixels, compute with torch, and download what they made. On the CPU nothing
is copied. On a GPU, copies go through page-locked memory on streams of their own, so that they run
beside the computation. Tests put an emulated device in the CPU's place: it copies, counts, and has
as much memory as they say (see `installed`).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

Numbers = NDArray[Any]
Ready = Callable[[], Numbers]
"""Waits until a download is there, and returns it."""
Sent = Callable[[], torch.Tensor]
"""Lets the current stream wait for an upload, and returns the tensor."""

_SHARE_OF_FREE = 0.8  # of a device's memory: the trunk, torch and others take some, too
_UPLOAD_BYTES = 1 << 28  # copied together: while one share is copied, the next is read


class Device(Protocol):
    """Where tensors are computed on.

    Attributes
    ----------
    where
        The device, as torch names it.
    """

    where: torch.device

    @property
    def local(self) -> bool:
        """Whether uploads are views of this machine's memory, so that holding them is free."""

    def upload(self, array: Numbers) -> torch.Tensor:
        """Return an array as a tensor on the device, ready for the current stream.

        The array may be changed as soon as this returns, unless the device is `local`: then the
        tensor is a view of it.

        Raises
        ------
        torch.OutOfMemoryError
            The device has no room for it.
        """

    def send(self, parts: Iterable[Numbers], rows: int) -> Sent:
        """Begin to upload arrays into one tensor, one below the other; `rows` is their height.

        The current stream goes on until it needs the tensor. Each array may be changed once the
        next one is taken, or this returns, unless the device is `local`.

        Raises
        ------
        torch.OutOfMemoryError
            The device has no room for it.
        """

    def download(self, tensor: torch.Tensor) -> Ready:
        """Begin to copy a tensor that the current stream computes; return what waits for it.

        The tensor may be let go at once, but not changed before the copy is there.
        """

    def free(self) -> int | None:
        """Return the bytes that the device has free, with torch's own cache; None for the CPU."""

    def forget(self) -> None:
        """Give memory that torch keeps for later back to the device, as after it ran out."""


class Cpu:
    """Memory of this machine: nothing is copied."""

    where = torch.device("cpu")
    local = True

    def upload(self, array: Numbers) -> torch.Tensor:
        """Return a view of the array."""
        return torch.from_numpy(array)

    def send(self, parts: Iterable[Numbers], rows: int) -> Sent:
        """Return what gives a view of the array, or of all in one."""
        whole = joined(parts, rows)
        return lambda: torch.from_numpy(whole)

    def download(self, tensor: torch.Tensor) -> Ready:
        """Return what gives a view of the tensor."""
        return tensor.numpy

    def free(self) -> int | None:
        """Return None: the memory is planned by ``--memory``."""
        return None

    def forget(self) -> None:
        """Do nothing."""


class Gpu:
    """A CUDA device: copies through page-locked memory, one stream for each direction."""

    local = False

    def __init__(self, where: torch.device) -> None:
        index = torch.cuda.current_device() if where.index is None else where.index
        self.where = torch.device("cuda", index)
        self._up = torch.cuda.Stream(self.where)  # type: ignore[no-untyped-call]
        self._down = torch.cuda.Stream(self.where)  # type: ignore[no-untyped-call]

    def upload(self, array: Numbers) -> torch.Tensor:
        """Copy an array to page-locked memory, and from there while the GPU computes."""
        return self.send([array], len(array))()

    def send(self, parts: Iterable[Numbers], rows: int) -> Sent:
        """Copy arrays to page-locked memory, and from there on a stream of their own."""
        tensor, start = None, 0
        for array in parts:
            source = torch.from_numpy(array)
            pinned = torch.empty(source.shape, dtype=source.dtype, pin_memory=True).copy_(source)
            with torch.cuda.stream(self._up):
                if tensor is None:
                    shape = (rows, *source.shape[1:])
                    tensor = torch.empty(shape, dtype=source.dtype, device=self.where)
                # torch reuses the page-locked memory only when the copy on this stream is done
                tensor[start : start + len(source)].copy_(pinned, non_blocking=True)
            start += len(source)
        assert tensor is not None
        sent, done = tensor, torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(self._up)

        def arrived() -> torch.Tensor:
            current = torch.cuda.current_stream(self.where)
            current.wait_event(done)
            sent.record_stream(current)
            return sent

        return arrived

    def download(self, tensor: torch.Tensor) -> Ready:
        """Copy a tensor to page-locked memory while the GPU computes what comes next."""
        self._down.wait_stream(torch.cuda.current_stream(self.where))
        with torch.cuda.stream(self._down):
            room = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            room.copy_(tensor, non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(self._down)
        tensor.record_stream(self._down)

        def ready() -> Numbers:
            done.synchronize()
            return np.asarray(room.numpy())

        return ready

    def free(self) -> int | None:
        """Return what the driver has free, and what torch holds without using it."""
        free, _ = torch.cuda.mem_get_info(self.where)
        held = torch.cuda.memory_reserved(self.where) - torch.cuda.memory_allocated(self.where)
        return int(free) + int(held)

    def forget(self) -> None:
        """Empty torch's cache."""
        torch.cuda.empty_cache()


def joined(parts: Iterable[Numbers], rows: int) -> Numbers:
    """Return arrays as one of `rows` rows, one below the other; a single one is not copied."""
    whole: Numbers | None = None
    start = 0
    for part in parts:
        if len(part) == rows:
            return part
        if whole is None:
            whole = np.empty((rows, *part.shape[1:]), part.dtype)
        whole[start : start + len(part)] = part
        start += len(part)
    assert whole is not None
    return whole


def room_on(device: Device, chosen: int | None) -> int | None:
    """Return the bytes of a device for rows and arithmetic: those chosen, or most of what is free.

    None stands for a device that uses this machine's memory, which ``--memory`` plans.
    """
    if device.local:
        return None
    free = device.free() if chosen is None else None
    return chosen if free is None else int(free * _SHARE_OF_FREE)


def rows_at_once(held: int, row_bytes: int) -> int:
    """Return how many rows to read and upload together where memory holds `held` rows.

    They take as much again while they are copied.
    """
    return max(1, min(held // 2, _UPLOAD_BYTES // row_bytes))


def devices_of(choice: str) -> list[str]:
    """Return the devices that a choice names: ``cuda:0,1`` or ``cuda:all`` name several GPUs."""
    kind, colon, which = choice.partition(":")
    if kind == "cuda" and which == "all":
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cuda:0"]
    return [kind + colon + number for number in which.split(",")] if kind == "cuda" else [choice]


_own: list[torch.device] = []


def stand_in(device: str) -> None:
    """From now on, let tasks in this process compute on a device, whatever GPU they name."""
    _own[:] = [torch.device(device)]


def here(where: str) -> torch.device:
    """Return the device of this process for what a task names: see `stand_in`."""
    return _own[0] if _own and where != "cpu" else torch.device(where)


_instead: dict[torch.device, Device] = {}


def device_of(where: torch.device) -> Device:
    """Return the device of this process that torch calls `where`."""
    return _instead.get(where) or _opened(where)


@cache
def _opened(where: torch.device) -> Device:
    return Cpu() if where.type == "cpu" else Gpu(where)


@contextmanager
def installed(device: Device) -> Iterator[Device]:
    """Put another device in the place of the one that torch names as it does."""
    before = _instead.get(device.where)
    _instead[device.where] = device
    try:
        yield device
    finally:
        if before is None:
            del _instead[device.where]
        else:
            _instead[device.where] = before
