"""Pairs within folders: a mean for each, the mean of the means, and folders with too little."""

import itertools
import json

import numpy as np
import pytest

import lpipstore
from lpipstore.pipeline.images.survey import ImageRecord
from lpipstore.workflows.scoring.groups import _group, _pairs_within

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")


def summary_of(outcome):
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


@pytest.fixture
def classes(tmp_path, draw):
    """Folders of 6, 4, 1 and 3 pictures, one of them below another."""
    root = tmp_path / "classes"
    for seed, (name, count) in enumerate((("a", 6), ("b c", 4), ("lone", 1), ("a/deep", 3))):
        draw(root / name, count, seed=seed)
    return root


def group(cli, sources, out, *options):
    return cli("pairs", *sources, "--group-by", "folder", *MODEL, *options, "--out", out)


def test_each_folder_has_the_figures_of_its_own_run(cli, classes, tmp_path):
    summary = summary_of(group(cli, [classes], tmp_path / "run", "--json"))
    run = lpipstore.open_run(tmp_path / "run")
    lines = {line["group"]: line for line in run.groups.to_pylist()}
    assert set(lines) == {str(classes / name) for name in ("a", "b c", "lone", "a/deep")}
    means = []
    for number, name in enumerate(("a", "b c", "a/deep")):
        own = (classes / name / "*.png", *MODEL, "--out", tmp_path / f"own{number}", "--json")
        alone = summary_of(cli("pairs", *own))
        line = lines[str(classes / name)]
        assert (line["images"], line["pairs"]) == (alone["images"], alone["pairs"])
        for figure in ("mean", "std", "stderr"):
            assert line[figure] == pytest.approx(alone[figure], rel=1e-4)
        means.append(alone["mean"])
    assert lines[str(classes / "lone")] == {
        "group": str(classes / "lone"),
        "images": 1,
        "pairs": 0,
        "mean": None,
        "std": None,
        "stderr": None,
    }
    assert summary["pairs"] == 15 + 6 + 3
    groups = summary["groups"]
    assert (groups["count"], groups["scored"]) == (4, 3)
    assert groups["mean"] == pytest.approx(np.mean(means), rel=1e-5)
    assert groups["stderr"] == pytest.approx(np.std(means, ddof=1) / np.sqrt(3), rel=1e-3)


def test_pairs_are_listed_with_their_group(cli, classes, tmp_path):
    summary_of(group(cli, [classes], tmp_path / "run", "--json"))
    run = lpipstore.open_run(tmp_path / "run")
    images = run.images["path"].to_pylist()
    pairs = run.pairs.to_pylist()
    assert len(pairs) == 24
    for line in pairs:
        assert line["path_i"] == images[line["i"]]
        assert line["path_j"] == images[line["j"]]
        assert line["path_i"].rpartition("/")[0] == line["path_j"].rpartition("/")[0]
        assert line["group"] == line["path_i"].rpartition("/")[0]
    assert len({(line["i"], line["j"]) for line in pairs}) == 24


def test_broken_and_equal_images(cli, classes, tmp_path):
    whole = (classes / "b c" / "000.png").read_bytes()
    (classes / "b c" / "001.png").write_bytes(whole)
    (classes / "a" / "deep" / "000.png").write_bytes(whole[: len(whole) // 2])
    (classes / "a" / "deep" / "001.png").write_bytes(b"")
    outcome = group(cli, [classes], tmp_path / "run", "--json")
    summary = summary_of(outcome)
    assert summary["failed"] == 2
    run = lpipstore.open_run(tmp_path / "run")
    lines = {line["group"]: line for line in run.groups.to_pylist()}
    deep = lines[str(classes / "a" / "deep")]
    assert (deep["images"], deep["pairs"], deep["mean"]) == (1, 0, None)
    assert lines[str(classes / "b c")]["images"] == 4
    distances = [p["distance"] for p in run.pairs.to_pylist() if p["group"].endswith("b c")]
    assert distances.count(0) == 1
    assert None not in run.pairs["distance"].to_pylist()
    assert summary["pairs"] == run.pairs.num_rows == 15 + 6


def test_a_group_is_the_same_alone_and_among_others_within_the_bound(cli, tmp_path, draw):
    """Whole blocks of products against single differences: 20 folders of 20 pictures."""
    for number in range(20):
        draw(tmp_path / "many" / f"{number:02}", 20, side=17, seed=number)
    summary_of(group(cli, [tmp_path / "many"], tmp_path / "run", "--json"))
    one = [tmp_path / "many" / "07"]
    summary_of(group(cli, one, tmp_path / "one", "--json"))
    pairs = lpipstore.open_run(tmp_path / "run").pairs.to_pylist()
    among = [line["distance"] for line in pairs if line["group"].endswith("/07")]
    alone = lpipstore.open_run(tmp_path / "one").pairs["distance"].to_numpy()
    assert np.abs(np.array(among) - alone).max() < 1e-6


def test_what_people_see(cli, classes, tmp_path):
    outcome = group(cli, [classes], tmp_path / "run")
    assert outcome.code == 0
    assert "4 (1 with fewer than two images)" in outcome.out
    assert "(standard error over groups)" in outcome.out
    assert "groups.parquet" in outcome.out


def test_the_same_command_goes_on_and_another_stops(cli, classes, tmp_path):
    summary_of(group(cli, [classes], tmp_path / "run", "--json"))
    before = (tmp_path / "run" / "groups.parquet").read_bytes()
    (tmp_path / "run" / "groups.parquet").unlink()
    assert summary_of(group(cli, [classes], tmp_path / "run", "--json"))["rows_read"] == 0
    assert (tmp_path / "run" / "groups.parquet").read_bytes() == before
    outcome = cli("pairs", classes, *MODEL, "--out", tmp_path / "run")
    assert (outcome.code, "group_by" in outcome.err) == (2, True)


def test_pairs_of_a_large_folder_are_counted_before_they_are_listed(
    cli, tmp_path, draw, monkeypatch
):
    """Within the memory that is allowed: a folder of 30,000 images has 450 million pairs."""
    draw(tmp_path / "many", 40)

    def listed(*_):
        raise AssertionError("the pairs were listed")

    assert group(cli, [tmp_path / "many"], tmp_path / "small").code == 0
    monkeypatch.setattr("lpipstore.workflows.scoring.groups._PAIR_BYTES", 10_000_000)
    monkeypatch.setattr("lpipstore.workflows.scoring.groups._pairs_within", listed)
    outcome = group(cli, [tmp_path / "many"], tmp_path / "run")
    assert outcome.code == 2
    assert "780 pairs within folders: it takes 15600MB at least" in " ".join(outcome.err.split())
    assert "40 images" in outcome.err
    assert not (tmp_path / "run").exists()
    again = cli("pairs", "--from", tmp_path / "small", "--out", tmp_path / "again")
    assert again.code == 2
    assert "780 pairs within folders: it takes 15600MB" in " ".join(again.err.split())


def test_pairs_within_folders_are_those_of_each_folder():
    records = [ImageRecord(f"{name}/{n}", b"") for n in range(4) for name in "abc"]
    records[0] = ImageRecord("a/0", error="broken")
    names, group_of = _group(records)
    pairs = _pairs_within(records, group_of, len(names))
    found = sorted(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))
    good = [n for n, record in enumerate(records) if not record.error]
    expected = [(i, j) for i, j in itertools.combinations(good, 2) if group_of[i] == group_of[j]]
    assert found == expected


def test_what_people_get_wrong(cli, classes, tmp_path):
    for sources, option, code, message in (
        ([classes], "name", 2, "unknown --group-by 'name': choose folder"),
        ([classes / "lone"], "folder", 1, "no folder holds two images"),
        ([classes / "lone", classes / "a" / "000.png"], "folder", 1, "2 in 2 folders"),
    ):
        run = tmp_path / "run"
        outcome = cli("pairs", *sources, "--group-by", option, *MODEL, "--out", run)
        assert (outcome.code, outcome.out) == (code, "")
        assert message in " ".join(outcome.err.split())
