"""Work that a device may have too little memory for: planned again, smaller, until it fits."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from ...cache.errors import LpipstoreError, setting
from .budget import TooLittle
from .device import Device

Plan = TypeVar("Plan")
Result = TypeVar("Result")


def until_it_fits(
    device: Device,
    room: int | None,
    plan: Callable[[int | None], tuple[Plan, int]],
    run: Callable[[Plan], Result],
) -> Result:
    """Plan work for a device and run it; if memory runs out there, plan for half as much.

    Parameters
    ----------
    device
        Where the work runs.
    room
        Bytes for it there; None if nothing but the host's memory limits it.
    plan
        ``plan(room)`` returns what to run, and the bytes that it takes there, or raises
        `TooLittle`.
    run
        Does what is not done yet; it lets go of all tensors when it raises.

    Raises
    ------
    TooLittle
        What `plan` raised for the first `room`.
    LpipstoreError
        Memory ran out, and not even the smallest plan fits in what there is.
    """
    ran_out = smallest = False
    while True:
        try:
            planned, need = plan(room)
        except TooLittle as error:
            if not ran_out:
                raise
            if not smallest:  # once more, even if it was that which failed: all else is let go
                smallest, room = True, error.least
                continue
            raise LpipstoreError(
                f"{device.where} ran out of memory, even with as few rows there as scoring can do "
                f"with: stop what else uses it, or choose {setting('device', 'cpu')}; what is "
                "finished stays"
            ) from error
        try:
            return run(planned)
        except torch.OutOfMemoryError:
            ran_out = True
        # Here, behind the clause: its error held the tensors, partly in reference cycles
        gc.collect()
        device.forget()
        room = need // 2
