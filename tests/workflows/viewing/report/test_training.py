"""Pages of trainings: curves, disagreements, weights."""

import json
import re

import numpy as np
import pytest

import lpipstore
from lpipstore.pipeline.runs.files import JUDGEMENTS
from lpipstore.workflows.viewing.report.trained import Judged, TrainingSeen

from .test_build import block, integers, sections
from .test_page import CONTRASTS, bring

METRIC = {"backbone": "squeeze", "weights": "random", "size": 32, "workers": 0}


@pytest.fixture(scope="module")
def table(tmp_path_factory, draw):
    """Sixty judgements of eight pictures."""
    folder = tmp_path_factory.mktemp("judged")
    draw(folder, 8)
    random = np.random.default_rng(0)
    lines = ["ref,p0,p1,judge,votes"]
    for _ in range(60):
        ref, p0, p1 = random.permutation(8)[:3]
        votes = random.integers(1, 6)
        lines.append(
            f"{ref:03}.png,{p0:03}.png,{p1:03}.png,{random.integers(votes + 1) / votes},{votes}"
        )
    (folder / "triplets.csv").write_text("\n".join(lines) + "\n")
    return folder / "triplets.csv"


def trained(table, out, **options):
    fast = {"epochs": 3, "batch": 16, "held_out": 0.3, **options}
    lpipstore.train(table, train_options=fast, out=out, store=out.parent / "store", **METRIC)
    return lpipstore.open_run(out)


@pytest.fixture(scope="module")
def training(table, tmp_path_factory):
    return trained(table, tmp_path_factory.mktemp("training") / "H")


def test_judgements_are_kept_with_what_the_heads_say(training, table):
    lines = training.judgements.to_pylist()
    assert len(lines) == 60
    names = [path.rpartition("/")[2] for path in training.images["path"].to_pylist()]
    given = [line.split(",") for line in table.read_text().splitlines()[1:]]
    for line, (ref, p0, p1, judge, votes) in zip(lines, given, strict=True):
        assert [names[line[role]] for role in ("ref", "p0", "p1")] == [ref, p0, p1]
        assert (line["judge"], line["votes"]) == (float(judge), float(votes))
    held = [line for line in lines if line["part"] == "held_out"]
    assert len(held) == training.summary["held_out"]
    for head, names in (("start", ("start_d0", "start_d1")), ("trained", ("d0", "d1"))):
        found = next(one for one in training.summary["heads"] if one["head"].startswith(head))
        decided = [line for line in held if line["judge"] != 0.5]
        agrees = [(line[names[1]] < line[names[0]]) == (line["judge"] > 0.5) for line in decided]
        assert np.mean(agrees) == pytest.approx(found["held_out"]["agreement"])


def test_the_page_of_a_training(training):
    page = training.report().read_text()
    assert sections(page) == ["figures", "curves", "mistakes", "taps"]
    payload = block(page, "curves")
    assert payload["epochs"] == [0, 1, 2, 3]
    assert payload["best"] == training.summary["best_epoch"]
    metrics = training.metrics.to_pylist()
    for plot, key in zip(payload["plots"], ("agreement", "loss"), strict=True):
        for series, part in zip(plot["series"], ("train", "held_out"), strict=True):
            assert series["values"] == [one[key] for one in metrics if one["part"] == part]
    judged = TrainingSeen(training).judged[1]
    wrong = judged.wrong(judged.distances)
    assert re.search(rf"the trained head disagrees with {wrong.sum()}\.", page)
    assert page.count('class="triplet"') == min(24, wrong.sum()) + len(judged.improved(12))


def judged_of(judge, votes, distances, before, expected):
    arrays = [np.array(one, float) for one in (judge, votes, distances, before, expected)]
    return Judged(np.zeros((len(judge), 3), np.int64), *arrays)


def test_the_worst_are_those_that_most_votes_speak_against():
    judged = judged_of(
        [1, 1, 0, 0.5, 0],
        [1, 5, 5, 4, 5],
        [[1, 2], [1, 2], [2, 1], [1, 2], [1, 2]],
        [[1, 2], [2, 1], [2, 1], [1, 2], [2, 1]],
        [0.1, 0.1, 0.6, 0.1, 0.1],
    )
    assert judged.wrong(judged.distances).tolist() == [True, True, True, False, False]
    assert judged.worst(9).tolist() == [1, 2, 0]
    assert judged.improved(9).tolist() == [4]


def test_trainings_through_the_network_have_curves_only(table, tmp_path):
    run = trained(table, tmp_path / "T", tune_trunk=True, epochs=1, held_out=0)
    page = run.report().read_text()
    assert "Images passed through the network" in page
    assert len(block(page, "curves")["plots"][0]["series"]) == 1
    assert "nothing is held out" in page


def test_a_training_without_its_table_says_so(table, tmp_path):
    run = trained(table, tmp_path / "H")
    (tmp_path / "H" / JUDGEMENTS).unlink()
    assert "This training kept no table of its judgements" in run.report().read_text()
    (tmp_path / "H" / JUDGEMENTS).write_bytes(b"torn")
    with pytest.raises(lpipstore.LpipstoreError, match="is damaged"):
        lpipstore.open_run(tmp_path / "H").report()


def test_pictures_of_a_training_that_are_gone(table, tmp_path, draw):
    own = tmp_path / "images"
    draw(own, 8)
    (own / "triplets.csv").write_text(table.read_text())
    run = trained(own / "triplets.csv", tmp_path / "H")
    for path in own.glob("*.png"):
        path.unlink()
    page = run.report().read_text()
    shown = block(page, "pictures")
    assert len(shown["missing"]) == len(shown["names"]) > 0
    assert not integers(shown["small"]["widths"]).any()


def test_kinds_without_a_report_are_refused(training, cli, tmp_path):
    manifest = json.loads((training.path / "manifest.json").read_text())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest | {"command": "extract"}))
    (tmp_path / "run" / "summary.json").write_text("{}")
    outcome = cli("report", tmp_path / "run")
    assert outcome.code == 2
    assert "a run of lpipstore extract, which has no report: give a run of" in outcome.err


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_a_training_in_a_browser(training, visit, width, scheme):
    seen = visit(training.report(), width=width, color_scheme=scheme)
    page = seen.page
    for name in ("curves", "mistakes", "taps"):
        bring(page, name)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert page.evaluate(CONTRASTS) == []
    plot = page.locator("#curves svg").first
    plot.hover(position={"x": 60, "y": 100})
    said = page.locator("#curves-readout").inner_text()
    assert said.startswith("Epoch 0")
    plot.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#curves-readout").inner_text().startswith("Epoch 1")
    card = page.locator("#mistakes .triplet button").first
    card.focus()
    page.keyboard.press("Enter")
    assert page.locator("#pair").is_visible()
    seen.check()
