"""Nearest images of new ones: those of the dense matrix, from a run without its images."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lpipstore
from lpipstore.cache.errors import UsageError

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")
KEYWORDS = {"backbone": "squeeze", "weights": "random", "workers": 0}


@pytest.fixture
def new(tmp_path, draw):
    """Three new images; the first is a picture of `pictures` with other brightness."""
    (tmp_path / "new").mkdir()
    draw(tmp_path / "drawn", 6)
    with Image.open(tmp_path / "drawn" / "004.png") as image:
        image.point(lambda level: level * 0.98).save(tmp_path / "new" / "a.png")
    shutil.rmtree(tmp_path / "drawn")
    for name, path in zip("bc", draw(tmp_path / "new", 2, seed=7), strict=True):
        path.rename(path.with_name(f"{name}.png"))
    return tmp_path / "new"


def found_by(cli, *command):
    outcome = cli("neighbours", *command, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def expected(cli, new, pictures, tmp_path, most):
    out = tmp_path / "dense"
    assert cli("compare", new, pictures, *MODEL, "--out", out).code == 0
    matrix = lpipstore.open_run(out).distances.compute()
    order = np.argsort(matrix, axis=1, kind="stable")[:, :most]
    return order, np.take_along_axis(matrix, order, 1)


@pytest.mark.parametrize("kind", ["run", "images"])
def test_the_neighbours_are_those_of_the_matrix(cli, pictures, new, tmp_path, kind):
    order, distances = expected(cli, new, pictures, tmp_path, 3)
    assert cli("pairs", pictures, *MODEL, "--out", tmp_path / "run").code == 0
    given = (tmp_path / "run",) if kind == "run" else (pictures, *MODEL)
    found = found_by(cli, *given, "--query", new, "--top-k", "3")
    assert (found["images"], found["failed"], found["forwards"]) == (8, 0, 0)
    assert [Path(query["path"]).name for query in found["queries"]] == ["a.png", "b.png", "c.png"]
    names = [
        [Path(near["path"]).stem for near in query["neighbours"]] for query in found["queries"]
    ]
    assert names == [[f"{number:03}" for number in row] for row in order]
    assert names[0][0] == "004"
    shown = [[near["distance"] for near in query["neighbours"]] for query in found["queries"]]
    assert np.array_equal(np.array(shown, np.float32), distances)


def test_a_run_needs_none_of_its_images(cli, pictures, new, tmp_path):
    """They are gone; only the new images go through the backbone, and only once."""
    order, _ = expected(cli, new, pictures, tmp_path, 2)
    assert cli("pairs", pictures, *MODEL, "--out", tmp_path / "run").code == 0
    shutil.rmtree(tmp_path / "store")
    assert cli("pairs", pictures, *MODEL, "--out", tmp_path / "again").code == 0
    shutil.rmtree(pictures)
    command = (tmp_path / "again", "--query", new / "a.png", "--query", new / "b.png")
    found = found_by(cli, *command, "--top-k", "2")
    assert (found["images"], found["forwards"]) == (8, 2)
    names = [
        [Path(near["path"]).stem for near in query["neighbours"]] for query in found["queries"]
    ]
    assert names == [[f"{number:03}" for number in row] for row in order[:2]]
    assert found_by(cli, *command)["forwards"] == 0


@pytest.mark.parametrize("kind", ["groups", "compare", "score", "top-k", "across"])
def test_any_run_with_images_is_searched(cli, finished, tmp_path, kind):
    run = finished(kind)
    found = found_by(cli, run, "--query", lpipstore.open_run(run).images["path"][0].as_py())
    assert found["forwards"] == 0
    usable = lpipstore.open_run(run).images["status"].to_pylist().count("ok")
    assert found["images"] == usable
    (query,) = found["queries"]
    assert len(query["neighbours"]) == min(10, usable)
    assert query["neighbours"][0] == {"path": query["path"], "distance": 0.0}
    assert found["failed"] == 0  # broken images of the run are not this command's


def test_a_run_of_neighbours_is_one_of_compare(cli, pictures, new, tmp_path):
    assert cli("pairs", pictures, *MODEL, "--out", tmp_path / "run").code == 0
    command = ("neighbours", tmp_path / "run", "--query", new, "--top-k", "2")
    outcome = cli(*command, "--out", tmp_path / "near", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["listed"] == 6
    run = lpipstore.open_run(tmp_path / "near")
    assert (run.kind, run.pairs.num_rows) == ("compare", 6)
    assert cli("compare", new, pictures, *MODEL, "--top-k", "2", "--out", tmp_path / "c").code == 0
    assert run.pairs.equals(lpipstore.open_run(tmp_path / "c").pairs)
    before = (tmp_path / "near" / "pairs.parquet").read_bytes()
    assert cli(*command, "--out", tmp_path / "near").code == 0  # goes on: nothing is left to do
    assert (tmp_path / "near" / "pairs.parquet").read_bytes() == before
    again = ("pairs", "--from", tmp_path / "near", "--out", tmp_path / "again")
    assert cli(*again).code == 0
    assert (tmp_path / "again" / "pairs.parquet").read_bytes() == before


def test_what_people_see(cli, pictures, new, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("pairs", "pictures", *MODEL, "--out", "run").code == 0
    outcome = cli("neighbours", "run", "--query", "new/a.png", "--query", "new/b.png")
    lines = [line.split() for line in outcome.out.splitlines()]
    assert ["query", "new/a.png"] in lines
    firsts = [words[2] for words in lines if words[:1] == ["1"]]
    assert firsts[0] == "pictures/004.png"
    assert len([words for words in lines if words[:1] == ["8"]]) == 2  # all eight images
    outcome = cli("neighbours", "run", "--query", "new/b.png", "--below", "1e-9")
    assert "nothing is that close" in outcome.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "pictures", "run", "store"]


def test_below_alone_lists_all_that_are_closer(cli, pictures, new, tmp_path):
    found = found_by(cli, pictures, *MODEL, "--query", new, "--below", "1e6")
    assert [len(query["neighbours"]) for query in found["queries"]] == [8, 8, 8]
    distances = [near["distance"] for near in found["queries"][1]["neighbours"]]
    assert distances == sorted(distances)
    few = found_by(cli, pictures, *MODEL, "--query", new, "--below", "0.01", "--top-k", "3")
    assert [len(query["neighbours"]) for query in few["queries"]] == [1, 0, 0]


def test_a_fast_run_is_searched_exactly(cli, pictures, new, tmp_path):
    _, distances = expected(cli, new, pictures, tmp_path, 2)
    out = tmp_path / "fast"
    assert cli("pairs", pictures, *MODEL, "--precision", "fast", "--out", out).code == 0
    found = found_by(cli, out, "--query", new, "--top-k", "2")
    shown = [[near["distance"] for near in query["neighbours"]] for query in found["queries"]]
    assert np.array_equal(np.array(shown, np.float32), distances)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--size", "48"), 2, "--size 48 contradicts the run that was given"),
        (("--backbone", "vgg"), 2, "--backbone vgg contradicts"),
        (("--heads", "none"), 1, "the head is another"),
        (("--top-k", "0"), 2, "--top-k takes a number from 1 on"),
        (("--below", "inf"), 2, "--below takes a distance"),
    ],
)
def test_what_contradicts_is_told(cli, finished, tmp_path, draw, options, code, words):
    run = finished()
    (query,) = draw(tmp_path / "q", 1, seed=3)
    outcome = cli("neighbours", run, "--query", query, *options)
    assert (outcome.code, words in " ".join(outcome.err.split())) == (code, True), outcome.err


def test_queries_that_cannot_be_used(cli, finished, tmp_path, draw):
    run = finished()
    (good,) = draw(tmp_path / "q", 1, seed=3)
    broken = tmp_path / "q" / "broken.png"
    broken.write_bytes(good.read_bytes()[:99])
    outcome = cli("neighbours", run, "--query", broken)
    assert (outcome.code, "none of 1 files can be used" in outcome.err) == (1, True)
    outcome = cli("neighbours", run, "--query", tmp_path / "gone.png")
    assert (outcome.code, "gone.png" in outcome.err) == (2, True), outcome.err
    found = found_by(cli, run, "--query", good, "--query", broken)
    assert (len(found["queries"]), found["failed"]) == (1, 1)
    outcome = cli("neighbours", run, tmp_path / "q", "--query", good)
    assert (outcome.code, "give it alone" in outcome.err) == (2, True), outcome.err
    assert cli("neighbours", run, "--query", good, "--query", broken, "--strict").code == 1


def test_a_run_without_a_collection_is_refused(cli, tmp_path, draw):
    (query,) = draw(tmp_path / "q", 1)
    (tmp_path / "H").mkdir()
    (tmp_path / "H" / "manifest.json").write_text(json.dumps({"command": "train"}))
    (tmp_path / "H" / "summary.json").write_text("{}")
    outcome = cli("neighbours", tmp_path / "H", "--query", query)
    assert outcome.code == 2
    assert "neighbours takes runs of pairs, compare and score" in " ".join(outcome.err.split())


def test_a_dry_run_leaves_nothing(cli, pictures, new, tmp_path):
    outcome = cli("neighbours", pictures, *MODEL, "--query", new, "--dry-run")
    assert outcome.code == 0, outcome.err
    assert "24 in 1 tile" in outcome.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "pictures"]


@pytest.mark.parametrize("what", ["path", "array", "tensor", "pillow", "batch"])
def test_python_takes_any_image(finished, monkeypatch, tmp_path, what):
    monkeypatch.setenv("LPIPSTORE_STORE", str(tmp_path / "store"))
    run = lpipstore.open_run(finished())
    path = run.images["path"][5].as_py()
    pixels = np.array(Image.open(path).convert("RGB"))
    image = {
        "path": path,
        "array": pixels,
        "tensor": torch.from_numpy(pixels).permute(2, 0, 1).float() / 255,
        "pillow": Image.fromarray(pixels),
        "batch": np.stack([pixels, pixels]),
    }[what]
    more = {"value_range": (0, 1)} if what == "tensor" else {}
    table = run.nearest(image, 3, workers=0, **more)
    assert table.column_names == ["query", "rank", "index", "path", "distance"]
    count = 2 if what == "batch" else 1
    assert table["query"].to_pylist() == [n for n in range(count) for _ in range(3)]
    assert table["rank"].to_pylist() == [1, 2, 3] * count
    assert (table["index"][0].as_py(), table["path"][0].as_py()) == (5, path)
    assert table["distance"][0].as_py() < 1e-6
    images = run.images["path"].to_pylist()
    assert [images[n] for n in table["index"].to_pylist()] == table["path"].to_pylist()
    matrix = run.distances.compute()
    if what == "path":
        assert np.allclose(table["distance"], np.sort(matrix[5])[:3], rtol=0, atol=1e-7)
    few = run.nearest(image, 3, below=1e-5, workers=0, **more)
    assert few["index"].to_pylist() == [5] * count
    for wrong in ({"k": 0}, {"below": -1}):
        with pytest.raises(UsageError):
            run.nearest(image, workers=0, **wrong, **more)


def test_python_makes_a_run(pictures, new, tmp_path, monkeypatch):
    monkeypatch.setenv("LPIPSTORE_STORE", str(tmp_path / "store"))
    near = lpipstore.neighbours(pictures, new, 2, **KEYWORDS)
    assert near.pairs.num_rows == 6
    run = lpipstore.pairs(pictures, **KEYWORDS)
    assert lpipstore.neighbours(run, new, 2).pairs.equals(near.pairs)
    assert lpipstore.neighbours(run, new).pairs.num_rows == 24
    close = lpipstore.neighbours(run, [new / "a.png"], below=0.01)
    assert close.pairs["j"].to_pylist() == [4]
