"""How much faster than the `lpips` package a long list of pairs is scored.

    python tests/benchmarks/score_lists.py FOLDER [--backbone squeeze] [--size 64]

100,000 random pairs of 1,000 images: those of the folder, repeated with noise. Both sides are
measured in one process in turn, and medians of several rounds are compared: the package's module on
batches of pairs whose images are in memory already, and the scoring stage on rows in a warm store,
reading included. Then what else a list can be: thin, and in less memory than its rows take.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from against_lpips import reference

from lpipstore.cache.store import FeatureStore
from lpipstore.pipeline.backbones.load import load_backbone
from lpipstore.pipeline.distances.heads import column_weights, load_head
from lpipstore.pipeline.features.extractor import Extractor
from lpipstore.pipeline.features.features import Features
from lpipstore.pipeline.images.decode import decode
from lpipstore.pipeline.images.loader import decode_arrays
from lpipstore.pipeline.images.preparation import Preparation
from lpipstore.pipeline.pairlists.plan import plan_list
from lpipstore.pipeline.pairlists.schedule import room_for
from lpipstore.pipeline.pairlists.score import InMemory, score_list
from lpipstore.pipeline.sources.sources import Sources
from lpipstore.workflows.session.settings import Settings

PAIRS_IN_BATCH = 16


def noisy(folder: str, count: int, size: int) -> torch.Tensor:
    """`count` images [size, size, 3] uint8: those of the folder, again and again with noise."""
    paths = Sources().find([folder]).names
    random = np.random.default_rng(0)
    images = []
    how = Preparation((size, size))
    for number in range(count):
        image = decode(Path(paths[number % len(paths)]).read_bytes(), how).astype(np.int16)
        if number >= len(paths):
            image += random.integers(-20, 21, image.shape, np.int16)
        images.append(image.clip(0, 255).astype(np.uint8))
    return torch.from_numpy(np.stack(images))


class Comparison:
    """Images whose rows are in a store, and the package's module with the same trunk."""

    def __init__(self, images: torch.Tensor, settings: Settings, store: FeatureStore) -> None:
        self.images = images.permute(0, 3, 1, 2).float() / 127.5 - 1
        self.lpips = reference(settings)
        backbone = load_backbone(settings.backbone, weights=settings.weights)
        self.extractor = Extractor(backbone, tuple(images.shape[1:3]))
        self.contents = [f"{number:016}".encode() for number in range(len(images))]
        pixels = dict(zip(self.contents, images, strict=True))
        self.features = Features(
            self.extractor, store, lambda which, batch: decode_arrays(pixels, which, batch)
        )
        self.features.ensure(self.contents)
        head = load_head(None, settings.backbone, backbone.channels, backbone.version)
        self.weights = column_weights(head, self.extractor.layout)
        self.row_bytes = 2 * self.extractor.layout.length

    @torch.inference_mode()
    def theirs(self, pairs: np.ndarray) -> float:
        """Seconds that the package takes for one pair."""
        left, right = (self.images[torch.from_numpy(side)] for side in pairs[:PAIRS_IN_BATCH].T)
        start = time.perf_counter()
        self.lpips(left, right)
        return (time.perf_counter() - start) / PAIRS_IN_BATCH

    def ours(self, pairs: np.ndarray, memory: int) -> tuple[float, float, float]:
        """Seconds for the list, planning included; rows read per row needed; share of products."""
        before = self.features.rows_read
        start = time.perf_counter()
        keys = [self.features.key(content) for content in self.contents]
        plan = plan_list(*pairs.T, keys, self.row_bytes)
        room = room_for(memory, self.row_bytes, plan.block)
        distances = InMemory(np.full(len(plan.pairs), np.nan, np.float32))
        score_list(self.features, self.contents, self.weights, plan, room, distances)
        plan.in_list_order(distances.values)
        seconds = time.perf_counter() - start
        reads = (self.features.rows_read - before) / len(plan.rows)
        return seconds, reads, float(plan.dense[plan.cell_of].mean())

    def compare(self, name: str, pairs: np.ndarray, memory: int, rounds: int) -> None:
        """Print medians of rounds in which both sides take turns."""
        self.theirs(pairs), self.ours(pairs, memory)
        found = [(self.theirs(pairs), *self.ours(pairs, memory)) for _ in range(rounds)]
        theirs, ours, reads, dense = (statistics.median(side) for side in zip(*found, strict=True))
        ratio = theirs * len(pairs) / ours
        print(
            f"{name}: {ours:.3f} s, {len(pairs) / ours:,.0f} pairs/s = {ratio:,.0f} × lpips "
            f"({1 / theirs:,.0f} pairs/s); {dense:.0%} of the pairs by products, each row read "
            f"{reads:.2f} times"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--backbone", default="squeeze")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    settings = Settings(backbone=options.backbone, weights=options.weights)
    random = np.random.default_rng(1)
    print(f"{options.backbone}, {options.size} px, {torch.get_num_threads()} threads")
    with (
        tempfile.TemporaryDirectory(prefix="lpipstore-bench-") as scratch,
        FeatureStore(Path(scratch) / "store") as store,
    ):
        images = noisy(options.folder, options.images, options.size)
        comparison = Comparison(images, settings, store)
        count, rounds = options.images, options.rounds
        pairs = random.integers(0, count, (100 * count, 2))
        rows = count * (comparison.row_bytes + 4 * 4096)
        comparison.compare(f"{len(pairs):,} pairs", pairs, 4_000_000_000, rounds)
        comparison.compare("in memory for 2/3 of the rows", pairs, 2 * rows // 3, rounds)
        comparison.compare(f"{2 * count:,} pairs", pairs[: 2 * count], 4_000_000_000, rounds)


if __name__ == "__main__":
    main()
