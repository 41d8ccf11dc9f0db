"""What NumPy does better than torch where a CPU does the work."""

import numpy as np
import torch

_KINDS = {torch.float32: np.float32, torch.float64: np.float64}


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


def dots(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return the product of each row with its partner: float32 [..., n] from [..., n, width].

    On a CPU the rows are read once and nothing is put aside, where torch would write the products
    of their numbers. The bits do not depend on other rows; sums of `PANEL` numbers or fewer are
    never split among threads.
    """
    if left.device.type != "cpu":
        return (left * right).sum(-1)
    return torch.from_numpy(np.vecdot(left.numpy(), right.numpy()))
