"""What bounds save across two collections, and that they change nothing.

    python tests/benchmarks/neighbours.py FOLDER… [--size 64] [--backbone squeeze]

1,000 images: crops of the photographs in the folders, two fifths on the first side, three on the
second, and of a tenth of the second near-duplicates on the first. Rows and pooled rows are in a
warm store. `compare --top-k 10` and `compare --below 0.1` are timed against the dense matrix of
`compare`, `neighbours` with a few images of the first side against the same, and `pairs --top-k 10`
of all images against the matrix of all pairs; scoring with reading, in turn, medians of several
rounds. Pairs and neighbours are compared with those of the dense matrix, one by one.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pruning import MEMORY, NEAREST, Comparison, crops, near_duplicate, report, timed

from lpipstore.cache.store import FeatureStore
from lpipstore.pipeline.common.progress import silent
from lpipstore.pipeline.matrix.plan import plan_matrix
from lpipstore.pipeline.matrix.score import score_matrix
from lpipstore.pipeline.search.cascade import Tally
from lpipstore.pipeline.search.results import SearchParts
from lpipstore.pipeline.search.search import Search
from lpipstore.workflows.scoring.searching import find


class Rectangle:
    """A matrix in memory with the interface of a matrix file."""

    def __init__(self, rows: int, columns: int, tile: int) -> None:
        self.array, self.tile = np.full((rows, columns), np.nan, np.float32), tile

    def done(self, row: int, column: int) -> bool:
        return False

    def write(self, row: int, column: int, distances: np.ndarray) -> None:
        top, left = row * self.tile, column * self.tile
        height, width = distances.shape
        self.array[top : top + height, left : left + width] = distances


@dataclass
class Sides:
    """Two sides of the images of a comparison."""

    whole: Comparison
    down: Sequence[bytes]
    across: Sequence[bytes]

    def dense(self) -> np.ndarray:
        features = self.whole.features
        rows, columns = len(self.down), len(self.across)
        plan = plan_matrix(rows, features.extractor.spec.row_bytes, MEMORY, columns=columns)
        matrix = Rectangle(rows, columns, plan.tile)
        score_matrix(features, self.down, self.across, self.whole.weights, plan, matrix)
        return matrix.array

    def ask(self, below: float | None, most: int | None) -> tuple[np.ndarray, Tally, int]:
        whole, contents = self.whole, [*self.down, *self.across]
        search = Search(
            whole.features,
            whole.pooled,
            contents,
            whole.weights,
            MEMORY,
            revisit=most is not None,
            first=len(self.down),
        )
        with tempfile.TemporaryDirectory(prefix="lpipstore-bench-") as folder:
            parts = SearchParts(Path(folder), contents)
            columns, tally = find(search, parts, whole.features.clock, below, most, silent)
        shown = search.sides.shown(columns)
        return np.stack([shown["i"], shown["j"]], 1), tally, search.arithmetic


def compare(name: str, sides: Sides, below: float | None, most: int | None, rounds: int) -> None:
    """Time one question against the dense matrix, and check the answer."""
    found, tally, arithmetic = sides.ask(below, most)
    times = [
        (timed(sides.dense)[0], timed(lambda: sides.ask(below, most))[0]) for _ in range(rounds)
    ]
    report(name, times, tally, arithmetic)
    matrix = sides.dense()
    if most is None:
        wanted = np.argwhere(matrix.astype(np.float64) < below)
        found = found[np.lexsort((found[:, 1], found[:, 0]))]
    else:
        order = np.argsort(matrix, axis=1, kind="stable")[:, :most]
        wanted = np.stack([np.repeat(np.arange(len(matrix)), most), order.reshape(-1)], 1)
    print(f"  the {len(found):,} pairs of the dense matrix: {np.array_equal(found, wanted)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--backbone", default="squeeze")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=5)
    parser.add_argument("--below", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    first = options.images * 2 // 5
    planted = (options.images - first) // 10
    images = crops(options.folders, options.images - planted, options.size)
    images = [near_duplicate(image, n) for n, image in enumerate(images[-planted:])] + images
    print(f"{options.backbone}, {options.size} px, {first:,} × {len(images) - first:,} images")
    with (
        tempfile.TemporaryDirectory(prefix="lpipstore-bench-") as scratch,
        FeatureStore(Path(scratch) / "store") as store,
    ):
        whole = Comparison(images, options.backbone, options.weights, store)
        del images
        both = Sides(whole, whole.contents[:first], whole.contents[first:])
        few = Sides(whole, whole.contents[: options.queries], whole.contents[first:])
        rounds = options.rounds
        compare(f"compare --top-k {NEAREST}", both, None, NEAREST, rounds)
        compare(f"compare --below {options.below}", both, options.below, None, rounds)
        compare(f"neighbours of {options.queries}", few, None, NEAREST, rounds)
        _, tally, arithmetic = whole.nearest()
        times = [(timed(whole.dense)[0], timed(whole.nearest)[0]) for _ in range(rounds)]
        report(f"pairs --top-k {NEAREST}", times, tally, arithmetic)


if __name__ == "__main__":
    main()
