"""How much slower all pairs are of a video that hardly moves than of other images.

    python tests/benchmarks/still.py FOLDER [--backbone squeeze] [--size 64] [--images 500 1000]

The still images are one photograph of the folder with noise of ±1, the others those of
`scoring.py`; both are scored in turn in one process, medians of several rounds.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from score_lists import noisy
from scoring import Scoring

from lpipstore.cache.store import FeatureStore


def still(folder: str, count: int, size: int) -> torch.Tensor:
    """`count` images [size, size, 3] uint8: one of the folder with noise of ±1."""
    one = noisy(folder, 1, size).numpy().astype(np.int16)
    noise = np.random.default_rng(0).integers(-1, 2, (count, *one.shape[1:]), np.int16)
    return torch.from_numpy((one + noise).clip(0, 255).astype(np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--backbone", default="squeeze")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--images", type=int, nargs="+", default=[500, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    most = max(options.images)
    with tempfile.TemporaryDirectory(prefix="lpipstore-bench-") as scratch:
        kinds = {"ordinary": noisy, "still": still}
        sides = {}
        for name, make in kinds.items():
            store = FeatureStore(Path(scratch) / name)
            images = make(options.folder, most, options.size)
            sides[name] = Scoring(images, options.backbone, options.weights, store)
        for count in options.images:
            found: dict[str, list[float]] = {name: [] for name in sides}
            for _ in range(options.rounds + 1):
                for name, side in sides.items():
                    found[name].append(side.score(count)[1])
            took = {name: statistics.median(times[1:]) for name, times in found.items()}
            pairs = count * (count - 1) // 2
            print(
                f"{options.backbone}, N = {count}: "
                + ", ".join(
                    f"{name} {pairs / seconds:,.0f} pairs/s" for name, seconds in took.items()
                )
                + f"; still takes {took['still'] / took['ordinary']:.2f} × as long"
            )
        for side in sides.values():
            side.features.store.close()


if __name__ == "__main__":
    main()
