"""Images in memory as a source: tensors, arrays and Pillow images that a program gave."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from ..arrays import ValueRange, take_image
from ..rgb import to_rgb
from ..source import Listing

if TYPE_CHECKING:
    from ....cache.index import FileIdentity


class MemoryImages:
    """Images named by their numbers.

    Parameters
    ----------
    images
        A tensor [N, 3, height, width], an array [N, height, width, 3], or a sequence of images:
        tensors [3, height, width], arrays [height, width, 3] or Pillow images.
    value_range
        (lowest, highest) possible value of floating-point images.
    place
        What the images are called as a whole.
    first
        The number of the first image.
    """

    sequential = False

    def __init__(
        self,
        images: Sequence[object] | torch.Tensor | np.ndarray,
        value_range: ValueRange | None = None,
        *,
        place: str = "images",
        first: int = 0,
    ) -> None:
        self.images = images
        self.value_range = value_range
        self.place = place
        self.first = first

    def list(self) -> Listing:
        """List the numbers of the images."""
        numbers = range(self.first, self.first + len(self.images))
        return Listing([str(number) for number in numbers])

    def version(self, member: str) -> "FileIdentity | None":
        """Return None: what a program holds may have changed at any time."""
        return None

    def read(self, member: str) -> torch.Tensor:
        """Return the pixels of an image.

        Raises
        ------
        UsageError
            Kind, shape, dtype or range of the image is wrong.
        """
        image = self.images[int(member) - self.first]
        if isinstance(image, Image.Image):
            return torch.tensor(np.asarray(to_rgb(image)))
        return take_image(image, self.value_range)

    def close(self) -> None:
        """Do nothing: nothing is open."""
