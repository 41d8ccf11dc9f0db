"""Changes of triplets that leave the judgement valid, by the transforms of torchvision."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

AUGMENTATIONS = ("flip", "rotate", "crop", "colour", "swap")
_DEGREES = 10.0
_CROP = (0.7, 1.0)  # share of the area
_COLOUR = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.02}


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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            swapped = "swap" in self.changes and bool(torch.rand(()) < 0.5)
            transform = _transform(self.changes, (images.shape[2], images.shape[3]))
            parts = images.unbind(0) if self.independent else (images,)
            changed = torch.stack([transform(part) for part in parts]).view_as(images)
        if swapped:
            return changed[[0, 2, 1]], 1 - judge
        return changed, judge


def _transform(changes: Sequence[str], size: tuple[int, int]) -> torch.nn.Module:
    """Return the transform; a stack of images goes through it under the same random choices."""
    from torchvision.transforms import v2

    # Flips come last: what is bent back at the edges or scaled does not care
    known: dict[str, torch.nn.Module] = {
        "rotate": v2.RandomRotation(_DEGREES, interpolation=v2.InterpolationMode.BILINEAR),
        "crop": v2.RandomResizedCrop(size, scale=_CROP, ratio=(0.9, 1.1), antialias=True),
        "colour": v2.ColorJitter(**_COLOUR),
        "flip": v2.RandomHorizontalFlip(),
    }
    chosen = [transform for name, transform in known.items() if name in changes]
    return torch.nn.Sequential(*chosen)
