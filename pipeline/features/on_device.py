"""Rows made on a device: copied there, computed and copied back without waiting for the device."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError, setting
from ..backbones.backbone import Backbone
from ..backbones.layout import RowLayout
from ..common.device import Device
from ..common.precision import deterministic_algorithms, exact_arithmetic
from .rows import write_on_device

Arriving = Callable[[], NDArray[np.generic]]
"""Waits for rows [n, length] of the row dtype, and returns them.

Raises LpipstoreError if the trunk produced a value that is not finite."""


class DeviceTrunk:
    """Run a trunk on a device.

    Parameters
    ----------
    backbone
        Its trunk is on the device.
    layout, dtype
        Of the rows.
    device
        Where to compute; copies go through it.
    batch
        Images that go through the trunk at once: fewer are padded with black images.

    Attributes
    ----------
    at_once
        `batch`, or less once the device had no memory for so many.
    """

    def __init__(
        self, backbone: Backbone, layout: RowLayout, dtype: str, device: Device, batch: int
    ) -> None:
        self.device = device
        self.at_once = batch
        self._backbone = backbone
        self._layout = layout
        self._dtype = dtype

    def place(self, pixels: torch.Tensor) -> torch.Tensor:
        """Begin to copy up to `at_once` images to the device, in one upload; see `begin`.

        Raises
        ------
        torch.OutOfMemoryError
            The device has no room for them.
        """
        return self.device.upload(pixels.numpy()) if pixels.device.type == "cpu" else pixels

    @exact_arithmetic()
    @deterministic_algorithms()
    @torch.inference_mode()
    def begin(self, pixels: torch.Tensor) -> Arriving:
        """Start to compute the rows of images that `place` returned; they come in one download.

        Raises
        ------
        torch.OutOfMemoryError
            The device has no room.
        """
        count, length = len(pixels), self._layout.length
        if count < self.at_once:
            filled = pixels.new_zeros((self.at_once, *pixels.shape[1:]))
            filled[:count] = pixels
            pixels = filled
        numbers = torch.float32 if self._dtype == "float32" else torch.int16
        sent = torch.empty(count * length + 1, dtype=numbers, device=pixels.device)
        rows = sent[:-1].view(count, length)
        taps = zip(self._backbone.each_tap(pixels), self._layout.slices, strict=True)
        norms = [write_on_device(tap[:count], rows[:, at], self._dtype) for tap, at in taps]
        sent[-1] = torch.isfinite(torch.stack(norms)).all()  # to ask here would be to wait
        ready = self.device.download(sent)

        def arrived() -> NDArray[np.generic]:
            numbers = ready()
            if not numbers[-1]:
                raise not_finite(self._backbone)
            return numbers[:-1].view(self._dtype).reshape(count, length)

        return arrived

    def rows(
        self, pixels: torch.Tensor, room: NDArray[np.generic] | None = None
    ) -> NDArray[np.generic]:
        """Compute the rows of any number of images, and wait for them.

        If the device has no memory, torch's cache is given back to it and the same images are tried
        again; after that `at_once` is halved, for good, until there is enough.

        Raises
        ------
        torch.OutOfMemoryError
            There is not enough for one image; or what else a library raises then.
        """
        if room is None:
            room = np.empty((len(pixels), self._layout.length), self._dtype)
        done, failures = 0, 0
        while done < len(pixels):
            part = pixels[done : done + self.at_once]
            try:
                room[done : done + len(part)] = self.begin(self.place(part))()
            except RuntimeError as error:
                if not out_of_memory(error) or (failures and self.at_once == 1):
                    raise
                failures += 1
            else:
                done, failures = done + len(part), 0
            if failures:  # out of reach of the error, whose traceback holds tensors
                self.device.forget()
            if failures > 1:
                self.at_once = (self.at_once + 1) // 2
        return room[: len(pixels)]


def out_of_memory(error: Exception) -> bool:
    """Return whether a device had no memory: libraries on it raise errors of their own."""
    texts = ("out of memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in texts)


def not_finite(backbone: Backbone) -> LpipstoreError:
    """Return the error for a trunk that produced values that are not finite."""
    return LpipstoreError(
        f"{backbone.name} produced values that are not finite; "
        f"if it runs in half precision, use {setting('trunk_dtype', 'float32')}"
    )
