"""What multiplies rows with rows on a device: the contract, and the choice."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch

from .gram import inner_products
from .halves import BOUND, bytes_of_products, products_of_halves
from .panels import Columns


class Products(Protocol):
    """Computes x·(v∘y) for all pairs of centred rows, and the norms of the rows."""

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


def _planned_elsewhere(rows: int) -> int:
    return 0


@dataclass(frozen=True)
class Kernel:
    """A way to multiply rows.

    Distances under `lpipstore.pipeline.distances.distances.DIRECT_BELOW` are computed again from
    differences, so that products may be off by a few 1e-7 of the norms.

    Attributes
    ----------
    products
        The function.
    error
        Largest error of an exact product, of the sum of its terms' absolute values. None for
        float32 sums over panels as wide as the columns say.
    bytes
        Returns the memory beside the rows that so many rows on each side take, at most; 0 if the
        plan of a matrix counts it.
    """

    products: Products
    error: float | None = None
    bytes: Callable[[int], int] = _planned_elsewhere


FLOAT32 = Kernel(inner_products)
HALVES = Kernel(products_of_halves, BOUND, lambda rows: bytes_of_products(rows, rows))


def kernel_of(device: torch.device) -> Kernel:
    """Return the kernel of a device: halves where it has tensor cores that sum in float32.

    Elsewhere products are float32: on the CPU, on GPUs before Volta, and where torch cannot leave
    the sums of half-precision products in float32.
    """
    return HALVES if device.type == "cuda" and _has_units(device) else FLOAT32


@cache
def _has_units(device: torch.device) -> bool:
    with_out_dtype = hasattr(torch.ops.aten.bmm, "dtype")  # sums of halves as float32
    # AMD's torch calls its devices cuda, too, and does not have that product
    on_nvidia = torch.version.cuda is not None
    return with_out_dtype and on_nvidia and torch.cuda.get_device_capability(device) >= (7, 0)
