"""Judgements as batches for a training: from known statistics, or from image files."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..cache.errors import LpipstoreError
from .augmentation import Augmentation
from .files import printable
from .images import ImageError, content_hash, decode, read_file
from .loading import start_worker, worker_errors
from .teachers import Teacher

Numbers = NDArray[np.int64]
Batch = tuple[Sequence[Tensor], Tensor]
"""Inputs of a teacher, and the share of votes for p1, [B]."""


class Lessons(Protocol):
    """Judgements that a teacher learns from."""

    @property
    def judge(self) -> Tensor:
        """Share of votes for p1 of every judgement, as it was given."""

    def batches(self, which: Sequence[Numbers], seed: int) -> Iterator[Batch]:
        """Yield batches of judgements for a step, augmented where that is wanted, by `seed`."""

    def distances(self, teacher: Teacher, which: Numbers) -> tuple[Tensor, Tensor]:
        """Return the distances of judgements as they are, [len(which)] each, without gradients."""


@dataclass(frozen=True)
class KnownStatistics:
    """Judgements whose statistics are known: nothing but arithmetic on them is left.

    Attributes
    ----------
    statistics : Tensor
        [pairs, channels].
    pairs : Tensor
        int64 [judgements, 2]: which pair is (ref, p0), and which (ref, p1).
    judge : Tensor
        [judgements].
    """

    statistics: Tensor
    pairs: Tensor
    judge: Tensor

    def batches(self, which: Sequence[Numbers], seed: int) -> Iterator[Batch]:
        """Yield statistics of both pairs of each judgement; `seed` has nothing to decide."""
        for numbers in which:
            chosen = torch.from_numpy(numbers).to(self.pairs.device)
            first, second = self.pairs[chosen].unbind(1)
            yield (self.statistics[first], self.statistics[second]), self.judge[chosen]

    @torch.no_grad()
    def distances(self, teacher: Teacher, which: Numbers) -> tuple[Tensor, Tensor]:
        """Return the distances of judgements; each different pair is computed once."""
        distances = self.statistics @ teacher.head.weights
        first, second = self.pairs[torch.from_numpy(which).to(self.pairs.device)].unbind(1)
        return distances[first], distances[second]


@dataclass(frozen=True)
class TripletImages:
    """Judgements whose images go through the trunk each time.

    Attributes
    ----------
    files : list of (str, bytes)
        Path and content hash of each image.
    images : ndarray
        int64 [judgements, 3]: files of ref, p0, p1.
    judge : Tensor
        [judgements], on the device of the teacher.
    size : (int, int)
        Height and width that images are scaled to.
    at_once : int
        Judgements that go through the trunk together where nothing is learned.
    augmentation : Augmentation or None
    workers : int
        Processes that decode.
    """

    files: Sequence[tuple[str, bytes]]
    images: Numbers
    judge: Tensor
    size: tuple[int, int]
    at_once: int
    augmentation: Augmentation | None = None
    workers: int = 0

    def batches(self, which: Sequence[Numbers], seed: int) -> Iterator[Batch]:
        """Yield images [B, 3, 3, H, W] in [-1, 1], augmented by `seed` and judgement."""
        yield from self._load(which, self.augmentation, seed)

    @torch.no_grad()
    def distances(self, teacher: Teacher, which: Numbers) -> tuple[Tensor, Tensor]:
        """Return the distances of judgements, by a forward of their images."""
        parts = [
            which[start : start + self.at_once] for start in range(0, len(which), self.at_once)
        ]
        teacher.eval()
        found = [teacher.distances(inputs) for inputs, _ in self._load(parts, None, 0)]
        d0, d1 = (torch.cat(side) for side in zip(*found, strict=True))
        return d0, d1

    def _load(
        self, which: Sequence[Numbers], augmentation: Augmentation | None, seed: int
    ) -> Iterator[Batch]:
        device = self.judge.device
        dataset = _Triplets(
            self.files, self.images, self.judge.cpu().tolist(), self.size, augmentation, seed
        )
        workers = min(self.workers, len(which))
        with warnings.catch_warnings(), worker_errors():
            warnings.filterwarnings("ignore", "This DataLoader will create")
            loader = DataLoader(
                dataset,
                batch_sampler=[part.tolist() for part in which],
                num_workers=workers,
                collate_fn=_stack,
                worker_init_fn=start_worker if workers else None,
                multiprocessing_context="fork" if workers else None,
                pin_memory=device.type == "cuda",
                generator=torch.Generator(),  # not the global one: that is the caller's
            )
            for loaded in loader:
                if isinstance(loaded, str):
                    raise LpipstoreError(loaded)
                pixels, judge = loaded
                images = pixels.to(device, non_blocking=True).to(torch.float32)
                yield (images.div_(127.5).sub_(1),), judge.to(self.judge)


class _Triplets(Dataset[tuple[Tensor, float] | str]):
    """Images and judgement by number, or the words that say why there are none.

    What a number gives does not depend on who asks for it when.
    """

    def __init__(
        self,
        files: Sequence[tuple[str, bytes]],
        images: Numbers,
        judge: Sequence[float],
        size: tuple[int, int],
        augmentation: Augmentation | None,
        seed: int,
    ) -> None:
        self.files = files
        self.images = images
        self.judge = judge
        self.size = size
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[Tensor, float] | str:
        pixels = []
        for file in self.images[number].tolist():
            path, content = self.files[file]
            try:
                data = read_file(path)
                if content_hash(data) != content:
                    raise ImageError("the file changed during the training")
                pixels.append(decode(data, self.size))
            except ImageError as error:  # from another process it would come with its stack
                return f"{printable(path)}: {error}"
        images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
        if self.augmentation is None:
            return images, self.judge[number]
        own = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        return self.augmentation(images, self.judge[number], own)


def _stack(items: Iterable[tuple[Tensor, float] | str]) -> tuple[Tensor, Tensor] | str:
    whole = []
    for item in items:
        if isinstance(item, str):
            return item
        whole.append(item)
    images, judges = zip(*whole, strict=True)
    return torch.stack(images), torch.tensor(judges, dtype=torch.float64)
