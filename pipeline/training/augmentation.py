"""Augment triplets in ways that leave the judgement valid, with torchvision's transforms."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

AUGMENTATIONS = ("flip", "rotate", "crop", "colour", "swap")
_DEGREES = 10.0
_CROP = (0.7, 1.0)  # share of the area
_COLOUR = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.02}


@dataclass(frozen=True)
class Drawn:
    """The random choices for one triplet; applying them draws no random numbers, in any thread.

    Attributes
    ----------
    swapped : bool
        Whether p0 and p1 change places.
    steps : list of list of callable
        Transforms of ref, p0 and p1, one list for each; a single list applies to all three.
    """

    swapped: bool
    steps: Sequence[Sequence[Callable[[Tensor], Tensor]]]

    def __call__(self, images: Tensor, judge: float) -> tuple[Tensor, float]:
        """Transform images, uint8 [3, 3, H, W], and adjust the share of votes for p1."""
        changed = []
        for part, steps in zip(images.chunk(len(self.steps)), self.steps, strict=True):
            for step in steps:
                part = step(part)  # noqa: PLW2901 - it is the same part, changed
            changed.append(part)
        images = torch.cat(changed)
        return (images[[0, 2, 1]], 1 - judge) if self.swapped else (images, judge)


@dataclass(frozen=True)
class Augmentation:
    """Random transforms of the three images of a judgement.

    Attributes
    ----------
    changes : tuple of str
        Some of `AUGMENTATIONS`. All but ``swap`` transform ref, p0 and p1 in the same way; ``swap``
        exchanges p0 and p1 and reverses the judgement.
    independent : bool
        Transform each of the three images in its own way. People have not judged such triplets:
        this is for metrics that should tolerate small shifts.
    """

    changes: tuple[str, ...]
    independent: bool = False

    def draw(self, size: tuple[int, int], seed: int) -> Drawn:
        """Draw the transforms of one triplet of images of `size` (height, width).

        They depend on `seed` alone. torch's global random state is used for a moment and then
        restored; the whole process shares it, so draw in one thread only.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            swapped = "swap" in self.changes and bool(torch.rand(()) < 0.5)
            parts = 3 if self.independent else 1
            return Drawn(swapped, [list(_steps(self.changes, size)) for _ in range(parts)])

    def __call__(self, images: Tensor, judge: float, seed: int) -> tuple[Tensor, float]:
        """Transform one triplet.

        Parameters
        ----------
        images
            uint8 [3, 3, H, W]: ref, p0, p1.
        judge
            Share of votes for p1.
        seed
            Determines all random choices; torch's global random state stays as it was.

        Returns
        -------
        images, judge
            uint8 of the same shape, and the share of votes for the image that is p1 now.
        """
        return self.draw((images.shape[2], images.shape[3]), seed)(images, judge)


def _steps(changes: Sequence[str], size: tuple[int, int]) -> Iterator[Callable[[Tensor], Tensor]]:
    """Draw the parameters of each transform; all images of a stack are transformed alike."""
    from torchvision.transforms import v2

    known = {
        "rotate": v2.RandomRotation(_DEGREES, interpolation=v2.InterpolationMode.BILINEAR),
        "crop": v2.RandomResizedCrop(size, scale=_CROP, ratio=(0.9, 1.1), antialias=True),
        "colour": v2.ColorJitter(**_COLOUR),
    }
    of_this_size = torch.empty((1, 3, *size), device="meta")
    for name, transform in known.items():
        if name in changes:
            yield partial(transform.transform, params=transform.make_params([of_this_size]))
    # The flip comes last: the order makes no difference to rotation and crop
    if "flip" in changes and bool(torch.rand(1) < 0.5):
        yield v2.functional.horizontal_flip
