"""Peak memory of whole runs under several budgets, and that the budget changes no byte.

    python tests/benchmarks/memory.py FOLDER [--backbone vgg] [--size 224] [--images 1000]

The rows of the images (those of the folder, repeated with noise) take several times as much as the
largest budget. Each run of `lpipstore pairs` is a process of its own, on one warm store.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from score_lists import noisy

COMMAND = (sys.executable, "-c", "from lpipstore.workflows.cli.app import main; main()")


def digest(folder: Path) -> str:
    """Digest of all chunks of a matrix, names included."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return found.hexdigest()[:16]


def run(arguments: list[str]) -> tuple[float, int]:
    """Return the seconds and the peak resident bytes of a run of lpipstore."""
    start = time.perf_counter()
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"lpipstore failed: {status}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--backbone", default="vgg")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--budgets", nargs="+", default=["1GB", "2GB", "4GB"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lpipstore-bench-") as name:
        scratch = Path(name)
        (scratch / "images").mkdir()
        for number, image in enumerate(noisy(options.folder, options.images, options.size)):
            Image.fromarray(image.numpy()).save(scratch / "images" / f"{number:05}.bmp")
        common = [str(scratch / "images"), "--backbone", options.backbone, "--weights"]
        common += [options.weights, "--size", str(options.size), "--store", str(scratch / "store")]
        common += ["--store-limit", "1TB"]
        seconds, peak = run(["extract", *common])
        size = sum(f.stat().st_size for f in (scratch / "store").rglob("*") if f.is_file())
        print(f"extract: {seconds:.0f} s, peak {peak / 1e9:.2f} GB, rows {size / 1e9:.1f} GB")
        seen = set()
        for budget in options.budgets:
            out = scratch / f"run-{budget}"
            seconds, peak = run(["pairs", *common, "--memory", budget, "--out", str(out)])
            seen.add(digest(out / "distances.zarr"))
            print(f"--memory {budget}: {seconds:.1f} s, peak {peak / 1e9:.2f} GB", flush=True)
        print("the same bytes:", len(seen) == 1)


if __name__ == "__main__":
    main()
