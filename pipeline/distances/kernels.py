"""What multiplies rows with rows on a device: the contract, and the choice."""

from collections.abc import Collection
from functools import cache
from typing import Protocol

import torch

from .gram import inner_products
from .halves import bytes_of_products, products_of_halves
from .panels import Columns


class Kernel(Protocol):
    """Computes x·(v∘y) for all pairs of centred rows, and the norms of the rows.

    Distances under `lpipstore.pipeline.distances.distances.DIRECT_BELOW` are computed again from
    differences, so that a kernel may be off by 1e-7 of the norms, and by more if `fast`.
    """

    def __call__(
        self,
        left: torch.Tensor,
        right: torch.Tensor | None,
        columns: Columns,
        centre: torch.Tensor,
        block: int,
        spared: Collection[tuple[int, int]] = (),
        *,
        fast: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See `lpipstore.pipeline.distances.gram.inner_products`."""


def kernel_of(device: torch.device) -> Kernel:
    """Return the kernel of a device: products of halves where it has tensor cores that sum right.

    Elsewhere products are float32: on the CPU, on GPUs before Volta, and where torch cannot leave
    the sums of half-precision products in float32.
    """
    return products_of_halves if device.type == "cuda" and _has_units(device) else inner_products


def bytes_of_kernel(device: torch.device, rows: int) -> int:
    """Return the memory of a GPU that products of so many rows on each side take, at most.

    That of the CPU's kernel is planned by the plan of a matrix.
    """
    return bytes_of_products(rows, rows) if device.type == "cuda" else 0


@cache
def _has_units(device: torch.device) -> bool:
    if torch.cuda.get_device_capability(device) < (7, 0):
        return False
    one = torch.ones(1, 16, 16, dtype=torch.float16, device=device)
    try:
        return torch.bmm(one, one, out_dtype=torch.float32).dtype == torch.float32
    except (TypeError, NotImplementedError, RuntimeError):  # torch 2.8 on some builds
        return False
