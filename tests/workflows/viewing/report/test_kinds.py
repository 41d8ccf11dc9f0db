"""The pages of comparisons, of pairs of namesakes and of groups: what stands in them."""

import re
import shutil

import numpy as np
import pytest

import lpipstore
from lpipstore.workflows.viewing.report import across
from lpipstore.workflows.viewing.report.across import profile_order
from lpipstore.workflows.viewing.report.sections.copies import say_of_copies

from .conftest import METRIC
from .test_build import block, integers, sections


def cards_of(page, name):
    """Return the distances of the cards of a section."""
    part = page[page.index(f'<section id="{name}"') :]
    part = part[: part.index("</section>")]
    return [float(d) for d in re.findall(r'data-distance="([^"]*)"', part)]


def test_a_comparison_has_its_sections_and_the_matrix(across_run, tmp_path):
    page = across_run.report(tmp_path / "page.html").read_text()
    assert sections(page) == [
        "figures",
        "histogram",
        "copies",
        "extremes",
        "matrix",
        "nearest",
        "failures",
    ]
    assert "<title>LPIPS report: made and train</title>" in page
    assert "7 of made, 12 of train" in page
    whole = across_run.distances.compute()
    payload = block(page, "matrix")
    packing = payload["distances"]
    found = (packing["low"] + packing["step"] * integers(packing)).reshape(7, 12)
    assert np.abs(found - whole).max() <= packing["step"] / 2 + 1e-7
    assert sorted(integers(payload["order"])) == list(range(7))
    assert sorted(integers(payload["orderAcross"])) == list(range(12))
    assert sum(block(page, "histogram")["counts"]) == 7 * 12


def test_each_image_stands_beside_its_nearest(across_run, tmp_path):
    page = across_run.report(tmp_path / "page.html").read_text()
    whole, payload = across_run.distances.compute(), block(page, "copies")
    assert payload["distances"] == pytest.approx(sorted(whole.min(1)), abs=1e-6)
    names = block(page, "pictures")["names"]
    pairs = [
        (names[left], names[right])
        for left, right in zip(integers(payload["left"]), integers(payload["right"]), strict=True)
    ]
    assert pairs[0] == ("made/copy.png", "train/003.png")
    assert len(pairs) == 7
    assert "The closest match is at" in page


def test_the_extremes_across_are_those_of_the_matrix(across_run, tmp_path):
    page = across_run.report(tmp_path / "page.html").read_text()
    cards, ranked = cards_of(page, "extremes"), np.sort(across_run.distances.compute().ravel())
    assert cards[:6] == pytest.approx(ranked[:6])
    assert cards[12:] == pytest.approx(ranked[::-1][:6])


def test_rows_with_like_numbers_stand_side_by_side():
    random = np.random.default_rng(0)
    kinds = random.permutation(np.repeat([0, 1, 2], 5))
    matrix = random.random((3, 8))[kinds] + random.normal(0, 0.01, (15, 8))
    ordered = kinds[profile_order(matrix.astype(np.float32))]
    assert (np.diff(ordered) != 0).sum() == 2


@pytest.mark.parametrize(("first", "second"), [(1, 4), (4, 1), (1, 1), (2, 2)])
def test_few_images_on_a_side(tmp_path, draw, first, second):
    draw(tmp_path / "a", first)
    draw(tmp_path / "b", second, seed=7)
    run = lpipstore.compare(tmp_path / "a", tmp_path / "b", **METRIC)
    page = run.report(tmp_path / "page.html").read_text()
    assert {"copies", "matrix", "nearest"} <= {*sections(page)}
    assert len(cards_of(page, "extremes")) == first * second  # each pair once
    assert "NaN" not in page and ">nan<" not in page


def test_of_many_images_on_a_side_some_are_shown(tmp_path, draw, monkeypatch):
    draw(tmp_path / "a", 40)
    draw(tmp_path / "b", 5, seed=7)
    monkeypatch.setattr(across, "MOST", 20)
    monkeypatch.setattr(across, "CLOSEST", 3)
    for sides, many in ((("a", "b"), 0), (("b", "a"), 1)):
        run = lpipstore.compare(*(tmp_path / side for side in sides), **METRIC)
        page = run.report(tmp_path / "page.html").read_text()
        payload, whole = block(page, "matrix"), run.distances.compute()
        shown = [len(integers(payload[key])) for key in ("images", "across")]
        assert 15 <= shown[many] < 40 and shown[1 - many] == 5
        assert "The run has 45 images" in page and "all 5 of b" in page
        assert len(integers(payload["distances"])) == shown[0] * shown[1]
        assert sum(block(page, "histogram")["counts"]) == 200
        listed = block(page, "copies")["distances"]
        assert listed == pytest.approx(sorted(whole.min(1))[:3], abs=1e-6)


def test_copies_are_named_only_where_they_stand_apart():
    random = np.random.default_rng(0)
    usual = random.normal(0.4, 0.05, 200).clip(0.2).astype(np.float32)
    assert "No match is far closer" in say_of_copies(usual)
    copied = np.concatenate([usual, random.uniform(0.01, 0.03, 25)]).astype(np.float32)
    assert "25 images are far closer" in say_of_copies(copied)
    assert say_of_copies(np.array([0.3], np.float32)) == "The closest match is at 0.3000."
    same = np.concatenate([usual, np.zeros(1)]).astype(np.float32)
    assert say_of_copies(same).startswith("1 image is identical to one of the other side. ")


def test_namesakes_have_maps_of_their_differences(paired_run, tmp_path):
    page = paired_run.report(tmp_path / "page.html").read_text()
    assert sections(page) == ["figures", "histogram", "differences", "extremes", "partners"]
    distances = np.array(paired_run.pairs["distance"].drop_null())
    assert cards_of(page, "differences") == pytest.approx(np.sort(distances)[::-1][:12])
    payload = block(page, "differences")
    assert len(payload["maps"]) == 12
    worst = payload["maps"][0]
    levels = integers(worst["levels"]).reshape(worst["height"], worst["width"])
    mean = payload["low"] + (payload["high"] - payload["low"]) * levels.mean() / 255
    assert mean == pytest.approx(distances.max(), rel=0.1)
    shown = page[page.index('id="partners"') :]
    assert re.findall(r'<td class="name">([^<]*)</td>', shown) == ["only.png", "other.png"]
    assert "2 images without a partner" in page


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_maps_lie_on_the_part_of_the_picture_that_was_compared(tmp_path, draw, fit):
    draw(tmp_path / "a", 2, (32, 64))
    draw(tmp_path / "b", 2, (32, 64), seed=3)
    run = lpipstore.compare(tmp_path / "a", tmp_path / "b", paired=True, **METRIC | {"fit": fit})
    one = block(run.report(tmp_path / "page.html").read_text(), "differences")["maps"][0]
    cropped = {"width": 32, "height": 32, "frame": [0.25, 0, 0.5, 1]}
    padded = {"width": 32, "height": 16, "frame": [0, 0, 1, 1]}
    assert {name: one[name] for name in cropped} == (cropped if fit == "crop" else padded)


def test_a_pair_whose_image_is_gone_has_no_map_and_says_so(tmp_path, draw):
    for side, seed in (("a", 0), ("b", 3)):
        draw(tmp_path / side, 3, seed=seed)
    run = lpipstore.compare(tmp_path / "a", tmp_path / "b", paired=True, **METRIC)
    (tmp_path / "b" / "001.png").unlink()
    page = run.report(tmp_path / "page.html").read_text()
    assert page.count("no map: ") == 1
    assert [one is None for one in block(page, "differences")["maps"]].count(True) == 1
    shutil.rmtree(tmp_path / "a")
    shutil.rmtree(tmp_path / "b")
    page = run.report(tmp_path / "page.html").read_text()
    assert len(cards_of(page, "differences")) == 3
    assert 'id="data-differences"' not in page


def test_without_the_weights_the_page_says_why_there_are_no_maps(tmp_path, paired_run, monkeypatch):
    def gone(*_, **__):
        raise lpipstore.LpipstoreError("the weights <are> gone")

    monkeypatch.setattr("lpipstore.pipeline.runs.reopen.load_backbone", gone)
    page = paired_run.report(tmp_path / "page.html").read_text()
    assert "could not be made again: the weights &lt;are&gt; gone." in page
    assert len(cards_of(page, "differences")) == 12


def test_groups_are_sorted_by_diversity_with_their_extreme_pairs(group_run, tmp_path):
    page = group_run.report(tmp_path / "page.html").read_text()
    assert sections(page) == ["figures", "histogram", "diversity", "extremes"]
    groups = group_run.groups.to_pylist()
    known = sorted((g for g in groups if g["mean"] is not None), key=lambda g: -g["mean"])
    labels = re.findall(r'<div class="group-name"><strong>([^<]*)<', page)
    assert labels == [g["group"].rpartition("/")[2] for g in known]
    assert "1 group has fewer than two usable images, and no mean: alone." in page
    pairs, expected = group_run.pairs.to_pylist(), []
    for group in known:
        within = [pair["distance"] for pair in pairs if pair["group"] == group["group"]]
        expected += [min(within), max(within)] if len(within) > 1 else within
    assert cards_of(page, "diversity") == pytest.approx(expected)
    overall = group_run.summary["groups"]
    assert f"{overall['mean']:.4f} ± {overall['stderr']:.4f}" in page


def test_dots_and_bars_stand_where_the_numbers_are(group_run, tmp_path):
    page = group_run.report(tmp_path / "page.html").read_text()
    ticks = re.findall(r'<text x="([\d.]+)%" y="14"[^>]*>([\d.]+)<', page)
    (left, low), *_, (right, high) = ticks
    scale = (float(high) - float(low)) / (float(right) - float(left))
    means = sorted((g for g in group_run.groups["mean"].to_pylist() if g is not None), reverse=True)
    dots = [float(x) for x in re.findall(r'class="dot" cx="([\d.]+)%"', page)]
    assert [float(low) + (x - float(left)) * scale for x in dots] == pytest.approx(means, abs=1e-4)
    bars = re.findall(r'class="bar" x1="([\d.]+)%" x2="([\d.]+)%"', page)
    errors = [g["stderr"] for g in group_run.groups.to_pylist() if g["stderr"] is not None]
    found = [(float(b) - float(a)) * scale / 2 for a, b in bars]
    assert sorted(found) == pytest.approx(sorted(errors), abs=1e-4)


def test_one_group(tmp_path, draw):
    draw(tmp_path / "all" / "only", 2)
    run = lpipstore.groups(tmp_path / "all", **METRIC)
    page = run.report(tmp_path / "page.html").read_text()
    assert "One group has a mean" in page
    assert len(cards_of(page, "diversity")) == 1
    assert "Only pair" in page


def test_very_many_groups_are_shortened(tmp_path, draw):
    for n, path in enumerate(draw(tmp_path / "drawn", 90)):
        folder = tmp_path / "all" / f"{n // 2:02} <b>"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.move(path, folder)
    page = lpipstore.groups(tmp_path / "all", **METRIC).report(tmp_path / "page.html").read_text()
    assert page.count('<div class="group-name">') == 40
    assert "5 between them stand in the table" in page
    assert "<b>" not in page


@pytest.mark.parametrize("asked", [{"k": 2}, {"k": 2, "below": 0.15}, {"below": 0.15}])
def test_close_pairs_across_list_the_nearest_they_have(across_run, tmp_path, asked):
    sides = (across_run.path.parent / side for side in ("made", "train"))
    run = lpipstore.compare(*sides, out=tmp_path / "close", **asked, **METRIC)
    page, whole = run.report().read_text(), across_run.distances.compute()
    assert {"figures", "histogram", "copies", "extremes"} <= {*sections(page)}
    assert "matrix" not in sections(page)
    nearest = np.sort(whole.min(1))
    expected = nearest[nearest < asked.get("below", 9)]
    assert block(page, "copies")["distances"] == pytest.approx(expected, abs=1e-6)
    some = f"{len(expected)} of 7 images have a match"
    assert (some if len(expected) < 7 else "The closest match is at") in page
    assert "7 of made, 12 of train" in page
    assert run._repr_html_().startswith("<div>")


def test_a_search_across_that_found_nothing_has_a_page(across_run, tmp_path):
    sides = (across_run.path.parent / side for side in ("made", "train"))
    run = lpipstore.compare(*sides, out=tmp_path / "close", below=1e-9, **METRIC)
    assert sections(run.report().read_text()) == ["figures", "failures"]
