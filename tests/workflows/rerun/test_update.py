"""A collection that has changed since a run: only what is new is computed."""

import json
import shutil

import numpy as np
import pytest

import lpipstore
from lpipstore.pipeline.distances.distances import gram_distances

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")
OTHER = ("--weights", "random", "--workers", "0")


def matrix(folder):
    return lpipstore.open_run(folder).distances.compute()


def files_of(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "summary.json"
    }


@pytest.fixture
def first(cli, draw, tmp_path):
    """A run of 40 pictures in the folder ``many``."""
    draw(tmp_path / "many", 40)
    assert cli("pairs", tmp_path / "many", *MODEL, "--out", tmp_path / "run").code == 0
    return tmp_path / "run"


@pytest.fixture
def update(cli, first, tmp_path):
    """Update the first run into ``new`` and compare it with a fresh one; return the summary."""

    def run(*options):
        command = ("pairs", tmp_path / "many", "--update", first, "--out", tmp_path / "new")
        outcome = cli(*command, "--json", *options)
        assert outcome.code == 0, outcome.err
        fresh = ("--store", tmp_path / "store2", "--out", tmp_path / "fresh")
        assert cli("pairs", tmp_path / "many", *MODEL, *fresh).code == 0
        found, expected = matrix(tmp_path / "new"), matrix(tmp_path / "fresh")
        assert np.abs(found - expected).max() < 1e-7
        assert np.array_equal(found, found.T)
        assert not found.diagonal().any()
        one, two = (lpipstore.open_run(tmp_path / name).images for name in ("new", "fresh"))
        assert one.equals(two)
        assert not list((tmp_path / "new").glob(".lpipstore-*"))
        return json.loads(outcome.out), outcome.err

    return run


def test_added_removed_changed_and_renamed(update, draw, tmp_path, monkeypatch):
    many = tmp_path / "many"
    for path in draw(tmp_path / "more", 5, seed=7):
        path.rename(many / f"a{path.name}")  # before the others: all places change
    (many / "012.png").unlink()
    (many / "013.png").unlink()
    shutil.copy(draw(tmp_path / "else", 1, seed=8)[0], many / "020.png")
    (many / "030.png").rename(many / "zzz.png")
    pairs = []

    def counting(left, right, *rest, **options):
        count = len(left)
        pairs.append(count * (count - 1) // 2 if right is None else count * len(right))
        return gram_distances(left, right, *rest, **options)

    monkeypatch.setattr("lpipstore.pipeline.distances.scoring.gram_distances", counting)
    monkeypatch.chdir(tmp_path)
    summary, messages = update()
    command_pairs = pairs[:2]
    assert summary["forwards"] == 6
    assert summary["update"] == {
        "run": str(tmp_path / "run"),
        "added": 5,
        "removed": 2,
        "changed": 1,
        "renamed": 1,
        "computed": 6 * 37 + 15,
    }
    assert sum(command_pairs) == 6 * 37 + 15
    changes = json.loads((tmp_path / "new" / "changes.json").read_text())
    assert changes["changed"] == [str(many / "020.png")]
    assert changes["renamed"] == [[str(many / "030.png"), str(many / "zzz.png")]]
    assert str(many / "012.png") in changes["removed"]
    assert "5 added: many/a000.png, " in messages
    assert "1 changed: many/020.png" in messages
    assert "1 renamed: many/030.png → many/zzz.png" in messages


def test_a_copy_is_added_and_what_the_run_decides_is_not_overruled(update, cli, tmp_path):
    many = tmp_path / "many"
    shutil.copy(many / "003.png", many / "copy.png")
    summary, _ = update()
    changes = {kind: summary["update"][kind] for kind in ("added", "removed", "renamed")}
    assert changes == {"added": 1, "removed": 0, "renamed": 0}
    for option in (("--backbone", "alex"), ("--row-dtype", "float32")):
        again = ("--update", tmp_path / "run", *option, "--out", tmp_path / "x")
        outcome = cli("pairs", many, *again)
        assert (outcome.code, "contradicts --update" in outcome.err) == (2, True), outcome.err


def test_only_removed_needs_no_row(update, cli, tmp_path):
    for name in ("003.png", "039.png"):
        (tmp_path / "many" / name).unlink()
    assert cli("store", "clear").code == 0
    summary, _ = update()
    assert (summary["forwards"], summary["update"]["computed"]) == (0, 0)
    assert summary["update"]["removed"] == 2


def test_nothing_changed(update):
    summary, messages = update()
    assert (summary["forwards"], summary["hits"]) == (0, 40)
    assert "no image was added, removed or changed" in messages


def test_everything_changed(update, draw, tmp_path):
    draw(tmp_path / "many", 40, seed=5)
    summary, _ = update()
    assert summary["update"]["changed"] == 40
    assert summary["forwards"] == 40


def test_copies_of_old_and_new_images(update, draw, tmp_path):
    many = tmp_path / "many"
    shutil.copy(many / "004.png", many / "004-copy.png")
    (one,) = draw(tmp_path / "more", 1, seed=7)
    shutil.copy(one, many / "new.png")
    shutil.copy(one, many / "new-copy.png")
    summary, _ = update()
    assert summary["forwards"] == 1
    assert summary["update"]["computed"] == 40


def test_an_interrupted_update_goes_on(cli, update, first, draw, tmp_path):
    for path in draw(tmp_path / "more", 5, seed=7):
        path.rename(tmp_path / "many" / f"a{path.name}")
    update()
    before = files_of(tmp_path / "new")
    (tmp_path / "new" / "distances.zarr" / "c" / "0" / "0").unlink()
    (tmp_path / "new" / "summary.json").unlink()
    command = ("pairs", tmp_path / "many", "--update", first, "--out", tmp_path / "new")
    assert cli(*command).code == 0
    assert files_of(tmp_path / "new") == before
    left = tmp_path / "new" / ".lpipstore-added" / "among" / "zarr.json"  # killed at the very end
    left.parent.mkdir(parents=True)
    left.touch()
    assert cli(*command).code == 0
    assert files_of(tmp_path / "new") == before
    plain = cli("pairs", tmp_path / "many", *MODEL, "--out", tmp_path / "new")
    assert (plain.code, "different run" in plain.err) == (2, True)


def test_several_tiles(cli, draw, tmp_path):
    """600 images: two tiles a side, and places that move from one tile to the other."""
    draw(tmp_path / "many", 600, side=17)
    command = ("pairs", tmp_path / "many")
    assert cli(*command, *MODEL, "--out", tmp_path / "run").code == 0
    for number, path in enumerate(draw(tmp_path / "more", 20, side=17, seed=7)):
        path.rename(tmp_path / "many" / f"{number * 31:03}a.png")
    for number in range(100, 140):
        (tmp_path / "many" / f"{number}.png").unlink()
    update = ("--update", tmp_path / "run", "--out", tmp_path / "new", "--json")
    outcome = cli(*command, *update)
    assert json.loads(outcome.out)["forwards"] == 20
    assert cli(*command, *MODEL, "--out", tmp_path / "fresh").code == 0
    found, expected = matrix(tmp_path / "new"), matrix(tmp_path / "fresh")
    assert found.shape == (580, 580)
    assert np.abs(found - expected).max() < 1e-7
    assert np.array_equal(found, found.T)


def test_what_the_run_decides_cannot_be_chosen(cli, first, tmp_path):
    command = ("pairs", tmp_path / "many", "--update", first, "--out", tmp_path / "new")
    outcome = cli(*command, "--backbone", "vgg")
    assert (outcome.code, "--backbone vgg contradicts --update" in outcome.err) == (2, True)
    outcome = cli(*command, "--size", "64")
    assert (outcome.code, "was made with 32x32" in outcome.err) == (2, True)
    outcome = cli(*command, "--heads", "none")
    assert (outcome.code, "the head is another" in outcome.err) == (1, True)
    assert not (tmp_path / "new").exists()


def test_other_weights(cli, first, tmp_path, real_weights):
    (weights,) = real_weights.glob("squeezenet1_1*.pth")
    command = ("pairs", tmp_path / "many", "--update", first, "--out", tmp_path / "new")
    outcome = cli(*command, "--weights", weights)
    assert (outcome.code, "the weights of the trunk are others" in outcome.err) == (1, True)


def test_runs_that_cannot_be_updated(cli, first, pictures, tmp_path):
    outcome = cli("pairs", tmp_path / "many", "--update", first, "--out", first)
    assert (outcome.code, "another folder" in outcome.err) == (2, True)
    cli("pairs", pictures, *MODEL, "--group-by", "folder", "--out", tmp_path / "groups")
    cli("compare", pictures, tmp_path / "many", *MODEL, "--out", tmp_path / "compared")
    for run in ("groups", "compared"):
        command = ("--update", tmp_path / run, "--out", tmp_path / "new")
        outcome = cli("pairs", pictures, *command)
        assert (outcome.code, "is not a run of all pairs" in outcome.err) == (2, True)
    (first / "summary.json").unlink()
    outcome = cli("pairs", pictures, "--update", first, "--out", tmp_path / "new")
    assert (outcome.code, "is not finished" in outcome.err) == (2, True)


def test_a_run_that_lacks_a_tile(cli, first, tmp_path):
    (first / "distances.zarr" / "c" / "0" / "0").unlink()
    command = ("pairs", tmp_path / "many", "--update", first, "--out", tmp_path / "new")
    outcome = cli(*command)
    assert (outcome.code, "lacks distances" in outcome.err) == (1, True)
