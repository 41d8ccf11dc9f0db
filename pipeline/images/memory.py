"""Images in memory as a source: tensors and arrays that a program gave."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from .source import Listing

if TYPE_CHECKING:
    from ...cache.index import FileIdentity


class InMemory:
    """Checked images, named by their numbers from 0 on.

    Parameters
    ----------
    images
        As `lpipstore.pipeline.images.arrays.take_image` returns them.
    """

    sequential = False

    def __init__(self, images: Sequence[torch.Tensor]) -> None:
        self.images = images

    def list(self) -> Listing:
        """List the numbers of the images."""
        return Listing([str(number) for number in range(len(self.images))])

    def version(self, member: str) -> "FileIdentity | None":
        """Return None: what a program holds may have changed at any time."""
        return None

    def read(self, member: str) -> torch.Tensor:
        """Return the pixels of an image."""
        return self.images[int(member)]

    def close(self) -> None:
        """Do nothing: nothing is open."""
