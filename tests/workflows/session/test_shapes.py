"""What people are told of images whose size, shape or colours change."""

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageCms

MODEL = ("--backbone", "alex", "--weights", "random")


@pytest.fixture
def mixed(tmp_path):
    """A small picture, a wide one, and one of the size that all come to."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, shape in (("small", (20, 20)), ("wide", (64, 150)), ("right", (64, 64))):
        Image.fromarray(random.integers(0, 256, (*shape, 3), np.uint8)).save(folder / f"{name}.png")
    return folder


def test_what_changes_a_lot_is_counted(cli, mixed, tmp_path):
    outcome = cli("pairs", mixed, "--size", "64", *MODEL, "--out", tmp_path / "run")
    assert outcome.code == 0
    assert "1 of 3 images is enlarged more than 2 times to 64×64" in outcome.err
    assert "small.png (20×20)" in outcome.err
    assert "1 of 3 images is stretched" in outcome.err
    assert "wide.png (150×64)" in outcome.err


def test_photographs_of_three_to_two_are_usual(cli, tmp_path):
    (tmp_path / "usual").mkdir()
    for name, shape in (("a", (333, 500)), ("b", (500, 333))):
        Image.fromarray(np.zeros((*shape, 3), np.uint8)).save(tmp_path / "usual" / f"{name}.png")
    command = ("pairs", tmp_path / "usual", "--size", "64", *MODEL, "--out", tmp_path / "run")
    assert "stretched" not in cli(*command).err


def test_a_fit_that_keeps_the_shape_says_nothing_of_it(cli, mixed, tmp_path):
    for fit in ("crop", "pad"):
        command = ("pairs", mixed, "--size", "64", *MODEL, "--out", tmp_path / fit, "--fit", fit)
        outcome = cli(*command)
        assert outcome.code == 0
        assert "stretched" not in outcome.err


def test_each_fit_has_rows_of_its_own(cli, mixed, tmp_path):
    forwards = []
    for name, choice in (("one", ()), ("two", ("--fit", "crop")), ("three", ("--fit", "crop"))):
        command = ("pairs", mixed, "--size", "64", *MODEL, *choice, "--json")
        outcome = cli(*command, "--out", tmp_path / name)
        forwards.append(json.loads(outcome.out)["forwards"])
    assert forwards == [3, 3, 0]


def test_a_run_with_a_fit_is_made_again_and_rescored(cli, mixed, tmp_path):
    choices = ("--fit", "pad", "--icc", "convert")
    first = cli("pairs", mixed, "--size", "64", *MODEL, *choices, "--out", tmp_path / "one")
    assert first.code == 0
    again = cli("pairs", "--from", tmp_path / "one", "--out", tmp_path / "two", "--json")
    assert json.loads(again.out)["forwards"] == 0
    other = cli("pairs", "--from", tmp_path / "one", "--out", tmp_path / "three", "--fit", "crop")
    assert other.code == 2
    assert "--fit crop contradicts --from" in other.err
    command = ("rescore", tmp_path / "one", "--heads", "none", "--out", tmp_path / "four", "--json")
    assert json.loads(cli(*command, "--store", tmp_path / "empty").out)["forwards"] == 3


def test_unknown_choices(cli, mixed, tmp_path):
    for option, choice in (("--fit", "shrink"), ("--icc", "yes")):
        outcome = cli("pairs", mixed, *MODEL, option, choice, "--out", tmp_path / "run")
        assert outcome.code == 2
        assert f"unknown {option} '{choice}'" in outcome.err


def test_colour_profiles_are_counted_once_in_a_line(cli, mixed, tmp_path):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    picture = Image.open(mixed / "right.png")
    file = io.BytesIO()
    picture.save(file, "PNG", icc_profile=lab)
    (mixed / "right.png").write_bytes(file.getvalue())
    for name in ("cold", "warm"):  # from the file, and from what the store remembers of it
        outcome = cli("pairs", mixed, "--size", "64", *MODEL, "--out", tmp_path / name)
        assert outcome.err.count("1 of 3 images has a colour profile other than sRGB") == 1
        assert "--icc convert" in outcome.err
