"""How near the scoring stage comes to the machine's matrix unit, whatever the number of images.

    python tests/benchmarks/scoring.py FOLDER [--backbone squeeze] [--size 64] [--images 500 1000]

Only useful work counts: N(N-1)/2 pairs times 2·D operations. Against `torch.mm` of large float32
matrices (bfloat16 for `fast`, where the CPU has it), in turn in one process, medians of several
rounds. Images are repeated with noise to reach their number.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from score_lists import noisy

from lpipstore.cache.store import FeatureStore
from lpipstore.pipeline.backbones.load import load_backbone
from lpipstore.pipeline.common.progress import Stopwatch
from lpipstore.pipeline.distances.heads import column_weights, load_head
from lpipstore.pipeline.features.extractor import Extractor
from lpipstore.pipeline.features.features import Features
from lpipstore.pipeline.images.loader import decode_arrays
from lpipstore.pipeline.matrix.plan import plan_matrix
from lpipstore.pipeline.matrix.score import score_matrix
from lpipstore.workflows.scoring.in_memory import MatrixInMemory

SIDE = 4096  # of the matrices that torch.mm multiplies


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class Scoring:
    """Images with their rows in a store, and a head."""

    def __init__(self, images: torch.Tensor, backbone: str, weights: str, store: FeatureStore):
        trunk = load_backbone(backbone, weights=weights)
        extractor = Extractor(trunk, tuple(images.shape[1:3]))
        self.contents = [f"{number:016}".encode() for number in range(len(images))]
        pixels = dict(zip(self.contents, images, strict=True))
        self.features = Features(
            extractor, store, lambda which, batch: decode_arrays(pixels, which, batch)
        )
        self.features.ensure(self.contents)
        head = load_head(None, backbone, trunk.channels, trunk.version)
        self.weights = column_weights(head, extractor.layout)
        self.length = extractor.layout.length

    def score(self, count: int, *, fast: bool = False) -> tuple[float, float]:
        """Score the first `count` images; return seconds in all, and of the arithmetic alone."""
        self.features.clock = clock = Stopwatch()
        contents = self.contents[:count]
        row_bytes = self.features.extractor.spec.row_bytes
        plan = plan_matrix(count, row_bytes, 4_000_000_000)
        matrix = MatrixInMemory(count, plan.tile)
        total = timed(
            lambda: score_matrix(
                self.features, contents, None, self.weights, plan, matrix, fast=fast
            )
        )
        return total, clock.seconds["score"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--backbone", default="squeeze")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--images", type=int, nargs="+", default=[500, 1000, 2000])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"{options.backbone}, {options.size} px, {torch.get_num_threads()} threads")
    with (
        tempfile.TemporaryDirectory(prefix="lpipstore-bench-") as scratch,
        FeatureStore(Path(scratch) / "store") as store,
    ):
        images = noisy(options.folder, max(options.images), options.size)
        scoring = Scoring(images, options.backbone, options.weights, store)
        a, b = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE)
        low = a.bfloat16(), b.bfloat16()
        both = (False, True) if torch.ops.mkldnn._is_mkldnn_bf16_supported() else (False,)
        rounds: dict[str, list[float]] = {}

        def note(name: str, seconds: float) -> None:
            rounds.setdefault(name, []).append(seconds)

        for fast in both:
            torch.mm(*(low if fast else (a, b)))
            for count in options.images:
                scoring.score(count, fast=fast)
        for _ in range(options.rounds):
            note("mm False", timed(lambda: torch.mm(a, b)))
            if True in both:
                note("mm True", timed(lambda: torch.mm(*low)))
            for count in options.images:
                for fast in both:
                    for part, seconds in zip(
                        ("all", "score"), scoring.score(count, fast=fast), strict=True
                    ):
                        note(f"{count} {part} {fast}", seconds)
        took = {name: statistics.median(seconds) for name, seconds in rounds.items()}
        peak = 2 * SIDE**3 / took["mm False"]
        shorter = f", bfloat16 {2 * SIDE**3 / took['mm True'] / 1e9:.0f}" if True in both else ""
        print(f"torch.mm, float32 {peak / 1e9:.0f} GFLOP/s{shorter}")
        for count in options.images:
            pairs = count * (count - 1) // 2
            useful = pairs * 2 * scoring.length
            whole, exact = took[f"{count} all False"], took[f"{count} score False"]
            told = "no bfloat16 here"
            if True in both:
                told = f"fast {exact / took[f'{count} score True']:.2f} × exact"
            print(
                f"N = {count}: {useful / exact / 1e9:.0f} useful GFLOP/s = "
                f"{useful / exact / peak:.2f} × torch.mm ({useful / whole / peak:.2f} with reading "
                f"the rows); {pairs / exact:,.0f} pairs/s ({pairs / whole:,.0f} with reading); "
                f"{told}"
            )


if __name__ == "__main__":
    main()
