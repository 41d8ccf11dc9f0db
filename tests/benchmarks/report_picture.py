"""Make the picture of a report that stands in the README.

    python tests/benchmarks/report_picture.py --out tests/benchmarks/report.webp

Scores all pairs of the scenes that ``lpipstore demo`` draws, makes their report, opens it in
Chromium (light, 1280 pixels wide) and takes a picture of its most telling part. Drawn scenes, so
that the picture is ours to give away. Weights as for `lpipstore demo`; untrained ones are an error.
"""

import argparse
import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

import lpipstore
from lpipstore.workflows.demo import draw_pictures

WIDTH = 1280
MOST = 150_000  # bytes
_QUALITIES = (90, 84, 78, 70, 60)


def photograph(page: Path, section: str, cell: tuple[float, float]) -> Image.Image:
    """Return a section of a page as it looks with the pointer over a point of its heat map."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        tab = browser.new_page(viewport={"width": WIDTH, "height": 1000}, color_scheme="light")
        tab.goto(page.absolute().as_uri())
        tab.evaluate("report.loaded")
        part = tab.locator(f"#{section}")
        part.scroll_into_view_if_needed()
        canvas = part.locator(".view > canvas").first
        box = canvas.bounding_box()
        if box is None:
            raise SystemExit(f"the section {section} shows nothing")
        canvas.hover(position={"x": box["width"] * cell[0], "y": box["height"] * cell[1]})
        tab.wait_for_timeout(500)
        picture = tab.screenshot(clip=_clip(tab, section), full_page=True)
        browser.close()
    return Image.open(io.BytesIO(picture)).convert("RGB")


def _clip(tab: Page, section: str) -> dict[str, float]:
    """Return the box of a section on the page, as wide as the window."""
    top, height = tab.evaluate(
        """(name) => {
          const box = document.getElementById(name).getBoundingClientRect();
          return [box.top + scrollY, box.height];
        }""",
        section,
    )
    margin = 30  # the section's own space above its heading is larger
    return {"x": 0, "y": top + margin, "width": WIDTH, "height": height}


def save(picture: Image.Image, out: Path) -> int:
    """Save as WebP of the best quality that stays below `MOST` bytes; return the bytes."""
    for quality in _QUALITIES:
        picture.save(out, "WEBP", quality=quality, method=6)
        if out.stat().st_size <= MOST:
            return out.stat().st_size
    raise SystemExit(f"{out} has {out.stat().st_size:,} bytes, more than {MOST:,}")


def main() -> None:
    """Draw, score, look, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("tests/benchmarks/report.webp"))
    parser.add_argument("--backbone", default="squeeze")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lpipstore-picture-") as scratch:
        folder = Path(scratch) / "scenes"
        draw_pictures(folder)
        store = Path(scratch) / "store"
        out = Path(scratch) / "run"
        run = lpipstore.pairs(folder, backbone=options.backbone, store=store, out=out)
        picture = photograph(run.report(), "matrix", (0.36, 0.435))
    width, height = picture.size
    print(f"{options.out}: {width} × {height}, {save(picture, options.out):,} bytes")


if __name__ == "__main__":
    main()
