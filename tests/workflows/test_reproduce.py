"""A run made again from its manifest."""

import json
import os

import numpy as np
import pytest

import lpipstore
from lpipstore.pipeline.heads import make_head, save_head

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")
CHANNELS = (64, 128, 256, 384, 384, 512, 512)


def files_of(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".json"
    }


def manifest_of(folder):
    manifest = lpipstore.open_run(folder).manifest
    return {name: value for name, value in manifest.items() if name not in ("folder", "head")}


@pytest.mark.parametrize("kind", ["plain", "grouped", "own head"])
def test_a_run_made_again_is_the_same(cli, pictures, tmp_path, monkeypatch, draw, kind):
    draw(pictures / "sub", 3, seed=3)
    (pictures / "broken.png").write_bytes(b"")
    own = make_head([np.random.default_rng(0).random(count) for count in CHANNELS], "own")
    save_head(own, tmp_path / "own.pth")
    more = {
        "plain": ("--size", "40", "--row-dtype", "float32"),
        "grouped": ("--group-by", "folder"),
        "own head": ("--heads", "own.pth", "--lpips-version", "0.0"),
    }[kind]
    monkeypatch.chdir(tmp_path)
    assert cli("pairs", "pictures", *MODEL, *more, "--out", "run").code == 0
    draw(pictures, 12)  # new images take no part, the others stay as they are
    monkeypatch.chdir(os.path.sep)
    again = ("--from", tmp_path / "run" / "manifest.json", "--store", tmp_path / "store2")
    outcome = cli("pairs", *again, "--out", tmp_path / "again")
    assert outcome.code == 0, outcome.err
    assert "last digits" not in outcome.err
    one, two = (tmp_path / name for name in ("run", "again"))
    assert manifest_of(one) == manifest_of(two)
    assert files_of(one / "distances.zarr") == files_of(two / "distances.zarr")
    if kind == "grouped":
        tables = [lpipstore.open_run(path).groups for path in (one, two)]
        assert tables[0].drop_columns(["group"]).equals(tables[1].drop_columns(["group"]))


def test_images_that_changed_are_named(cli, pictures, tmp_path, draw):
    assert cli("pairs", pictures, *MODEL, "--out", tmp_path / "run").code == 0
    (pictures / "002.png").unlink()
    (new,) = draw(tmp_path / "other", 1, seed=9)
    new.replace(pictures / "005.png")
    outcome = cli("pairs", "--from", tmp_path / "run", "--out", tmp_path / "again")
    assert outcome.code == 1
    assert "2 of 8 images are not what they were" in outcome.err
    assert "002.png (cannot be read: No such file" in outcome.err
    assert "005.png (other content)" in outcome.err
    assert "003.png" not in outcome.err
    assert not (tmp_path / "again").exists()


def test_other_versions_are_told(cli, pictures, tmp_path):
    assert cli("pairs", pictures, *MODEL, "--out", tmp_path / "run").code == 0
    path = tmp_path / "run" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(manifest))
    outcome = cli("pairs", "--from", path, "--out", tmp_path / "again")
    assert outcome.code == 0
    assert "was made with torch 1.0 (now " in outcome.err


def test_a_head_that_is_gone(cli, pictures, tmp_path):
    own = make_head([np.random.default_rng(0).random(count) for count in CHANNELS], "own")
    save_head(own, tmp_path / "own.pth")
    head = ("--heads", tmp_path / "own.pth")
    assert cli("pairs", pictures, *MODEL, *head, "--out", tmp_path / "run").code == 0
    (tmp_path / "own.pth").rename(tmp_path / "moved.pth")
    command = ("pairs", "--from", tmp_path / "run", "--out", tmp_path / "again")
    outcome = cli(*command)
    assert (outcome.code, "the head is another" in outcome.err) == (1, True)
    assert cli(*command, "--heads", tmp_path / "moved.pth").code == 0


def test_what_cannot_be_made_again(cli, pictures, tmp_path):
    (pictures / "pairs.csv").write_text("a,b\n000.png,001.png\n")
    cli("score", pictures / "pairs.csv", *MODEL, "--out", tmp_path / "scored")
    outcome = cli("pairs", "--from", tmp_path / "scored", "--out", tmp_path / "again")
    assert (outcome.code, "is not a plain run" in outcome.err) == (2, True)
    cli("pairs", pictures, *MODEL, "--top-k", "2", "--out", tmp_path / "near")
    outcome = cli("pairs", "--from", tmp_path / "near", "--out", tmp_path / "again")
    assert (outcome.code, "is not a plain run" in outcome.err) == (2, True)
    outcome = cli("pairs", "--from", tmp_path / "nowhere", "--out", tmp_path / "again")
    assert (outcome.code, "is not a run" in outcome.err) == (2, True)


def test_options_that_exclude_each_other(cli, pictures, tmp_path):
    out = ("--out", tmp_path / "again")
    outcome = cli("pairs", pictures, "--from", tmp_path, *out)
    assert (outcome.code, "leave out DIR" in outcome.err) == (2, True)
    outcome = cli("pairs", pictures, "--update", tmp_path, "--top-k", 3, *out)
    assert (outcome.code, "exclude each other" in outcome.err) == (2, True)
    outcome = cli("pairs", *out)
    assert (outcome.code, "pairs needs images" in outcome.err) == (2, True)
