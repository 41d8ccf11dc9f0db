"""Evaluation from end to end: scores against those worked out by hand, several sets and kinds."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lpipstore.pipeline.distances.heads import make_head, save_head

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0", "--size", "32")


def summary_of(outcome):
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out, parse_constant=pytest.fail)  # JSON knows no NaN


@pytest.fixture
def greys(tmp_path):
    """Grey pictures, named by their level: L2 between them is known."""
    folder = tmp_path / "greys"
    folder.mkdir()
    for level in range(0, 250, 10):
        Image.new("RGB", (32, 32), (level,) * 3).save(folder / f"{level}.png")
    return folder


def write(folder, name, header, lines):
    path = folder / name
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def scores_of(summary, metric="L2"):
    return {
        (line["set"], line["score"]): line["value"]
        for line in summary["scores"]
        if line["metric"] == metric
    }


def test_scores_by_hand_ties_included(cli, greys, tmp_path):
    triplets = write(
        greys,
        "choices.csv",
        "ref,p0,p1,judge",
        [
            "100.png,110.png,150.png,0.25",  # p0 is nearer: 0.75, agrees
            "100.png,150.png,110.png,0.25",  # p1 is nearer: 0.25, does not
            "100.png,110.png,90.png,1",  # as near: a half of both
            "100.png,0.png,100.png,0.5",  # p1 is nearer, and people are divided
        ],
    )
    same = write(
        greys,
        "same.csv",
        "p0,p1,same",
        ["0.png,10.png,1", "0.png,20.png,0", "0.png,30.png,1", "50.png,70.png,1"],
    )
    out = tmp_path / "scores.parquet"
    command = ("evaluate", triplets, same, *MODEL, "--metrics", "L2,PSNR,baseline", "--out", out)
    summary = summary_of(cli(*command, "--json"))
    found = scores_of(summary)
    assert found["choices", "2afc"] == pytest.approx((0.75 + 0.25 + 0.5 + 0.5) / 4)
    assert found["choices", "agreement"] == pytest.approx((1 + 0 + 0.5) / 3)
    # 1 at recall 1/3; then two together at 20, one of them the same: 2/3; then 3/4, raised before
    assert found["same", "average precision"] == pytest.approx(1 / 3 + 2 / 3 * 3 / 4)
    assert scores_of(summary, "PSNR") == found
    ceiling = scores_of(summary, "ceiling of the votes")
    assert ceiling == {("choices", "2afc"): (0.75 + 0.75 + 1 + 0.5) / 4}
    table = pq.read_table(out)
    assert table.to_pylist()[0] == summary["scores"][0]
    shown = cli(*command)  # writes the table of scores again
    assert pq.read_table(out).schema == table.schema
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"mine": [1]}), foreign)
    refused = cli(*command[:-1], foreign)
    assert (refused.code, "foreign.parquet exists" in refused.err) == (2, True), refused.err
    assert pq.read_table(foreign).column_names == ["mine"]
    assert "2AFC: choices, 4 judgements, 3 with a majority" in shown.out
    assert "JND: same, 4 pairs" in shown.out


def test_a_head_never_stands_for_a_metric(cli, greys, tmp_path, monkeypatch):
    table = write(greys, "one.csv", "ref,p0,p1,judge", ["0.png,10.png,20.png,0"])
    channels = (64, 128, 256, 384, 384, 512, 512)
    save_head(make_head([np.zeros(count, np.float32) for count in channels], "x"), tmp_path / "L2")
    monkeypatch.chdir(tmp_path)
    command = ("evaluate", table, *MODEL, "--metrics", "L2", "--heads", "L2", "--json")
    summary = summary_of(cli(*command))
    assert scores_of(summary, "L2")["one", "2afc"] == 1
    assert scores_of(summary, "L2 (head)")["one", "2afc"] == 0.5  # all distances are 0


def test_several_sets_and_their_mean(cli, greys):
    first = write(greys, "one.csv", "ref,p0,p1,judge", ["0.png,10.png,20.png,0"])
    lines = ["0.png,10.png,20.png,1", "0.png,20.png,10.png,1", "0.png,20.png,10.png,0.75"]
    second = write(greys, "two.csv", "ref,p0,p1,judge", lines)
    command = ("evaluate", first, second, *MODEL, "--metrics", "L2,stock,SSIM", "--json")
    found = scores_of(summary_of(cli(*command)))
    assert found["one", "2afc"] == 1
    assert found["two", "2afc"] == pytest.approx((0 + 1 + 0.75) / 3)
    assert found["mean over sets", "2afc"] == pytest.approx((1 + 1.75 / 3) / 2)


def test_a_set_whose_voters_are_divided_has_no_agreement(cli, greys):
    tables = [
        write(greys, f"{name}.csv", "ref,p0,p1,judge", [f"0.png,10.png,20.png,{judge}"])
        for name, judge in (("right", 0), ("divided", 0.5), ("wrong", 1))
    ]
    command = ("evaluate", *tables, *MODEL, "--metrics", "L2")
    found = scores_of(summary_of(cli(*command, "--json")))
    assert (found["right", "agreement"], found["wrong", "agreement"]) == (1, 0)
    assert found["divided", "agreement"] is None
    assert found["mean over sets", "agreement"] == 0.5  # of the two that have one
    assert found["mean over sets", "2afc"] == pytest.approx(0.5)
    shown = cli(*command).out
    assert "divided, 1 judgements, 0 with a majority" in shown
    assert "nan" not in shown
    alone = scores_of(summary_of(cli("evaluate", tables[1], *MODEL, "--metrics", "L2", "--json")))
    assert alone["divided", "2afc"] == 0.5
    assert alone["divided", "agreement"] is None


def test_tables_of_the_same_name_stay_apart(cli, greys):
    (greys / "more").mkdir()
    first = write(greys, "list.csv", "ref,p0,p1,judge", ["0.png,10.png,20.png,0"])
    second = write(greys / "more", "list.csv", "ref,p0,p1,judge", ["0.png,10.png,20.png,1"])
    command = ("evaluate", first, second, "--images", greys, *MODEL, "--metrics", "L2")
    outcome = cli(*command)
    assert "2AFC: list, 1 judgements" in outcome.out
    assert "2AFC: list (2), 1 judgements" in outcome.out
    found = scores_of(summary_of(cli(*command, "--json")))
    assert (found["list", "2afc"], found["list (2)", "2afc"]) == (1, 0)


SETS = {
    ("2afc", "train"): ("traditional", "cnn", "mix"),
    ("2afc", "val"): ("traditional", "cnn", "superres", "deblur", "color", "frameinterp"),
    ("jnd", "val"): ("traditional", "cnn"),
}


@pytest.fixture
def bapps(tmp_path):
    """The folders of BAPPS with all of its sets; the share of sides that L2 gets right is known."""
    right = {}
    for (kind, split), names in SETS.items():
        roles, answer = (("ref", "p0", "p1"), "judge") if kind == "2afc" else (("p0", "p1"), "same")
        for place, name in enumerate(names):
            folder = tmp_path / "bapps" / kind / split / name
            for role in (*roles, answer):
                (folder / role).mkdir(parents=True)
            for number in range(4):
                level = 20 * place + number
                shifts = (0, 9, 30) if kind == "2afc" else (0, 5 + number)
                for role, shift in zip(roles, shifts, strict=True):
                    picture = Image.new("RGB", (64, 64), (level + shift,) * 3)
                    picture.save(folder / role / f"{number:06}.png")
                said = (0.2 if number < place % 3 + 1 else 0.8) if kind == "2afc" else number < 2
                np.save(folder / answer / f"{number:06}.npy", np.array([said], np.float32))
            right[kind, f"{split}/{name}"] = (place % 3 + 1) / 4 if kind == "2afc" else 1.0
    return tmp_path / "bapps", right


def test_all_sets_of_bapps_have_figures_of_their_own(cli, bapps, tmp_path):
    folder, right = bapps
    command = ("train", folder, *MODEL, "--held-out-from", folder, "--epochs", "1")
    trained = summary_of(cli(*command, "--out", tmp_path / "H", "--json"))
    assert (trained["learned_from"], trained["held_out"]) == (12, 24)
    command = ("evaluate", folder, *MODEL, "--heads", tmp_path / "H", "--metrics", "L2")
    summary = summary_of(cli(*command, "--out", tmp_path / "scores.parquet", "--json"))
    lines = pq.read_table(tmp_path / "scores.parquet").to_pylist()
    assert len(lines) == len(summary["scores"])
    scores = {
        (line["kind"], line["set"], line["score"]): line["value"]
        for line in lines
        if line["metric"] == "L2"
    }
    for kind, score in (("2afc", "agreement"), ("jnd", "average precision")):
        expected = {key[1]: value for key, value in right.items() if key[0] == kind}
        expected = {name: value for name, value in expected.items() if name.startswith("val/")}
        found = {key[1]: value for key, value in scores.items() if key[::2] == (kind, score)}
        mean = np.mean(list(expected.values()))
        assert found == pytest.approx(expected | {"mean over sets": mean})
    choice = scores["2afc", "val/cnn", "2afc"]
    assert choice == pytest.approx(0.5 * 0.8 + 0.5 * 0.2, abs=1e-6)
    own = {(line["kind"], line["set"]) for line in lines if line["metric"] == str(tmp_path / "H")}
    assert len(own) == 6 + 1 + 2 + 1


def test_folders_of_sameness(cli, tmp_path, draw):
    folder = tmp_path / "bapps" / "jnd" / "val" / "cnn"
    draw(folder / "p0", 3, seed=0)
    draw(folder / "p1", 3, seed=1)
    (folder / "p1" / "000.png").write_bytes((folder / "p0" / "000.png").read_bytes())
    (folder / "same").mkdir()
    for number, answer in enumerate((1.0, 0.0, 0.0)):
        np.save(folder / "same" / f"{number:03}.npy", [answer])
    summary = summary_of(cli("evaluate", tmp_path / "bapps", *MODEL, "--json"))
    assert {line["value"] for line in summary["scores"]} == {1.0}
    assert {line["set"] for line in summary["scores"]} == {"val/cnn"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--metrics", "L3"), "unknown --metrics 'L3'"),
        (("--metrics", ""), "nothing to evaluate"),
        (("--out", "scores.csv"), "must end in .parquet"),
        (("--heads", "nowhere.pth"), "No head at 'nowhere.pth'"),
    ],
)
def test_wrong_options_are_one_message(cli, greys, options, words):
    table = write(greys, "one.csv", "ref,p0,p1,judge", ["0.png,10.png,20.png,0"])
    outcome = cli("evaluate", table, *MODEL, *options)
    assert outcome.code == 2
    assert words in outcome.err


def test_the_stock_head_on_materials(cli, data, real_weights, tmp_path):
    folder = data / "materials"
    header, *lines = (folder / "train_triplets.csv").read_text().splitlines()
    table = write(tmp_path, "some.csv", header, lines[::50])  # all of them give 0.706 and 0.665
    command = ("evaluate", table, "--images", folder / "images")
    model = ("--backbone", "squeeze", "--size", "128", "--metrics", "stock")
    found = scores_of(summary_of(cli(*command, *model, "--json")), "stock")
    assert found["some", "agreement"] == pytest.approx(0.71, abs=0.06)
    assert found["some", "2afc"] == pytest.approx(0.67, abs=0.06)


def test_an_output_that_cannot_be_written_is_told_at_once(cli, greys, tmp_path, monkeypatch):
    table = write(greys, "one.csv", "ref,p0,p1,judge", ["0.png,10.png,20.png,0"])
    (tmp_path / "file").touch()

    def read(*_, **__):
        raise AssertionError("nothing is read before")

    monkeypatch.setattr("lpipstore.workflows.learning.evaluate.read_judgements", read)
    command = ("evaluate", table, *MODEL, "--out", tmp_path / "file" / "scores.parquet")
    outcome = cli(*command)
    assert (outcome.code, "cannot write" in outcome.err) == (1, True), outcome.err
