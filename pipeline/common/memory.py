"""Allocate memory for large tensors."""

import numpy as np
import torch

_KINDS = {torch.int16: np.int16, torch.float32: np.float32, torch.float64: np.float64}


def fresh(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return an uninitialised tensor; on a CPU, tensors of 4 MB or more lie in huge pages.

    NumPy asks for huge pages and torch does not: first touching 16 MB took 20 ms in 4 kB pages, as
    long as the arithmetic on them, and 1 ms in huge pages.
    """
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.empty(shape, _KINDS[dtype]))


def fresh_zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return a tensor of zeros, allocated like `fresh`."""
    return fresh(shape, dtype, device).zero_()
