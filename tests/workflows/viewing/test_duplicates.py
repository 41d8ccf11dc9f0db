"""Near-duplicates: the groups of the dense matrix, the right image kept, nothing touched."""

import json
import os
import shutil

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFilter

import lpipstore

MODEL = ("--backbone", "squeeze", "--weights", "random", "--size", "32")


@pytest.fixture
def alike(tmp_path, draw):
    """Eight pictures; of the second a darker copy, of the fourth a softer and an equal one."""
    folder = tmp_path / "alike"
    draw(folder, 8, side=64)
    with Image.open(folder / "001.png") as image:
        image.point(lambda level: level * 0.97).resize((96, 96)).save(folder / "large.png")
    with Image.open(folder / "003.png") as image:
        image.filter(ImageFilter.BoxBlur(0.3)).save(folder / "soft.png")
    shutil.copy(folder / "003.png", folder / "twin.png")
    return folder


def names(entries) -> list[list[str]]:
    return [[os.path.basename(line["path"]) for line in group] for group in entries["groups"]]


def run(cli, *command):
    outcome = cli("duplicates", *command, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


@pytest.mark.parametrize("way", ["images", "matrix", "list"])
def test_groups_of_images_of_a_matrix_and_of_a_list(cli, alike, tmp_path, way):
    command = (alike, *MODEL)
    if way != "images":
        more = ("--below", "0.5") if way == "list" else ()
        assert cli("pairs", alike, *MODEL, *more, "--out", tmp_path / "run").code == 0
        command = (tmp_path / "run",)
    found = run(cli, *command, "--below", "0.05", "--keep", "first")
    assert names(found) == [["001.png", "large.png"], ["003.png", "soft.png", "twin.png"]]
    assert found["spare"] == 3
    assert found["groups"][1][2] == {**found["groups"][1][2], "keep": False, "distance": 0.0}


def test_what_is_kept(cli, alike):
    largest = run(cli, alike, *MODEL, "--below", "0.05")
    assert names(largest)[0] == ["large.png", "001.png"]
    sharpest = run(cli, alike, *MODEL, "--below", "0.05", "--keep", "sharpest")
    assert names(sharpest)[1][0] in ("003.png", "twin.png")
    assert names(sharpest)[1][-1] != names(sharpest)[1][0]


def test_a_threshold_is_suggested(cli, tmp_path, draw):
    folder = tmp_path / "many"
    draw(folder, 24, side=48)
    for number in range(12):
        with Image.open(folder / f"{number:03}.png") as image:
            image.point(lambda level: level * 0.98).save(folder / f"{number:03}-copy.png")
    found = run(cli, folder, *MODEL)
    assert [len(group) for group in found["groups"]] == [2] * 12
    assert "24 of 36 images have a neighbour" in found["reason"]
    assert cli("pairs", folder, *MODEL, "--out", tmp_path / "run").code == 0
    assert run(cli, tmp_path / "run")["below"] == found["below"]


def test_files_and_links(cli, alike, tmp_path):
    before = {path.name: path.read_bytes() for path in alike.iterdir()}
    for ending in ("csv", "json", "parquet"):
        run(cli, alike, *MODEL, "--below", "0.05", "--out", tmp_path / f"groups.{ending}")
    tables = [pa_csv.read_csv(tmp_path / "groups.csv"), pq.read_table(tmp_path / "groups.parquet")]
    for table in tables:
        assert table["group"].to_pylist() == [0, 0, 1, 1, 1]
        assert table["keep"].to_pylist() == [True, False, True, False, False]
    assert json.loads((tmp_path / "groups.json").read_text())["spare"] == 3
    run(cli, alike, *MODEL, "--below", "0.05", "--link", tmp_path / "links")
    links = sorted(path for path in (tmp_path / "links").rglob("*") if path.is_symlink())
    assert [path.parent.name for path in links] == ["1", "1", "2", "2", "2"]
    assert all(path.resolve().parent == alike for path in links)
    assert before == {path.name: path.read_bytes() for path in alike.iterdir()}
    again = cli("duplicates", alike, *MODEL, "--below", "0.05", "--link", tmp_path / "links")
    assert (again.code, "exists" in again.err) == (2, True)


def test_links_to_members_are_copies(cli, alike, tmp_path):
    shutil.make_archive(str(tmp_path / "alike"), "zip", alike)
    run(cli, tmp_path / "alike.zip", *MODEL, "--below", "0.05", "--link", tmp_path / "links")
    copies = [path for path in (tmp_path / "links").rglob("*.png") if not path.is_symlink()]
    assert len(copies) == 5
    assert {path.read_bytes() for path in copies} <= {p.read_bytes() for p in alike.iterdir()}


def test_chains_are_told_apart_by_complete_linkage(cli, tmp_path):
    folder = tmp_path / "chain"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    base = np.asarray(Image.fromarray(noise).resize((64, 64)), np.float64)
    for number, shade in enumerate((1.0, 0.8, 0.6)):
        Image.fromarray((base * shade).astype(np.uint8)).save(folder / f"{number}.png")
    whole = lpipstore.pairs(folder, weights="random", backbone="squeeze", size=32)
    matrix = np.asarray(whole.distances)
    below = (max(matrix[0, 1], matrix[1, 2]) + matrix[0, 2]) / 2
    assert matrix[0, 2] > below
    chained = run(cli, folder, *MODEL, "--below", f"{below}")
    assert [len(group) for group in chained["groups"]] == [3]
    complete = run(cli, folder, *MODEL, "--below", f"{below}", "--linkage", "complete")
    assert [len(group) for group in complete["groups"]] == [2]


def test_nothing_alike_and_everything_alike(cli, tmp_path, draw):
    draw(tmp_path / "some", 3, side=48)
    assert run(cli, tmp_path / "some", *MODEL, "--below", "1e-6")["groups"] == []
    for number in (1, 2):
        shutil.copy(tmp_path / "some" / "000.png", tmp_path / "some" / f"00{number}.png")
    assert len(run(cli, tmp_path / "some", *MODEL)["groups"][0]) == 3
    outcome = cli("duplicates", tmp_path / "some", *MODEL, "--below", "0.1")
    assert "1, with 2 images besides one of each" in outcome.out


def test_what_people_get_wrong(cli, alike, tmp_path):
    cli("pairs", alike, *MODEL, "--below", "0.01", "--out", tmp_path / "close")
    cli("pairs", alike, *MODEL, "--top-k", "2", "--out", tmp_path / "nearest")
    cli("compare", alike, alike, *MODEL, "--out", tmp_path / "crossed")
    for command, message in (
        ((tmp_path / "close", "--below", "0.2"), "only pairs closer than 0.01"),
        ((tmp_path / "nearest",), "does not have all close pairs"),
        ((tmp_path / "crossed",), "does not have all close pairs"),
        ((tmp_path / "close", alike), "give it alone"),
        ((alike, "--below", "-1"), "more than 0"),
        ((alike, "--keep", "best"), "unknown --keep 'best'"),
        ((alike, "--linkage", "ward"), "unknown --linkage 'ward'"),
        ((alike, "--out", tmp_path / "groups.txt"), "must end in .csv, .json, .parquet"),
        ((tmp_path / "gone",), "no such file"),
    ):
        outcome = cli("duplicates", *command, *MODEL)
        assert (outcome.code, outcome.out) == (2, ""), command
        assert message in outcome.err


def test_images_that_cannot_be_used_are_counted(cli, alike):
    (alike / "torn.png").write_bytes((alike / "000.png").read_bytes()[:90])
    command = (alike, *MODEL, "--below", "0.05")
    found = run(cli, *command)
    assert (found["failed"], found["images"]) == (1, 11)
    assert cli("duplicates", *command, "--strict").code == 1


def test_a_guess_is_called_one(cli, tmp_path, draw):
    draw(tmp_path / "few", 3, side=48)
    outcome = cli("duplicates", tmp_path / "few", *MODEL)
    assert "no clear threshold: --below sets one" in outcome.err
    assert "failed" in outcome.out


def test_images_in_memory_are_read_for_their_sharpness(alike):
    options = {"backbone": "squeeze", "weights": "random", "size": 32}
    images = [Image.open(path) for path in sorted(alike.iterdir())]
    found = lpipstore.duplicates(images, 0.05, keep="sharpest", **options)
    assert [len(group.paths) for group in found.groups] == [2, 3]


def test_from_python(alike):
    options = {"backbone": "squeeze", "weights": "random", "size": 32}
    found = lpipstore.duplicates(lpipstore.pairs(alike, **options), 0.05)
    assert [len(group.paths) for group in found.groups] == [2, 3]
    assert found.table().num_rows == 5
    assert lpipstore.duplicates(alike, 0.05, **options).groups == found.groups
