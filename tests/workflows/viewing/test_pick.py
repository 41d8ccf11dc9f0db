"""Images that cover a collection: farthest-first over the matrix, each radius true."""

import json
import os
import shutil

import numpy as np
import pyarrow.csv as pa_csv
import pytest
from PIL import Image

import lpipstore
from lpipstore.cache.errors import UsageError

MODEL = ("--backbone", "squeeze", "--weights", "random", "--size", "32")
OPTIONS = {"backbone": "squeeze", "weights": "random", "size": 32}


@pytest.fixture(scope="module")
def run(tmp_path_factory, draw):
    """The run of ten pictures."""
    folder = tmp_path_factory.mktemp("pick")
    draw(folder / "images", 10, side=48)
    lpipstore.pairs(folder / "images", out=folder / "run", store=folder / "store", **OPTIONS)
    return lpipstore.open_run(folder / "run")


def numbers(run, paths):
    known = [os.path.basename(path) for path in run.images["path"].to_pylist()]
    return [known.index(os.path.basename(path)) for path in paths]


@pytest.mark.parametrize("start", [None, 7, "007.png", "images/007.png"])
@pytest.mark.parametrize("memory", ["4GB", "1B"])
def test_each_is_the_farthest_from_those_before(run, start, memory):
    matrix = np.asarray(run.distances).astype(np.float64)
    found = run.pick(4, start, memory=memory)
    picked = [int(np.argmin(matrix.sum(1))) if start is None else 7]
    while len(picked) < 4:
        picked.append(int(np.argmax(matrix[:, picked].min(1))))
    assert numbers(run, found.paths) == picked
    radii = [matrix[:, picked[: k + 1]].min(1).max() for k in range(4)]
    assert found.radii == radii
    assert run.pick(2, start).paths == found.paths[:2]


def test_more_than_there_are_and_all_the_same(cli, run, tmp_path, draw):
    outcome = cli("pick", run.path, "--count", "11", "--json")
    assert "there are only 10 images: all of them are picked" in outcome.err
    picked = json.loads(outcome.out)
    assert (len(picked["picked"]), picked["radius"]) == (10, 0)
    draw(tmp_path / "same", 1, side=48)
    for number in range(1, 4):
        shutil.copy(tmp_path / "same" / "000.png", tmp_path / "same" / f"00{number}.png")
    assert cli("pairs", tmp_path / "same", *MODEL, "--out", tmp_path / "run").code == 0
    same = lpipstore.open_run(tmp_path / "run")
    found = same.pick(3)
    assert (numbers(same, found.paths), found.radii) == ([0, 1, 2], [0.0, 0.0, 0.0])


def test_files_and_links(cli, run, tmp_path):
    out, link = tmp_path / "picked.csv", tmp_path / "chosen"
    outcome = cli("pick", run.path, "--count", "3", "--out", out, "--link", link)
    assert outcome.code == 0
    assert "every image is within" in outcome.out
    table = pa_csv.read_csv(out).to_pydict()
    assert table["rank"] == [1, 2, 3]
    assert table["radius"] == pytest.approx(run.pick(3).radii, abs=1e-12)
    links = sorted(link.iterdir())
    assert [path.name[:2] for path in links] == ["1-", "2-", "3-"]
    assert [str(path.resolve()) for path in links] == [os.path.realpath(p) for p in table["path"]]
    for again in (("--out", out), ("--link", link)):
        assert cli("pick", run.path, "--count", "3", *again).code == 2


def test_images_that_are_gone_are_left_out_of_the_links(cli, tmp_path, draw):
    paths = draw(tmp_path / "some", 3, side=48)
    odd = tmp_path / "some" / os.fsdecode(b"\xff \n'\".png")
    paths[1].rename(odd)
    assert cli("pairs", tmp_path / "some", *MODEL, "--out", tmp_path / "run").code == 0
    paths[0].unlink()
    outcome = cli("pick", tmp_path / "run", "--count", "3", "--link", tmp_path / "links")
    assert outcome.code == 0
    assert "left out of --link: " in outcome.err
    assert "000.png: it is gone" in outcome.err
    targets = {os.readlink(path) for path in (tmp_path / "links").iterdir()}
    assert targets == {str(odd), str(paths[2])}


def test_images_of_archives_are_copied(cli, tmp_path, draw):
    draw(tmp_path / "some", 3, side=48)
    shutil.make_archive(str(tmp_path / "some"), "zip", tmp_path / "some")
    pixels = np.stack([np.asarray(Image.open(p)) for p in sorted((tmp_path / "some").iterdir())])
    np.save(tmp_path / "some.npy", pixels)
    for name in ("some.zip", "some.npy"):
        out = tmp_path / f"{name}.run"
        assert cli("pairs", tmp_path / name, *MODEL, "--out", out).code == 0
        links = tmp_path / f"{name}.links"
        assert cli("pick", out, "--count", "3", "--link", links).code == 0
        copies = [np.asarray(Image.open(path)) for path in links.iterdir()]
        assert sorted(c.tobytes() for c in copies) == sorted(p.tobytes() for p in pixels)
    (tmp_path / "some.zip").unlink()
    gone = cli("pick", tmp_path / "some.zip.run", "--count", "1", "--link", tmp_path / "gone")
    assert (gone.code, "left out of --link" in gone.err) == (0, True)


def test_what_people_get_wrong(cli, run, tmp_path, draw):
    for folder in ("one", "two"):
        draw(tmp_path / "twice" / folder, 2, side=48)
    assert cli("pairs", tmp_path / "twice", *MODEL, "--out", tmp_path / "run").code == 0
    cli("pairs", tmp_path / "twice", *MODEL, "--top-k", "1", "--out", tmp_path / "near")
    for command, message in (
        ((run.path,), "count"),
        ((run.path, "--count", "0"), "--count 0 must be at least 1"),
        ((run.path, "--count", "2", "--start", "gone.png"), "gone.png is no usable image of"),
        ((tmp_path / "run", "--count", "1", "--start", "000.png"), "2 images end in 000.png"),
        ((tmp_path / "near", "--count", "1"), "is a run of nearest, and pick needs"),
        ((run.path, "--count", "1", "--out", tmp_path / "a.txt"), "must end in"),
    ):
        outcome = cli("pick", *command)
        assert (outcome.code, outcome.out) == (2, ""), command
        assert message in " ".join(outcome.err.split()), command
    exact = tmp_path / "twice" / "two" / "000.png"
    found = cli("pick", tmp_path / "run", "--count", "1", "--start", exact, "--json")
    assert json.loads(found.out)["picked"][0]["path"] == str(exact)
    with pytest.raises(UsageError, match="start=10 is no image of the run, which has 10"):
        run.pick(1, 10)


def test_images_in_memory(draw, tmp_path):
    images = [Image.open(path) for path in draw(tmp_path / "some", 3, side=48)]
    found = lpipstore.pairs(images, **OPTIONS).pick(2, start="python://images/2")
    assert found.paths[0] == "python://images/2"
