"""Two worker processes with one thread each, against one process with two threads.

    python tests/benchmarks/cluster.py [--images 2000] [--backbone alex] [--size 64] [--rounds 5]
    python tests/benchmarks/cluster.py --apart
    python tests/benchmarks/cluster.py --before FOLDER

All pairs of drawn pictures, with an empty store (cold) and with all rows in it (warm), in turn;
medians. The cluster runs already; how long one takes to start is printed, too. With `--apart`, the
same workers once more, as if they did not share the store: images and rows travel. With `--before`,
the folder holds another state of the package, as FOLDER/lpipstore: its runs in a process by itself
against those of this one, by the seconds of their summaries.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lpipstore.workflows.scoring.all_pairs import score_pairs
from lpipstore.workflows.session import cluster
from lpipstore.workflows.session.own_workers import started
from lpipstore.workflows.session.screen import Screen
from lpipstore.workflows.session.settings import Settings

THREADS = 2


def draw(folder: Path, count: int, side: int) -> None:
    """Write smooth random pictures."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{number:06}.png")


def fresh(folder: Path) -> Path:
    """Return a path at which nothing is."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def told(name: str, one: list[float], other: list[float]) -> None:
    """Print two lists of seconds, and the ratio of their medians."""
    here, there = statistics.median(one), statistics.median(other)
    print(f"{name}: {here:.2f} s and {there:.2f} s, {there / here:.2f} times")


@contextmanager
def apart(wanted: bool) -> Iterator[None]:
    """Have the probe find that no worker shares the store."""
    before = cluster.probe
    if wanted:
        cluster.probe = lambda client, store: replace(before(client, store), share=0)
    try:
        yield
    finally:
        cluster.probe = before


def against_cluster(options: argparse.Namespace, scratch: Path) -> None:
    """Compare runs in this process and on two workers."""
    import distributed

    torch.set_num_threads(THREADS)
    begin = time.perf_counter()
    stack = ExitStack()
    workers = stack.enter_context(started(distributed, THREADS))
    print(f"a cluster of {THREADS} starts in {time.perf_counter() - begin:.2f} s")
    names = ("here", "cluster", "apart") if options.apart else ("here", "cluster")
    seconds: dict[tuple[str, str], list[float]] = {}
    tiles: set[bytes] = set()
    for number in range(options.rounds + 1):
        for name in names:
            dask = None if name == "here" else workers.scheduler_address
            store = fresh(scratch / f"store-{name}")
            settings = Settings(
                backbone=options.backbone,
                weights=options.weights,
                size=str(options.size),
                store=store,
                dask=dask,
                quiet=True,
            )
            for state in ("cold", "warm"):
                out = fresh(scratch / f"run-{name}")
                with Screen(quiet=True) as screen, apart(name == "apart"):
                    taken = timed(
                        lambda out=out, settings=settings, screen=screen: score_pairs(
                            [str(scratch / "pictures")], out, settings, screen
                        )
                    )
                if number:  # the first round imports and loads
                    seconds.setdefault((name, state), []).append(taken)
                files = sorted((out / "distances.zarr" / "c").rglob("*"))
                tiles.add(b"".join(path.read_bytes() for path in files if path.is_file()))
    stack.close()
    for state, name in product(("cold", "warm"), names[1:]):
        told(f"{state}, here and on the {name}", seconds["here", state], seconds[name, state])
    print("same bytes" if len(tiles) == 1 else "THE BYTES DIFFER")


def against_before(options: argparse.Namespace, scratch: Path) -> None:
    """Compare runs of two states of the package, each in a process by itself."""
    ours = Path(__file__).resolve().parents[2]
    (scratch / "now").mkdir()
    (scratch / "now" / "lpipstore").symlink_to(ours)
    seconds: dict[tuple[str, str], list[float]] = {}
    for number in range(options.rounds + 1):
        for name, path in (("before", options.before), ("now", scratch / "now")):
            environment = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": str(THREADS)}
            store = fresh(scratch / f"store-{name}")
            for state in ("cold", "warm"):
                out = fresh(scratch / f"run-{name}")
                words = ["pairs", scratch / "pictures", "--backbone", options.backbone]
                words += ["--weights", options.weights, "--size", options.size, "--quiet"]
                words += ["--store", store, "--out", out]
                command = [sys.executable, "-m", "lpipstore", *map(str, words)]
                subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
                if number:
                    summary = json.loads((out / "summary.json").read_text())
                    seconds.setdefault((name, state), []).append(summary["seconds"]["total"])
    for state in ("cold", "warm"):
        told(f"{state}, before and now", seconds["before", state], seconds["now", state])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--backbone", default="alex")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--apart", action="store_true")
    parser.add_argument("--before", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lpipstore-bench-") as name:
        scratch = Path(name)
        draw(scratch / "pictures", options.images, options.size)
        if options.before is None:
            against_cluster(options, scratch)
        else:
            against_before(options, scratch)


if __name__ == "__main__":
    main()
