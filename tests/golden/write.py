"""Write the golden store and runs: ``python tests/golden/write.py /tmp/golden``.

Run it with the code whose format is to be kept, after a change of format that is meant. The runs
remember the folder, which therefore needs a neutral name. All of it becomes `data.zip` beside this
file; `test_golden.py` opens that with today's code.
"""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from lpipstore.workflows.cli.app import run_command

MODEL = ("--backbone", "alex", "--weights", "random", "--workers", "0", "--store", "store")
ALL = ("pairs", "pictures", "others")
KINDS = {
    "pairs": ALL,
    "groups": (*ALL, "--group-by", "folder"),
    "below": (*ALL, "--below", "0.12"),
    "top-k": (*ALL, "--top-k", "2"),
    "compare": ("compare", "pictures", "others"),
    "across": ("compare", "pictures", "others", "--top-k", "2"),
    "below-across": ("compare", "pictures", "others", "--below", "0.12"),
    "paired": ("compare", "pictures", "others", "--paired"),
    "score": ("score", "pairs.csv"),
    "score-statistics": ("score", "pairs.csv", "--keep-statistics"),
}
ARCHIVE = Path(__file__).resolve().with_name("data.zip")
SIDE = 31  # the smallest that AlexNet takes: rows of 11.5 kB
TABLE = "a,b,rating\npictures/000.png,others/001.png,3\npictures/002.png,pictures/003.png,5\n"


def draw(folder: Path, count: int, seed: int) -> None:
    """Write pictures of smooth random colours."""
    folder.mkdir()
    random = np.random.default_rng(seed)
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), np.uint8))
        smooth = coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        smooth.save(folder / f"{number:03}.png")


def main(folder: Path) -> None:
    """Write pictures, a store and a run of each kind into an empty folder."""
    folder.mkdir(parents=True)
    os.chdir(folder)
    draw(Path("pictures"), 6, seed=1)
    draw(Path("others"), 3, seed=2)
    shutil.copy("pictures/001.png", "others/002.png")  # equal images
    Path("pairs.csv").write_text(TABLE)
    for kind, command in KINDS.items():
        sys.argv = ["lpipstore", *command, *MODEL, "--out", f"runs/{kind}"]
        try:
            run_command()
        except SystemExit as end:
            if end.code:
                raise
    shutil.make_archive(str(ARCHIVE.with_suffix("")), "zip", folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
