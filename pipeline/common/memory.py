"""Fresh memory for arithmetic."""

import numpy as np
import torch

_KINDS = {torch.int16: np.int16, torch.float32: np.float32, torch.float64: np.float64}


def fresh(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Make a tensor of any numbers; on a CPU, if it has 4 MB or more, in huge pages.

    NumPy asks for them and torch does not: first touching 16 MB took 20 ms in pages of 4 kB, as
    long as the arithmetic that they serve, and 1 ms in huge ones.
    """
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.empty(shape, _KINDS[dtype]))


def fresh_zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Make a tensor of zeros, as `fresh` does."""
    return fresh(shape, dtype, device).zero_()
