"""Training data: batches of judgements, from known statistics or from image files."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...cache.errors import LpipstoreError
from ..common.text import printable
from ..images.data import prepared_pixels, read_unchanged
from ..images.loader import ahead
from ..images.preparation import Preparation
from ..sources.arrays import to_uint8
from ..sources.source import ImageError
from ..sources.sources import Sources
from .augmentation import Augmentation, Drawn
from .models import HeadModel

Numbers = NDArray[np.int64]
Batch = tuple[Sequence[Tensor], Tensor]
"""Inputs of a model, and the share of votes for p1, [B]."""


class TrainingData(Protocol):
    """Judgements that a model learns from."""

    @property
    def judge(self) -> Tensor:
        """Share of votes for p1 of every judgement, before augmentation."""

    def batches(self, which: Sequence[Numbers], seed: int) -> Iterator[Batch]:
        """Yield one batch for each entry of `which`; any augmentation is drawn from `seed`."""

    def distances(self, model: HeadModel, which: Numbers) -> tuple[Tensor, Tensor]:
        """Return d0 and d1, [len(which)] each, without augmentation and without gradients."""


@dataclass(frozen=True)
class KnownStatistics:
    """Judgements whose pair statistics are known; no images are needed.

    Attributes
    ----------
    statistics : Tensor
        [pairs, channels].
    pairs : Tensor
        int64 [judgements, 2]: indices of the pairs (ref, p0) and (ref, p1).
    judge : Tensor
        [judgements].
    """

    statistics: Tensor
    pairs: Tensor
    judge: Tensor

    def batches(self, which: Sequence[Numbers], seed: int) -> Iterator[Batch]:
        """Yield the statistics of both pairs of each judgement; `seed` is not used."""
        for numbers in which:
            chosen = torch.from_numpy(numbers).to(self.pairs.device)
            first, second = self.pairs[chosen].unbind(1)
            yield (self.statistics[first], self.statistics[second]), self.judge[chosen]

    @torch.no_grad()
    def distances(self, model: HeadModel, which: Numbers) -> tuple[Tensor, Tensor]:
        """Return the distances of judgements; each distinct pair is computed once."""
        distances = self.statistics @ model.head.weights
        first, second = self.pairs[torch.from_numpy(which).to(self.pairs.device)].unbind(1)
        return distances[first], distances[second]


@dataclass(frozen=True)
class TripletImages:
    """Judgements whose images go through the trunk each time.

    Attributes
    ----------
    files : list of (str, bytes)
        Name and content hash of each image.
    sources : Sources
        Opens the images.
    images : ndarray
        int64 [judgements, 3]: files of ref, p0, p1.
    judge : Tensor
        [judgements], on the device of the model.
    how : Preparation
        Size, fit and colours of the images.
    at_once : int
        Judgements per forward of the trunk when evaluating.
    augmentation : Augmentation or None
    workers : int
        Number of threads that decode.
    """

    files: Sequence[tuple[str, bytes]]
    sources: Sources
    images: Numbers
    judge: Tensor
    how: Preparation
    at_once: int
    augmentation: Augmentation | None = None
    workers: int = 0

    def batches(self, which: Sequence[Numbers], seed: int) -> Iterator[Batch]:
        """Yield images [B, 3, 3, H, W] in [-1, 1], augmented according to `seed` and judgement."""
        yield from self._load(which, self.augmentation, seed)

    @torch.no_grad()
    def distances(self, model: HeadModel, which: Numbers) -> tuple[Tensor, Tensor]:
        """Return the distances of judgements by forwarding their images."""
        parts = [
            which[start : start + self.at_once] for start in range(0, len(which), self.at_once)
        ]
        model.eval()
        found = [model.distances(inputs) for inputs, _ in self._load(parts, None, 0)]
        d0, d1 = (torch.cat(side) for side in zip(*found, strict=True))
        return d0, d1

    def _load(
        self, which: Sequence[Numbers], augmentation: Augmentation | None, seed: int
    ) -> Iterator[Batch]:
        judges = self.judge.cpu().tolist()
        draws = (
            [(number, self._draw(augmentation, seed, number)) for number in part.tolist()]
            for part in which
        )

        def load(job: tuple[int, Drawn | None]) -> tuple[Tensor, float]:
            number, drawn = job
            images = torch.stack([self._pixels(n) for n in self.images[number]])
            images = images.permute(0, 3, 1, 2)
            return (images, judges[number]) if drawn is None else drawn(images, judges[number])

        def gather(triplets: list[tuple[Tensor, float]]) -> tuple[Tensor, Tensor]:
            images, judge = zip(*triplets, strict=True)
            return torch.stack(images), torch.tensor(judge, dtype=torch.float64)

        with closing(ahead(load, gather, draws, min(self.workers, len(which)))) as loaded:
            for pixels, judge in loaded:
                images = pixels.to(self.judge.device).to(torch.float32)
                yield (images.div_(127.5).sub_(1),), judge.to(self.judge)

    def _draw(self, augmentation: Augmentation | None, seed: int, number: int) -> Drawn | None:
        """Draw the augmentation of a judgement; it depends only on `seed` and `number`."""
        if augmentation is None:
            return None
        own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        return augmentation.draw(self.how.size, own)

    def _pixels(self, file: int) -> Tensor:
        path, content = self.files[file]
        try:
            data = read_unchanged(self.sources, path, content)
            return to_uint8(torch.tensor(prepared_pixels(data, self.how)))
        except ImageError as error:
            raise LpipstoreError(
                f"{printable(path)} could be used when the training began, and cannot any more: "
                f"{error}; once the file is back, the same command goes on after the last finished "
                "epoch"
            ) from error
