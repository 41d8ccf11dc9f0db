"""Time and memory of the arithmetic behind clusters, picks and reports, for N images.

    python tests/benchmarks/clustering.py [--images 1000,2000,5000]

Squared distances of points around ten centres stand for LPIPS. Each step runs in a process of its
own, on one thread; its memory is what it takes besides the distances and the libraries.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from scipy.spatial.distance import squareform

from lpipstore.pipeline.analysis.cover import farthest_first
from lpipstore.pipeline.analysis.hierarchy import OPTIMAL_UP_TO, cluster_tree, leaf_order, medoids
from lpipstore.pipeline.analysis.hierarchy import cut as cut_tree
from lpipstore.pipeline.analysis.scaling import classical_scaling
from lpipstore.pipeline.analysis.silhouette import choose_count


def matrix_of(count: int) -> np.ndarray:
    """Return float32 [count, count]."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(10, 16)) * 2
    points = (random.normal(size=(count, 16)) + centres[np.arange(count) % 10]).astype(np.float32)
    squares = (points**2).sum(1)
    matrix = squares[:, None] + squares[None] - 2 * points @ points.T
    np.maximum(matrix, matrix.T.copy(), out=matrix)
    np.maximum(matrix, 0, out=matrix)
    np.fill_diagonal(matrix, 0)
    return matrix


def prepared(step: str, count: int):
    """Return the step as a function without arguments, its distances already at hand."""
    matrix = matrix_of(count)
    if step == "scaling":
        return lambda: classical_scaling(matrix)
    if step == "pick 100":
        return lambda: farthest_first(lambda i: matrix[i], 100, count)
    condensed = squareform(matrix, checks=False)
    if step == "tree":
        return lambda: cluster_tree(condensed)
    tree = cluster_tree(condensed)
    if step == "order":
        return lambda: leaf_order(condensed, tree)
    if step == "medoids":
        labels = cut_tree(tree, count=10)
        return lambda: medoids(matrix, labels)
    return lambda: choose_count(matrix, tree)


STEPS = ("tree", "order", "medoids", "silhouettes", "scaling", "pick 100")


def measure(step: str, count: int) -> None:
    run = prepared(step, count)
    before = peak(reset=True)
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    more = (peak() - before) / 2**20
    print(f"{count:>6,}  {step:<12} {seconds:8.2f} s  {more:8.0f} MiB more than before")


def peak(*, reset: bool = False) -> int:
    """Return the largest memory of this process in bytes, since it was last reset (Linux)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", default="1000,2000,5000")
    parser.add_argument("--step", choices=STEPS, help="only this one, in this process")
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.images.split(",")]
    if arguments.step:
        for count in counts:
            measure(arguments.step, count)
        return
    print(f"leaves are ordered optimally up to {OPTIMAL_UP_TO:,} images, above it end to end")
    for count in counts:
        for step in STEPS:
            command = [sys.executable, __file__, "--images", str(count), "--step", step]
            subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


if __name__ == "__main__":
    main()
