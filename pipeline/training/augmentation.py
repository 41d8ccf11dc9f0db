"""Changes of triplets that leave the judgement valid, by the transforms of torchvision."""

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
    """What chance decided for one triplet; to apply it needs no random numbers, in any thread.

    Attributes
    ----------
    swapped : bool
        Whether p0 and p1 change places.
    steps : list of list of callable
        What happens to ref, p0 and p1, one after another; or, where there is one list only, to all
        three together.
    """

    swapped: bool
    steps: Sequence[Sequence[Callable[[Tensor], Tensor]]]

    def __call__(self, images: Tensor, judge: float) -> tuple[Tensor, float]:
        """Change images, uint8 [3, 3, H, W], and the share of votes for p1 with them."""
        changed = []
        for part, steps in zip(images.chunk(len(self.steps)), self.steps, strict=True):
            for step in steps:
                part = step(part)  # noqa: PLW2901 - it is the same part, changed
            changed.append(part)
        images = torch.cat(changed)
        return (images[[0, 2, 1]], 1 - judge) if self.swapped else (images, judge)


@dataclass(frozen=True)
class Augmentation:
    """Random changes of the three images of a judgement.

    Attributes
    ----------
    changes : tuple of str
        Some of `AUGMENTATIONS`. All but ``swap`` change ref, p0 and p1 in the same way; ``swap``
        exchanges p0 and p1 and turns the judgement round.
    independent : bool
        Change each of the three images in its own way. People have not judged such triplets: it is
        for metrics that should not mind small shifts.
    """

    changes: tuple[str, ...]
    independent: bool = False

    def draw(self, size: tuple[int, int], seed: int) -> Drawn:
        """Decide how to change one triplet of images of `size` (height, width).

        `seed` decides everything; torch's own random state, which belongs to the calling process,
        is borrowed for a moment and left as it was: draw in one thread only.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            swapped = "swap" in self.changes and bool(torch.rand(()) < 0.5)
            parts = 3 if self.independent else 1
            return Drawn(swapped, [list(_steps(self.changes, size)) for _ in range(parts)])

    def __call__(self, images: Tensor, judge: float, seed: int) -> tuple[Tensor, float]:
        """Change one triplet.

        Parameters
        ----------
        images
            uint8 [3, 3, H, W]: ref, p0, p1.
        judge
            Share of votes for p1.
        seed
            Decides everything; torch's own random state stays as it was.

        Returns
        -------
        images, judge
            uint8 of the same shape, and the share of votes for what is p1 now.
        """
        return self.draw((images.shape[2], images.shape[3]), seed)(images, judge)


def _steps(changes: Sequence[str], size: tuple[int, int]) -> Iterator[Callable[[Tensor], Tensor]]:
    """Draw the parameters of each change; a stack of images goes through it under the same ones."""
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
    # Flips come last: what is bent back at the edges or scaled does not care
    if "flip" in changes and bool(torch.rand(1) < 0.5):
        yield v2.functional.horizontal_flip
