"""Peak memory of the command by itself, whatever number of rows passes through it.

    python tests/benchmarks/memory_cluster.py [--images 10000 40000] [--dask local:2]

Rows of alex at 64 px, 64 kB each: two workers extract them, the command pushes them to a folder
behind a URL, pulls them into an empty store, and has pairs of neighbours scored. Workers are
processes of their own and are not counted.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

# The peak of this process alone, without its children and without what came before exec
_COMMAND = """
import sys
from pathlib import Path
from lpipstore.workflows.cli.app import main
if __name__ == "__main__":
    try:
        main()
    finally:
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
        Path(sys.argv[0]).with_suffix(".peak").write_text(peak)
"""


def draw(path: Path, count: int) -> None:
    """Write an array of random pictures, [count, 64, 64, 3]."""
    shape = count, 64, 64, 3
    pictures = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    random = np.random.default_rng(0)
    for start in range(0, count, 1000):
        coarse = random.integers(0, 256, (min(1000, count - start), 8, 8, 3), np.uint8)
        pictures[start : start + 1000] = coarse.repeat(8, axis=1).repeat(8, axis=2)


def measured(name: str, script: Path, *words: object) -> None:
    """Run a command; print its seconds and its peak."""
    begin = time.perf_counter()
    command = [sys.executable, script, *words, "--quiet"]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    peak = int(script.with_suffix(".peak").read_text()) * 1024
    print(f"  {name}: {peak / 1e6:.0f} MB, {time.perf_counter() - begin:.0f} s", flush=True)


def measure(scratch: Path, count: int, dask: str) -> None:
    """Measure all commands with a number of images."""
    script, pictures = scratch / "command.py", scratch / "pictures.npy"
    script.write_text(_COMMAND)
    draw(pictures, count)
    table = scratch / "pairs.csv"
    lines = [f"{pictures}#{n},{pictures}#{n + 1}" for n in range(count - 1)]
    table.write_text("\n".join(["path_a,path_b", *lines]) + "\n")
    model = ("--weights", "random", "--memory", "1GB")
    first, second = ("--store", scratch / "first"), ("--store", scratch / "second")
    url = f"file://{scratch}/remote"
    print(f"{count:,} images, {count * 63_744 / 1e9:.2f} GB of rows:")
    model_alone = ("--weights", "random")
    measured("extract", script, "extract", pictures, *model_alone, *first, "--dask", dask)
    measured("push", script, "store", "push", url, *first)
    measured("pull", script, "store", "pull", url, *second)
    out = ("--out", scratch / "run", "--dask", dask)
    measured("score", script, "score", table, *model, *second, *out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 40_000])
    parser.add_argument("--dask", default="local:2")
    options = parser.parse_args()
    for count in options.images:
        scratch = Path(tempfile.mkdtemp(prefix="lpipstore-bench-"))
        try:
            measure(scratch, count, options.dask)
        finally:
            shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
