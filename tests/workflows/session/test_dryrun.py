"""`--dry-run` foretells what the command then does, and does nothing."""

import numpy as np
import pytest
from PIL import Image

from lpipstore.pipeline.distances import distances
from lpipstore.pipeline.matrix import plan as schedule
from lpipstore.pipeline.runs.writing import writing_run
from lpipstore.workflows.scoring.all_pairs import score_pairs
from lpipstore.workflows.scoring.close_pairs import find_close
from lpipstore.workflows.scoring.compare import compare_folders, compare_paired
from lpipstore.workflows.scoring.groups import score_groups
from lpipstore.workflows.scoring.table import score_table
from lpipstore.workflows.session.screen import Screen
from lpipstore.workflows.session.settings import Settings

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")


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


def tear(path):
    """Leave of a picture its header: the survey takes it for an image, the decoder does not."""
    path.write_bytes(path.read_bytes()[:60])


def commands(folders):
    first, second = folders / "a", folders / "b"
    return {
        "pairs": lambda *rest: score_pairs([first], *rest).entries(),
        "groups": lambda *rest: score_groups([first, second], *rest).entries(),
        "compare": lambda *rest: compare_folders([first], [second], *rest).entries(),
        "paired": lambda *rest: compare_paired([first], [second], *rest).entries(),
        "score": lambda *rest: score_table(folders / "pairs.csv", *rest).entries(),
        "close": lambda *rest: find_close([first], *rest, below=0.5).entries(),
    }


@pytest.mark.parametrize("name", ["pairs", "groups", "compare", "paired", "score", "close"])
def test_it_foretells_what_is_done(folders, name):
    command, out, screen = commands(folders)[name], folders / "run", Screen(quiet=True)
    choices = {"backbone": "squeeze", "weights": "random", "size": "32", "workers": 0}
    settings = Settings(**choices, store=folders / "store")
    foretold = command(out, Settings(**choices, store=folders / "store", dry_run=True), screen)
    assert not out.exists()
    assert not settings.store.exists()
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


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["pairs", "groups", "compare", "paired", "score", "close"])
def test_a_finished_run_leaves_nothing_to_do(folders, name):
    command, out, screen = commands(folders)[name], folders / "run", Screen(quiet=True)
    tear(folders / "a" / "6.png")
    choices = {"backbone": "squeeze", "weights": "random", "size": "32", "workers": 0}
    done = command(out, Settings(**choices, store=folders / "store"), screen)
    before = files_of(out)
    told = command(out, Settings(**choices, store=folders / "store", dry_run=True), screen)
    assert files_of(out) == before
    assert (told["images"], told["failed"]) == (done["images"], done["failed"])
    left = ("forwards", "tiles", "rows_read", "operations")
    assert [told[figure] for figure in left] == [0, 0, 0, 0]
    assert told["seconds"]["total"] == 0
    assert told["tiles_done"] > 0


@pytest.mark.parametrize("name", ["pairs", "compare", "score"])
def test_what_a_run_has_begun_is_not_counted_again(folders, name, monkeypatch):
    monkeypatch.setattr(schedule, "_TILE", 4)
    monkeypatch.setattr(distances, "_BLOCK", 4)
    monkeypatch.setattr(distances, "_SMALLEST_BLOCK", 4)
    command, out, screen = commands(folders)[name], folders / "run", Screen(quiet=True)
    choices = {"backbone": "squeeze", "weights": "random", "size": "32", "workers": 0}
    settings = Settings(**choices, store=folders / "store")
    dry = Settings(**choices, store=folders / "store", dry_run=True)
    command(out, settings, screen)
    fresh = command(folders / "new", dry, screen)
    array = out / "distances.zarr" / "c"
    lost = array / "0" if name == "score" else array / "0" / "1"
    lost.unlink()
    told = command(out, dry, screen)
    assert told["pairs"] == fresh["pairs"]
    if name == "score":
        assert told["tiles"] == fresh["tiles"] == 1
    else:
        assert (told["tiles"], told["tiles_done"]) == (1, fresh["tiles"] - 1)
        assert 0 < told["operations"] < fresh["operations"]
        height, width = (4, 3) if name == "pairs" else (4, 1)
        width_of_head = fresh["operations"] / fresh["pairs"]
        assert told["operations"] == height * width * width_of_head


def test_a_folder_that_would_be_refused_is_refused(cli, pictures, tmp_path):
    command = ("pairs", pictures, *MODEL, "--dry-run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.partial").touch()
    (tmp_path / "file").touch()
    assert cli("pairs", pictures, *MODEL, "--size", "40", "--out", tmp_path / "other").code == 0
    for out, words in (
        ("mine", "is not empty and holds no run"),
        ("file", "is a file"),
        ("other", "holds a different run (size"),
        ("file/run", "cannot write results"),
    ):
        outcome = cli(*command, "--out", tmp_path / out)
        assert (outcome.code in (1, 2), words in outcome.err) == (True, True), outcome.err
        assert "seconds" not in outcome.out
    with writing_run(tmp_path / "held", {"command": "pairs"}):
        outcome = cli(*command, "--out", tmp_path / "held")
    assert "another process is writing" in outcome.err or "different run" in outcome.err


@pytest.mark.parametrize("kind", ["pairs", "groups", "compare", "across", "paired", "score"])
def test_strict_is_strict(cli, jobs, tmp_path, kind):
    (tmp_path / "others" / "broken.png").touch()
    outcome = cli(*jobs[kind], *MODEL, "--dry-run", "--strict", "--out", tmp_path / "run")
    assert "Would do" in outcome.out
    assert (outcome.code, "--strict" in outcome.err) == (1, True)
    assert cli(*jobs[kind], *MODEL, "--dry-run", "--out", tmp_path / "run").code == 0


def test_a_store_that_is_there_keeps_what_it_has(cli, pictures, tmp_path):
    command = ("pairs", pictures, *MODEL, "--size", "224")
    assert cli(*command, "--out", tmp_path / "run").code == 0
    outcome = cli(*command, "--store-limit", "2MB", "--dry-run", "--out", tmp_path / "new")
    assert "forwards    0 (already in the store: 8)" in outcome.out
    assert (
        "forwards    0 (already in the store: 8)"
        in cli(*command, "--dry-run", "--out", tmp_path / "new").out
    )


def test_a_store_that_cannot_be_made_is_told(cli, pictures, tmp_path):
    (tmp_path / "file").touch()
    where = ("--store", tmp_path / "file" / "store", "--out", tmp_path / "run")
    outcome = cli("pairs", pictures, *MODEL, "--dry-run", *where)
    assert (outcome.code, "store cannot be made" in outcome.err) == (1, True), outcome.err
