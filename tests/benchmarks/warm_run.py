"""A warm `lpipstore pairs`, from process start to exit, against what it cannot do without.

    python tests/benchmarks/warm_run.py FOLDER [--images 1000] [--backbone squeeze] [--size 64]

That is: starting Python and importing torch (a process of its own), reading the rows with pread,
and the matrix products alone, on and above the diagonal in blocks of 256 rows. All in turn, medians
of several rounds. The images are those of the folder, repeated with noise.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from score_lists import noisy

from lpipstore.pipeline.backbones.load import load_backbone
from lpipstore.pipeline.distances.distances import block_of

COMMAND = (sys.executable, "-c", "from lpipstore.workflows.cli.app import main; main()")
_PANEL = 4096


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def read(path: Path, count: int, row_bytes: int) -> None:
    """Read rows one by one."""
    file = os.open(path, os.O_RDONLY)
    for number in range(count):
        os.pread(file, row_bytes, number * row_bytes)
    os.close(file)


def multiply(points: torch.Tensor, length: int, block: int) -> None:
    """Multiply panels of all columns, on and above the diagonal."""
    for start in range(0, length, _PANEL):
        panel = points[:, : min(_PANEL, length - start)]
        for top in range(0, len(points), block):
            torch.mm(panel[top : top + block], panel[top:].T)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--backbone", default="squeeze")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    count = options.images
    with tempfile.TemporaryDirectory(prefix="lpipstore-bench-") as name:
        scratch = Path(name)
        (scratch / "images").mkdir()
        for number, image in enumerate(noisy(options.folder, count, options.size)):
            Image.fromarray(image.numpy()).save(scratch / "images" / f"{number:05}.png")
        common = ["--backbone", options.backbone, "--weights", options.weights, "--store"]
        common += [str(scratch / "store"), "--size", str(options.size), "--quiet"]

        def run(*words: str) -> float:
            shutil.rmtree(scratch / "run", ignore_errors=True)
            command = [*COMMAND, *words, str(scratch / "images"), *common]
            return timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))

        run("extract")
        trunk = load_backbone(options.backbone, weights=options.weights)
        length = trunk.layout(options.size, options.size).length
        (scratch / "rows").write_bytes(bytes(count * 2 * length))
        points, block = torch.rand(count, _PANEL), block_of(count, 2 * length)
        torch_alone = [sys.executable, "-c", "import torch"]
        rounds = [
            (
                run("pairs", "--out", str(scratch / "run")),
                timed(lambda: subprocess.run(torch_alone, check=True)),
                timed(lambda: read(scratch / "rows", count, 2 * length)),
                timed(lambda: multiply(points, length, block)),
            )
            for _ in range(options.rounds + 1)
        ]
        whole, start, reading, products = (
            statistics.median(side) for side in zip(*rounds[1:], strict=True)
        )
        floor = start + reading + products
        print(f"{options.backbone}, {options.size} px, {count:,} images, warm store")
        print(f"lpipstore pairs: {whole:.2f} s from process start to exit")
        print(
            f"import torch {start:.2f} s + pread {reading:.2f} s + products {products:.2f} s = "
            f"{floor:.2f} s: {whole / floor:.2f} times, {whole - floor:.2f} s more"
        )


if __name__ == "__main__":
    main()
