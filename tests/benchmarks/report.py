"""What the page of a run costs: its size, seconds, memory, and the time to its first paint.

    python tests/benchmarks/report.py --images 240 2000 --megapixels 0.2
    python tests/benchmarks/report.py --images 2000 --megapixels 12

Draws pictures of that size (JPEG of quality 90), scores all pairs with an untrained backbone at
32 px, and builds the page in a process of its own. Few pictures are drawn and then changed by a
byte of comment, so that 2,000 of 12 megapixels are drawn in seconds and still are 2,000 files.
The first paint is that of a Chromium, if there is one. Budgets: 8 MB and 1.5 s for 240 images,
40 MB, 60 s and 2 GB for 2,000.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import lpipstore
from lpipstore.workflows.session.screen import print_table

DRAWN = 24
_BUILD = """
import json, resource, sys, time
import lpipstore
run = lpipstore.open_run(sys.argv[1])
start = time.perf_counter()
page = run.report()
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": seconds, "peak": peak, "bytes": page.stat().st_size}))
"""
_PAINT = """async () => {
  const paint = () => performance.getEntriesByName("first-contentful-paint")[0]?.startTime;
  while (paint() === undefined) await new Promise((done) => setTimeout(done, 20));
  const first = paint();
  await report.loaded;
  return [first, performance.now()];
}"""


def draw(folder: Path, count: int, megapixels: float) -> None:
    """Write `count` different JPEG files of that many megapixels, 4:3."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    random = np.random.default_rng(0)
    drawn = []
    for number in range(min(DRAWN, count)):
        coarse = Image.fromarray(random.integers(0, 256, (9, 12, 3), np.uint8))
        image = coarse.resize((height * 4 // 3, height), Image.Resampling.BICUBIC)
        grain = random.normal(0, 6, (height, height * 4 // 3, 1)).astype(np.int16)
        pixels = (np.asarray(image, np.int16) + grain).clip(0, 255).astype(np.uint8)
        path = folder / f"drawn{number}.jpg"
        Image.fromarray(pixels).save(path, quality=90)
        drawn.append(path.read_bytes())
        path.unlink()
    for number in range(count):
        comment = f"{number:06}".encode()
        marker = b"\xff\xfe" + (len(comment) + 2).to_bytes(2) + comment
        data = drawn[number % len(drawn)]
        (folder / f"{number:06}.jpg").write_bytes(data[:2] + marker + data[2:])


def build(run: Path) -> dict[str, float]:
    """Build the page of a run in a process of its own; return seconds, peak and bytes."""
    done = subprocess.run(
        [sys.executable, "-c", _BUILD, str(run)], capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def paint(page: Path) -> tuple[float, float] | None:
    """Return the seconds to the first paint and to the last picture; None without a browser."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        tab = browser.new_page()
        tab.goto(page.absolute().as_uri())
        first, last = tab.evaluate(_PAINT)
        browser.close()
    return first / 1000, last / 1000


def measure(count: int, megapixels: float) -> tuple[str, ...]:
    """Return a row of the table."""
    with tempfile.TemporaryDirectory(prefix="lpipstore-bench-") as scratch:
        folder = Path(scratch) / "pictures"
        folder.mkdir()
        draw(folder, count, megapixels)
        run = Path(scratch) / "run"
        lpipstore.pairs(
            folder, out=run, backbone="squeeze", weights="random", size=32, store=run.parent / "s"
        )
        found = build(run)
        painted = paint(run / "report.html")
    shown = ("", "") if painted is None else tuple(f"{seconds:.2f} s" for seconds in painted)
    return (
        f"{count:,}",
        f"{megapixels:g}",
        f"{found['bytes'] / 1e6:.1f} MB",
        f"{found['seconds']:.1f} s",
        f"{1000 * found['seconds'] / count:.1f} ms",
        f"{found['peak'] / 1e9:.2f} GB",
        *shown,
    )


def main() -> None:
    """Build and look, print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", nargs="+", type=int, default=[240, 2000])
    parser.add_argument("--megapixels", nargs="+", type=float, default=[0.2])
    options = parser.parse_args()
    header = ("images", "megapixels", "page", "built in", "each", "peak", "first paint", "pictures")
    rows = [measure(count, size) for size in options.megapixels for count in options.images]
    print_table("Reports of all pairs", header, rows)


if __name__ == "__main__":
    main()
