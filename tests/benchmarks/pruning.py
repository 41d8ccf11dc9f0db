"""What the bounds of `--below` and `--top-k` save, and that they change nothing.

    python tests/benchmarks/pruning.py FOLDER… [--size 64] [--backbone squeeze]
    python tests/benchmarks/pruning.py FOLDER… --hard --backbone alex --weights random --below 0.04

1,000 images: 800 crops of the photographs in the folders, and 200 near-duplicates of them (noise,
another brightness, JPEG, a shift of one pixel). Rows and pooled rows are in a warm store; the
scoring stage (reading included) is timed against that of the dense matrix, both in turn, medians of
several rounds. Pairs and neighbours are compared with those of the dense matrix, one by one.

--hard takes crops alone, 5,000 of them: each photograph has many that overlap, and with a threshold
in the thick of their distances bounds rule little out. No search may then take more than 1.1 of the
matrix's time.
"""

import argparse
import io
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lpipstore.cache.store import FeatureStore
from lpipstore.pipeline.backbones.load import load_backbone
from lpipstore.pipeline.common.progress import silent
from lpipstore.pipeline.distances.heads import column_weights, load_head
from lpipstore.pipeline.features.extractor import Extractor
from lpipstore.pipeline.features.features import Features
from lpipstore.pipeline.features.pooled import PooledRows
from lpipstore.pipeline.features.pooling import useful_grids
from lpipstore.pipeline.images.loader import decode_arrays
from lpipstore.pipeline.matrix.plan import plan_matrix
from lpipstore.pipeline.matrix.score import score_matrix
from lpipstore.pipeline.search.cascade import Tally
from lpipstore.pipeline.search.results import SearchParts
from lpipstore.pipeline.search.search import Search
from lpipstore.pipeline.search.topk import Neighbours
from lpipstore.pipeline.sources.sources import Sources
from lpipstore.workflows.scoring.in_memory import MatrixInMemory
from lpipstore.workflows.scoring.searching import all_below

MEMORY = 4_000_000_000
NEAREST = 10


def crops(folders: list[str], count: int, size: int) -> list[Image.Image]:
    """Return `count` square crops of the photographs, each from another place."""
    random = np.random.default_rng(0)
    paths = Sources().find(folders).names
    found = []
    for number in range(count):
        photograph = Image.open(paths[number % len(paths)]).convert("RGB")
        side = int(min(photograph.size) * random.uniform(0.6, 1))
        left, top = (int(random.integers(0, room - side + 1)) for room in photograph.size)
        box = (left, top, left + side, top + side)
        found.append(photograph.resize((size, size), Image.Resampling.BILINEAR, box))
    return found


def near_duplicate(image: Image.Image, kind: int) -> Image.Image:
    """Change an image so that it hardly looks different."""
    pixels = np.asarray(image).astype(np.int16)
    random = np.random.default_rng(kind)
    if kind % 4 == 0:
        pixels += random.integers(-2, 3, pixels.shape, np.int16)
    elif kind % 4 == 1:
        pixels += 6
    elif kind % 4 == 2:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=92)
        return Image.open(buffer).convert("RGB")
    else:
        pixels = np.roll(pixels, 1, axis=1)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


class Comparison:
    """Images with their rows in a store, and a head."""

    def __init__(self, images: list[Image.Image], backbone: str, weights: str, store: FeatureStore):
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
        trunk = load_backbone(backbone, weights=weights)
        extractor = Extractor(trunk, tuple(pixels.shape[1:3]))
        self.contents = [f"{number:016}".encode() for number in range(len(images))]
        by_content = dict(zip(self.contents, pixels, strict=True))
        self.features = Features(
            extractor, store, lambda which, batch: decode_arrays(by_content, which, batch)
        )
        self.pooled = PooledRows(self.features, useful_grids(extractor.layout))
        self.pooled.ensure(self.contents)
        head = load_head(None, backbone, trunk.channels, trunk.version)
        self.weights = column_weights(head, extractor.layout)

    def search(self, *, revisit: bool) -> Search:
        return Search(
            self.features, self.pooled, self.contents, self.weights, MEMORY, revisit=revisit
        )

    def dense(self) -> np.ndarray:
        row_bytes = self.features.extractor.spec.row_bytes
        plan = plan_matrix(len(self.contents), row_bytes, MEMORY)
        matrix = MatrixInMemory(len(self.contents), plan.tile)
        score_matrix(self.features, self.contents, None, self.weights, plan, matrix)
        return matrix.array

    def below(self, threshold: float) -> tuple[np.ndarray, Tally, int]:
        search, clock = self.search(revisit=False), self.features.clock
        with tempfile.TemporaryDirectory(prefix="lpipstore-bench-") as folder:
            parts = SearchParts(Path(folder), self.contents)
            columns, tally = all_below(search, parts, clock, threshold, silent)
        return np.stack([columns["i"], columns["j"]]), tally, search.arithmetic

    def nearest(self) -> tuple[np.ndarray, Tally, int]:
        search, tally = self.search(revisit=True), Tally()
        found = Neighbours(search.sides.searched, NEAREST)
        if search.pays(NEAREST, np.inf, tally):
            for step in range(search.steps):
                tally.add(search.nearest(step, found, np.inf))
        else:
            tally.add(search.by_matrix(found, set(), lambda: None, silent))
        table = found.table()
        return table["j"].reshape(-1, NEAREST), tally, search.arithmetic


def timed(work) -> tuple[float, object]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def report(name: str, rounds: list[tuple[float, float]], tally: Tally, arithmetic: int) -> None:
    dense, ours = (statistics.median(side) for side in zip(*rounds, strict=True))
    print(
        f"{name}: {ours:.3f} s against {dense:.3f} s for the dense matrix = {dense / ours:.2f} "
        f"times faster, {arithmetic / tally.arithmetic:.1f} times less arithmetic; pairs left: "
        f"{dict(tally.left)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--backbone", default="squeeze")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--hard", action="store_true")
    parser.add_argument("--images", type=int)
    parser.add_argument("--below", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    count = options.images or (5000 if options.hard else 1000)
    planted = 0 if options.hard else count // 5
    images = crops(options.folders, count - planted, options.size)
    images += [near_duplicate(images[number], number) for number in range(planted)]
    print(f"{options.backbone}, {options.size} px, {len(images):,} images, {planted} planted")
    with (
        tempfile.TemporaryDirectory(prefix="lpipstore-bench-") as scratch,
        FeatureStore(Path(scratch) / "store") as store,
    ):
        comparison = Comparison(images, options.backbone, options.weights, store)
        matrix = comparison.dense()
        del images
        questions = [(f"below {options.below}", lambda: comparison.below(options.below))]
        if not options.hard:
            questions.append((f"nearest {NEAREST}", comparison.nearest))
        for name, work in questions:
            found, tally, arithmetic = work()
            rounds = [(timed(comparison.dense)[0], timed(work)[0]) for _ in range(options.rounds)]
            report(name, rounds, tally, arithmetic)
            if name.startswith("below"):
                close = np.triu(matrix.astype(np.float64) < options.below, 1)
                same = set(map(tuple, np.argwhere(close))) == set(map(tuple, found.T))
                print(f"  the same {found.shape[1]} pairs as the dense matrix: {same}")
            else:
                np.fill_diagonal(matrix, np.inf)
                ranked = np.argsort(matrix, axis=1, kind="stable")[:, :NEAREST]
                print(f"  the neighbours of the dense matrix: {np.array_equal(ranked, found)}")


if __name__ == "__main__":
    main()
