"""What 10⁴ to 10⁷ images cost, as a table in markdown: from a laptop to a cluster.

    python tests/benchmarks/costs.py [--kinds alex:64 alex:224] [--workers 100] [--memory 4GB]
        [--rounds 3]

The rates of this machine are those of ``--dry-run``: decoding and forwards, products, reading of
rows, on all of torch's threads (a laptop) and on one (a worker; their seconds are divided by the
number of workers, as if disks and network kept up). All else is counted: rows and pairs from the
plan of the matrix within the memory. ``--below`` computes at least the bounds of all pairs from one
vector of pooled activations per image; what they leave depends on the collection.
"""

import argparse
import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from cluster import draw

from lpipstore.pipeline.backbones.load import load_backbone
from lpipstore.pipeline.common.tasks import Crew
from lpipstore.pipeline.matrix.plan import MatrixPlan, plan_matrix, shared
from lpipstore.workflows.scoring.all_pairs import score_pairs
from lpipstore.workflows.session.dryrun import Forecast
from lpipstore.workflows.session.screen import Screen
from lpipstore.workflows.session.settings import Settings, parse_bytes, show_bytes

COUNTS = (10**4, 10**5, 10**6, 10**7)
SAMPLE = 512
MOST_MATRIX = 1e12  # bytes on a disk that people have
MOST_HOURS = 24 * 7
HEADER = (
    "images",
    "store",
    "forwards: 1 machine",
    "matrix",
    "operations",
    "rows read: 1 machine",
    "by {workers} workers",
    "all pairs: 1 machine",
    "{workers} workers",
    "`--below`, at least: 1 machine",
    "{workers} workers",
    "ask for",
)


@dataclass(frozen=True)
class Rates:
    """Seconds of a decoded and forwarded image, of a row read, and of an operation."""

    forward: float
    read: float
    operation: float


@dataclass(frozen=True)
class Kind:
    """A backbone and size: its rates on this machine and on one thread of it.

    `columns` take part in a distance, `channels` in its coarsest bound.
    """

    name: str
    row_bytes: int
    columns: float
    channels: int
    machine: Rates
    worker: Rates


def calibrated(backbone: str, side: int, memory: str, rounds: int) -> Kind:
    """Time a few drawn pictures as ``--dry-run`` does, before and after their rows are stored.

    Each rate is the best of some rounds.
    """
    with tempfile.TemporaryDirectory(prefix="lpipstore-bench-") as name:
        scratch = Path(name)
        draw(scratch / "pictures", SAMPLE, side)
        settings = Settings(
            backbone=backbone,
            weights="random",
            size=str(side),
            store=scratch / "store",
            memory=memory,
            quiet=True,
        )

        def foreseen(dask: str | None) -> Forecast:
            dry = replace(settings, dask=dask, dry_run=True)
            with Screen(quiet=True) as screen:
                found = score_pairs([str(scratch / "pictures")], scratch / "dry", dry, screen)
            assert isinstance(found, Forecast)
            return found

        ways = (None, "local:1")
        cold = [[foreseen(dask) for _ in range(rounds)] for dask in ways]
        with Screen(quiet=True) as screen:
            score_pairs([str(scratch / "pictures")], scratch / "run", settings, screen)
        warm = [[foreseen(dask) for _ in range(rounds)] for dask in ways]
    rates = [
        Rates(
            forward=min(told.seconds["forward"] / told.estimate.forwards for told in before),
            read=min(told.seconds["read"] / told.estimate.rows_read for told in after),
            operation=min(told.seconds["score"] / told.estimate.operations for told in after),
        )
        for before, after in zip(cold, warm, strict=True)
    ]
    told = cold[0][0].estimate
    layout = load_backbone(backbone, weights="random").layout(side, side)
    return Kind(
        f"{backbone} {side} px",
        told.bytes_kept // told.forwards,
        told.operations / told.pairs / 2,
        sum(channels for channels, _, _ in layout.taps),
        *rates,
    )


def rows_read(plan: MatrixPlan) -> float:
    """Return how many rows all pairs take: each slab is read once for each that comes before it."""
    return plan.rows * (math.ceil(plan.rows / plan.slab) + 1) / 2


def size(count: float) -> str:
    """Return bytes as people write them, in TB at most."""
    return f"{count / 1e12:,.0f} TB" if count >= 1e14 else show_bytes(round(count))


def hours(seconds: float) -> str:
    """Return a time in minutes, hours, days or years."""
    for name, length in (("years", 365 * 86400), ("days", 2 * 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            unit = 86400 if name == "days" else length
            return f"{seconds / unit:,.3g} {name}"
    return f"{seconds:.2g} s"


def costs(kind: Kind, count: int, workers: int, memory: int) -> list[str]:
    """Return the line of the table for so many images."""
    pairs = count * (count - 1) / 2
    operations = 2 * pairs * kind.columns
    plan = plan_matrix(count, kind.row_bytes, memory)
    crew = Crew(workers=lambda: workers, memory=memory)
    piece = shared(plan, kind.row_bytes, crew).slab
    read = (rows_read(plan), count * (math.ceil(count / piece) + 1))
    whole, least = list[float](), list[float]()
    for rates, share, rows in ((kind.machine, 1, read[0]), (kind.worker, workers, read[1])):
        forwards = count * rates.forward
        whole.append((forwards + rows * rates.read + operations * rates.operation) / share)
        least.append((forwards + 2 * pairs * kind.channels * rates.operation) / share)
    matrix = 4 * count**2
    sensible = matrix <= MOST_MATRIX and whole[1] <= MOST_HOURS * 3600
    return [
        f"{count:,}",
        show_bytes(count * kind.row_bytes),
        hours(count * kind.machine.forward),
        size(matrix),
        f"{operations:.2g}",
        *(size(rows * kind.row_bytes) for rows in read),
        *map(hours, whole),
        *map(hours, least),
        "all pairs, `--below`, `--top-k`" if sensible else "`--below`, `--top-k`",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", default=["alex:64", "alex:224"])
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--memory", default="4GB")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for given in options.kinds:
        backbone, _, side = given.partition(":")
        kind = calibrated(backbone, int(side), options.memory, options.rounds)
        print(f"\n{kind.name}: a row takes {show_bytes(kind.row_bytes)}")
        for name, rates in (("all threads", kind.machine), ("one thread", kind.worker)):
            print(
                f"on {name}: {1 / rates.forward:,.0f} images/s decoded and forwarded, "
                f"{1 / rates.operation / 1e9:,.0f} GFLOP/s, "
                f"{show_bytes(round(kind.row_bytes / rates.read))}/s read"
            )
        header = [name.format(workers=options.workers) for name in HEADER]
        print("\n|" + "|".join(f" {name} " for name in header) + "|")
        print("|" + "---|" * len(header))
        for count in COUNTS:
            line = costs(kind, count, options.workers, parse_bytes(options.memory))
            print("|" + "|".join(f" {cell} " for cell in line) + "|")


if __name__ == "__main__":
    main()
