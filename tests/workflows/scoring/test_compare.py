"""Two folders, image by image: namesakes, what has none, and what people get wrong."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import lpipstore
from lpipstore.pipeline.sources.sources import Sources

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")


def summary_of(outcome):
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


@pytest.fixture
def folders(tmp_path, draw):
    """Two folders: five names in common (one in a subfolder), one and two of their own."""
    first, second = tmp_path / "first", tmp_path / "second"
    draw(first, 6)
    draw(second, 6, seed=1)
    shutil.copy(first / "003.png", second / "003.png")
    (second / "005.png").rename(second / "b.png")
    for folder, name in ((first, "000.png"), (second, "001.png")):
        (folder / "sub").mkdir()
        shutil.copy(folder / name, folder / "sub" / "x y.png")
    (second / "000.png").rename(second / "c.png")
    shutil.copy(second / "c.png", second / "000.png")
    (first / "005.png").rename(first / "only\nhere.png")
    return first, second


def test_namesakes_are_scored_and_the_others_listed(cli, folders, tmp_path):
    first, second = folders
    run = tmp_path / "run"
    summary = summary_of(cli("compare", first, second, "--paired", *MODEL, "--out", run, "--json"))
    assert (summary["pairs"], summary["only_in_first"], summary["only_in_second"]) == (6, 1, 2)
    table = lpipstore.open_run(run).pairs
    assert table.column_names[:5] == ["i", "j", "path_i", "path_j", "distance"]
    lines = table.to_pylist()
    names = [f"00{n}.png" for n in range(5)] + ["sub/x y.png"]
    for line, name in zip(lines, names, strict=False):
        assert (line["name"], line["status"]) == (name, "scored")
        assert (line["path_i"], line["path_j"]) == (f"{first}/{name}", f"{second}/{name}")
        assert (line["distance"] == 0) == (name == "003.png")
    rest = [(line["name"], line["status"], line["distance"]) for line in lines[6:]]
    assert rest == [
        ("only\\nhere.png", "only in first", None),
        ("b.png", "only in second", None),
        ("c.png", "only in second", None),
    ]
    assert [line["path_i"] for line in lines[7:]] == [None, None]
    assert summary["images"] == 12  # those without a partner are not looked at


def test_distances_are_those_of_the_matrix(cli, folders, tmp_path):
    first, second = folders
    summary_of(
        cli("compare", "--paired", first, second, *MODEL, "--out", tmp_path / "run", "--json")
    )
    summary_of(cli("pairs", first, second, *MODEL, "--out", tmp_path / "all", "--json"))
    every = lpipstore.open_run(tmp_path / "all")
    place = {path: n for n, path in enumerate(every.images["path"].to_pylist())}
    matrix = every.distances.compute()
    for line in lpipstore.open_run(tmp_path / "run").pairs.to_pylist()[:6]:
        expected = matrix[place[line["path_i"]], place[line["path_j"]]]
        assert abs(line["distance"] - expected) < 1e-6


def test_what_people_see(cli, folders, tmp_path):
    outcome = cli("compare", "--paired", *folders, *MODEL, "--out", tmp_path / "run")
    assert outcome.code == 0
    assert "1 only in the first folder, 2 only in the second" in outcome.out


def test_a_pair_that_cannot_be_scored_says_so(cli, folders, tmp_path):
    whole = (folders[1] / "002.png").read_bytes()
    (folders[1] / "002.png").write_bytes(whole[: len(whole) // 2])
    command = ("compare", "--paired", *folders, *MODEL, "--out", tmp_path / "run", "--json")
    summary = summary_of(cli(*command))
    assert (summary["failed"], summary["failed_pairs"], summary["pairs"]) == (1, 1, 5)
    line = lpipstore.open_run(tmp_path / "run").pairs.to_pylist()[2]
    assert (line["status"], line["distance"], line["i"], line["j"]) == ("failed", None, 2, None)
    assert cli(*command, "--strict").code == 1


def test_folders_that_cannot_be_read_are_counted(cli, folders, tmp_path, monkeypatch):
    def find(sources, given):
        found = whole(sources, given)
        found.unreadable.append((f"{given[0]}/locked", "folder cannot be read: no way"))
        return found

    whole = Sources.find
    monkeypatch.setattr(Sources, "find", find)
    outcome = cli("compare", "--paired", *folders, *MODEL, "--out", tmp_path / "run", "--json")
    summary = summary_of(outcome)
    assert (summary["failed"], summary["pairs"]) == (2, 6)
    assert outcome.err.count("locked is left out: folder cannot be read") == 2
    status = lpipstore.open_run(tmp_path / "run").images["status"].to_pylist()
    assert status == ["ok"] * 12 + ["failed"] * 2


def test_the_same_command_goes_on(cli, folders, tmp_path):
    command = ("compare", "--paired", *folders, *MODEL, "--out", tmp_path / "run", "--json")
    summary_of(cli(*command))
    before = (tmp_path / "run" / "pairs.parquet").read_bytes()
    (tmp_path / "run" / "pairs.parquet").unlink()
    assert summary_of(cli(*command))["rows_read"] == 0
    assert (tmp_path / "run" / "pairs.parquet").read_bytes() == before
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folders[0] / "000.png")
    outcome = cli(*command)
    assert (outcome.code, "holds a different run" in outcome.err) == (2, True)


def test_what_people_get_wrong(cli, folders, tmp_path):
    first, _ = folders
    (tmp_path / "strangers").mkdir()
    shutil.copy(first / "000.png", tmp_path / "strangers" / "z.png")
    (tmp_path / "empty").mkdir()
    for second, code, message in (
        (tmp_path / "nowhere", 2, "nowhere is not a folder"),
        (first / "000.png", 2, "000.png is not a folder"),
        (tmp_path / "strangers", 1, "no two images have the same name"),
        (tmp_path / "empty", 1, "has 0 images"),
    ):
        outcome = cli("compare", "--paired", first, second, *MODEL, "--out", tmp_path / "run")
        assert (outcome.code, outcome.out) == (code, "")
        assert message in " ".join(outcome.err.split())


def test_every_image_is_scored_against_every_image_of_the_other_folder(cli, draw, tmp_path):
    draw(tmp_path / "first", 5)
    draw(tmp_path / "second", 3, seed=1)
    shutil.copy(tmp_path / "first" / "002.png", tmp_path / "second" / "same.png")
    (tmp_path / "second" / "broken.png").write_bytes(b"nothing")
    command = ("compare", tmp_path / "first", tmp_path / "second", *MODEL)
    summary = summary_of(cli(*command, "--out", tmp_path / "run", "--json"))
    assert (summary["first"], summary["second"], summary["pairs"]) == (5, 4, 20)
    assert (summary["forwards"], summary["failed"]) == (8, 1)
    run = lpipstore.open_run(tmp_path / "run")
    matrix = run.distances.compute()
    both = [tmp_path / "first", *sorted((tmp_path / "second").glob("[0-9s]*.png"))]
    whole = lpipstore.distance_matrix(both, backbone="squeeze", weights="random")
    assert np.abs(matrix - whole[:5, 5:]).max() < 1e-6
    assert (matrix == 0).sum() == 1
    assert matrix[2, 3] == 0
    assert summary["mean"] == pytest.approx(matrix.mean(), rel=1e-6)
    images = run.images.to_pydict()
    assert images["side"] == ["first"] * 5 + ["second"] * 5
    assert images["index"] == [0, 1, 2, 3, 4, 0, 1, 2, None, 3]
    again = summary_of(cli(*command, "--out", tmp_path / "run", "--json"))
    assert again["forwards"] == 0
    assert cli(*command, "--heads", "none", "--out", tmp_path / "run").code == 2


def test_statistics_are_for_lists(cli, draw, tmp_path):
    draw(tmp_path / "first", 2)
    command = ("compare", tmp_path / "first", tmp_path / "first", "--keep-statistics")
    outcome = cli(*command, *MODEL, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "--paired" in outcome.err


@pytest.fixture
def restored(tmp_path, draw):
    """PNG originals and JPEG versions of five of them, one in a subfolder; one more of each."""
    first, second = tmp_path / "originals", tmp_path / "restored"
    for path in draw(first, 5):
        (second / "sub").mkdir(parents=True, exist_ok=True)
        Image.open(path).save(second / path.with_suffix(".jpg").name)
    (first / "sub").mkdir()
    (first / "004.png").rename(first / "sub" / "x.y.png")
    (second / "004.jpg").rename(second / "sub" / "x.y.jpg")
    shutil.copy(first / "000.png", first / "more.png")
    shutil.copy(second / "000.jpg", second / "else.jpg")
    return first, second


def test_stems_pair_what_only_the_suffix_tells_apart(cli, restored, tmp_path):
    command = ("compare", *restored, "--paired", *MODEL)
    refused = cli(*command, "--out", tmp_path / "no")
    assert refused.code == 1
    assert "no two images have the same name" in refused.err
    assert "--match stem would pair 5 of them" in refused.err
    run = tmp_path / "run"
    summary = summary_of(cli(*command, "--match", "stem", "--out", run, "--json"))
    assert (summary["pairs"], summary["only_in_first"], summary["only_in_second"]) == (5, 1, 1)
    lines = lpipstore.open_run(run).pairs.to_pylist()
    names = ["000", "001", "002", "003", "sub/x.y", "more", "else"]
    assert [line["name"] for line in lines] == names
    assert lines[4]["path_i"].endswith("x.y.png") and lines[4]["path_j"].endswith("x.y.jpg")
    again = cli("pairs", "--from", run, "--out", tmp_path / "again")
    assert again.code == 0, again.err
    one, two = (lpipstore.open_run(tmp_path / name) for name in ("run", "again"))
    assert one.pairs.equals(two.pairs)
    assert one.manifest["match"] == two.manifest["match"] == "stem"


def test_few_namesakes_and_many_stems_are_told(cli, restored, tmp_path):
    shutil.copy(restored[0] / "more.png", restored[1] / "more.png")
    outcome = cli("compare", *restored, "--paired", *MODEL, "--out", tmp_path / "run")
    assert "1 images have a namesake, and 5 more would" in outcome.err
    assert "--match stem" in outcome.err


def test_what_match_cannot_be(cli, restored, tmp_path):
    command = ("compare", *restored, *MODEL, "--out", tmp_path / "run")
    for options, words in (
        (("--paired", "--match", "suffix"), "choose name, stem"),
        (("--match", "stem"), "give --paired, too"),
    ):
        outcome = cli(*command, *options)
        assert (outcome.code, words in outcome.err) == (2, True), outcome.err
    shutil.copy(restored[1] / "000.jpg", restored[1] / "000.jpeg")
    outcome = cli(*command, "--paired", "--match", "stem")
    assert (outcome.code, "cannot tell" in outcome.err) == (2, True)
    assert "000.jpeg" in outcome.err and "000.jpg" in outcome.err
