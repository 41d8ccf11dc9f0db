"""How much faster an epoch from cached statistics is than one through the trunk.

    python tests/benchmarks/train_epochs.py TRIPLETS.csv --images DIR [--judgements 256]

The same judgements in one process: the head alone on known statistics, the head with every image
going through the frozen trunk, and head and trunk together. Epochs from statistics are repeated and
their median is taken; those through the trunk are timed once, as they take long. Reading and
scoring between epochs is left out on both sides; decoding is part of what the trunk needs.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from lpipstore.pipeline.distances.threads import one_thread
from lpipstore.pipeline.judgements.table import CHOICES, read_judgements
from lpipstore.pipeline.training.distributed import Processes
from lpipstore.pipeline.training.trainer import run_epoch
from lpipstore.workflows.learning.judged import find_judged, pair_statistics_of
from lpipstore.workflows.learning.options import TrainOptions
from lpipstore.workflows.learning.train import begin_training, make_split
from lpipstore.workflows.session.screen import Screen, print_table
from lpipstore.workflows.session.session import open_session
from lpipstore.workflows.session.settings import Settings

ROUNDS = 9


def epoch_seconds(judged, known, session, options, rounds: int) -> float:
    """Median seconds of an epoch; `known` None sends images through the trunk."""
    split, trunk = make_split(judged, known, None, session, options)
    training = begin_training(judged.collection.head(session.settings), trunk, split, options)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run_epoch(training, split, Processes(), training.model)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--backbone", default="squeeze")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--size", default="128")
    parser.add_argument("--judgements", type=int, default=256)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lpipstore-bench-") as scratch:
        settings = Settings(
            backbone=options.backbone,
            weights=options.weights,
            size=options.size,
            store=Path(scratch) / "store",
            workers=0,
        )
        judgements = read_judgements([options.table], images=options.images)[CHOICES]
        judgements = judgements.only(np.arange(min(options.judgements, len(judgements))))
        with open_session(settings, Screen(quiet=True)) as session:
            judged = find_judged(judgements, session)
            start = time.perf_counter()
            judged, known = pair_statistics_of(judged, session)
            making = time.perf_counter() - start
        common = {"images": options.images, "held_out": 0.0, "batch": 50}
        frozen, tuned = (TrainOptions(**common, tune_trunk=tune) for tune in (False, True))
        with one_thread():
            cached = epoch_seconds(judged, known, session, frozen, ROUNDS)
        seconds = {
            "from cached statistics": cached,
            "through the frozen trunk": epoch_seconds(judged, None, session, frozen, 1),
            "tuning the trunk": epoch_seconds(judged, None, session, tuned, 1),
        }
    rows = [(name, f"{s:.4f}", f"{s / cached:,.0f} ×") for name, s in seconds.items()]
    title = f"One epoch of {len(judged.judgements):,} judgements, {options.backbone}"
    print_table(
        f"{title}, {options.size} px, {torch.get_num_threads()} threads",
        ("training", "seconds", "of cached"),
        rows,
    )
    print(f"statistics were made once, in {making:.2f} s")


if __name__ == "__main__":
    main()
