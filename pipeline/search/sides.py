"""Which pairs are searched: those of one collection, or those across the two sides of another."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .blocks import BLOCK


@dataclass(frozen=True)
class Sides:
    """The pairs (i, j), i < j, of images that are numbered from 0 throughout.

    Blocks have `BLOCK` consecutive numbers. With two sides, one block may have images of both; only
    those of the side in question are taken from it.

    Attributes
    ----------
    count
        Number of images, of both sides together.
    first
        Number of images of the first side, which come first; only pairs across the sides are
        searched. None searches all pairs.
    """

    count: int
    first: int | None = None

    @property
    def single(self) -> bool:
        """Whether there is one collection, whose pairs matter to both of their images."""
        return self.first is None

    @property
    def searched(self) -> int:
        """Number of images that neighbours are searched for: all, or those of the first side."""
        return self.count if self.first is None else self.first

    @property
    def start(self) -> int:
        """Number of the first image that can be the second of a pair."""
        return self.first or 0

    @property
    def neighbours(self) -> int:
        """Number of neighbours that an image can have."""
        return self.count - 1 if self.first is None else self.count - self.first

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        if self.first is None:
            return self.count * (self.count - 1) // 2
        return self.first * self.neighbours

    @property
    def longest(self) -> int:
        """Number of images of the longer side."""
        return max(self.searched, self.count - self.start)

    @property
    def blocks(self) -> int:
        """Number of blocks with images that neighbours are searched for."""
        return -(-self.searched // BLOCK)

    def partners(self, block: int, *, itself: bool = True) -> range:
        """Return the numbers of the blocks whose images are compared with those of a block.

        With one side these are the later ones, and the block `itself`.
        """
        begin = block + (not itself) if self.first is None else self.first // BLOCK
        return range(begin, -(-self.count // BLOCK))

    def own(self, numbers: slice) -> slice:
        """Return the part of a range of numbers that neighbours are searched for."""
        return slice(numbers.start, min(numbers.stop, self.searched))

    def others(self, numbers: slice) -> slice:
        """Return the part of a range of numbers that can be the second of a pair."""
        return slice(max(numbers.start, self.start), min(numbers.stop, self.count))

    def top(self, block: int) -> NDArray[np.int64]:
        """Return the numbers of the images of a block that neighbours are searched for."""
        return _numbers(self.own(slice(block * BLOCK, (block + 1) * BLOCK)))

    def across(self, blocks: range) -> NDArray[np.int64]:
        """Return the numbers of the images of consecutive blocks that they are compared with."""
        return _numbers(self.others(slice(blocks.start * BLOCK, blocks.stop * BLOCK)))

    def shown(self, columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return columns of pairs with the numbers of a matrix: each side is numbered from 0."""
        return {**columns, "j": columns["j"] - self.start}


def _numbers(part: slice) -> NDArray[np.int64]:
    return np.arange(part.start, part.stop)
