"""Near-duplicates that were planted: how many does the suggested threshold find, kind by kind?

    python tests/benchmarks/duplicates.py FOLDER… --count 1000 --planted 200

Photographs are taken from the folders; of every fifth of `planted` a copy of another kind is
planted. Prints the threshold, its reason, precision and recall.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

import lpipstore
from lpipstore.pipeline.sources.sources import Sources
from lpipstore.workflows.session.screen import print_lines, print_table

SIDE = 256


def recoded(image: Image.Image, path: Path) -> None:
    """Save at JPEG quality 50."""
    image.save(path.with_suffix(".jpg"), quality=50)


def resized(image: Image.Image, path: Path) -> None:
    """Save 2 % smaller."""
    side = round(SIDE * 0.98)
    image.resize((side, side), Image.Resampling.BICUBIC).save(path.with_suffix(".png"))


def cropped(image: Image.Image, path: Path) -> None:
    """Save without 2 % at each side."""
    edge = round(SIDE * 0.02)
    image.crop((edge, edge, SIDE - edge, SIDE - edge)).save(path.with_suffix(".png"))


def brightened(image: Image.Image, path: Path) -> None:
    """Save 2 % brighter."""
    ImageEnhance.Brightness(image).enhance(1.02).save(path.with_suffix(".png"))


def mirrored(image: Image.Image, path: Path) -> None:
    """Save mirrored, which LPIPS takes for another picture."""
    ImageOps.mirror(image).save(path.with_suffix(".png"))


KINDS = (recoded, resized, cropped, brightened, mirrored)


def plant(sources: list[Path], folder: Path, count: int, planted: int) -> dict[str, str]:
    """Write `count` crops of photographs and the copies; return the kind of each copy by name."""
    names = Sources().find(sources).names
    random = np.random.default_rng(0)
    kinds = {}
    for number in range(count):
        with Image.open(names[number % len(names)]) as opened:
            image = opened.convert("RGB")
        room = min(image.size)
        side = round(room * random.uniform(0.4, 0.6)) if number >= len(names) else room
        left, top = (int(random.integers(0, edge - side + 1)) for edge in image.size)
        box = (left, top, left + side, top + side)
        image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)
        image.save(folder / f"{number:05}.png")
        if number < planted:
            kind = KINDS[number % len(KINDS)]
            kind(image, folder / f"{number:05}-copy")
            kinds[f"{number:05}"] = kind.__name__
    return kinds


def main() -> None:
    """Plant, search, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--planted", type=int, default=200)
    parser.add_argument("--backbone", default="squeeze")
    parser.add_argument("--size", default="64")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lpipstore-bench-") as scratch:
        folder = Path(scratch) / "pictures"
        folder.mkdir()
        kinds = plant(options.folders, folder, options.count, options.planted)
        found = lpipstore.duplicates(
            folder, backbone=options.backbone, size=options.size, store=Path(scratch) / "store"
        )
        pairs = [
            {Path(path).name[:5] for path in group.paths}
            for group in found.groups
            if len(group.paths) == 2
        ]
        right = {next(iter(names)) for names in pairs if len(names) == 1}
        wrong = len(found.groups) - len(right)
    print_lines("Threshold", [("below", f"{found.below:g}"), ("reason", found.reason)])
    rows = []
    for kind in KINDS:
        planted = [name for name, of in kinds.items() if of == kind.__name__]
        hits = sum(name in right for name in planted)
        rows.append((kind.__name__, f"{len(planted)}", f"{hits}", f"{hits / len(planted):.3f}"))
    print_table("Planted", ("kind", "copies", "found", "recall"), rows)
    share = len(right) / max(1, len(found.groups))
    lines = [("found", f"{len(found.groups):,}"), ("not planted", f"{wrong:,}")]
    print_lines("Groups", [*lines, ("precision", f"{share:.3f}")])


if __name__ == "__main__":
    main()
