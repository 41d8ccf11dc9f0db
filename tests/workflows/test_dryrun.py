"""`--dry-run` foretells what the command then does, and does nothing."""

import numpy as np
import pytest
from PIL import Image

from lpipstore.workflows.collection import open_store
from lpipstore.workflows.compare import compare_folders, compare_paired
from lpipstore.workflows.console import Screen
from lpipstore.workflows.groups import score_groups
from lpipstore.workflows.nearest import find_close
from lpipstore.workflows.pairs import score_pairs
from lpipstore.workflows.score import score_table
from lpipstore.workflows.settings import Settings


@pytest.fixture
def folders(tmp_path):
    random = np.random.default_rng(0)
    for folder, count in (("a", 7), ("b", 5)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
    (tmp_path / "pairs.csv").write_text("left,right\na/0.png,b/1.png\na/0.png,a/2.png\n")
    return tmp_path


def commands(folders):
    first, second = folders / "a", folders / "b"
    return {
        "pairs": lambda *rest: score_pairs([first], *rest),
        "groups": lambda *rest: score_groups([first, second], *rest),
        "compare": lambda *rest: compare_folders(first, second, *rest),
        "paired": lambda *rest: compare_paired(first, second, *rest),
        "score": lambda *rest: score_table(folders / "pairs.csv", *rest),
        "close": lambda *rest: find_close([first], *rest, below=0.5),
    }


@pytest.mark.parametrize("name", ["pairs", "groups", "compare", "paired", "score", "close"])
def test_it_foretells_what_is_done(folders, name):
    command, out, screen = commands(folders)[name], folders / "run", Screen(quiet=True)
    choices = {"backbone": "squeeze", "weights": "random", "size": "32", "workers": 0}
    settings = Settings(**choices, store=folders / "store")
    foretold = command(out, Settings(**choices, store=folders / "store", dry_run=True), screen)
    assert not out.exists()
    with open_store(settings) as store:
        assert store.stat().rows == 0
    done = command(out, settings, screen)
    assert foretold["forwards"] == done["forwards"] > 0
    assert foretold["images"] == done["images"]
    assert foretold["pairs"] == done["pairs"]
    assert foretold["bytes_kept"] == done["bytes"]
    assert foretold["seconds"]["total"] > foretold["seconds"]["forward"] > 0
    assert foretold["at_most"] == (name == "close")
    again = command(
        folders / "again", Settings(**choices, store=settings.store, dry_run=True), screen
    )
    assert again["forwards"] == 0
    assert again["seconds"]["read"] > 0
    if "rows_read" in done and name != "close":  # the centre is read besides
        assert foretold["rows_read"] <= done["rows_read"]
