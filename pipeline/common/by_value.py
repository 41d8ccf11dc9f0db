"""Dataclasses that hold tensors and travel to other processes by value."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .device import here


class ByValue:
    """A base of dataclasses: their tensors, also those in tuples, are pickled as arrays.

    torch would move tensors into shared memory, of which there may be little, and pass on file
    handles, which another machine cannot open. Tensors come back on the device that they were on,
    or on that of the process (see `lpipstore.pipeline.common.device.stand_in`).
    """

    def __getstate__(self) -> dict[str, Any]:
        return {name: _packed(value) for name, value in vars(self).items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({name: _unpacked(value) for name, value in state.items()})


@dataclass(frozen=True)
class _Packed:
    values: NDArray[np.generic]
    device: str

    def tensor(self) -> torch.Tensor:
        return torch.from_numpy(self.values).to(here(self.device))


def _packed(value: Any) -> Any:  # noqa: ANN401 - of any type
    if isinstance(value, torch.Tensor):
        return _Packed(value.detach().cpu().numpy(), str(value.device))
    return tuple(map(_packed, value)) if type(value) is tuple else value


def _unpacked(value: Any) -> Any:  # noqa: ANN401 - as above
    if isinstance(value, _Packed):
        return value.tensor()
    return tuple(map(_unpacked, value)) if type(value) is tuple else value
