"""The file of a report: written whole, of the right size, sensible for runs that are odd."""

import base64
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import lpipstore
from lpipstore.workflows.viewing.report import allpairs
from lpipstore.workflows.viewing.report.build import ASSETS
from lpipstore.workflows.viewing.report.numbers import packed, quantised
from lpipstore.workflows.viewing.report.sections import SECTIONS
from lpipstore.workflows.viewing.report.thumbnails import side_of

from .conftest import METRIC


def sections(page):
    return re.findall(r'<section id="([a-z]+)"', page)


def block(page, name):
    return json.loads(re.search(rf'id="data-{name}">(.*?)</script>', page, re.DOTALL)[1])


def integers(packing):
    data = base64.b64decode(packing["data"])
    return np.frombuffer(data, "<" + packing["type"])


def test_the_command_writes_the_page_and_says_its_size(cli, pictures_run, tmp_path):
    outcome = cli("report", pictures_run, "--json")
    assert outcome.code == 0, outcome.err
    said = json.loads(outcome.out)
    page = pictures_run / "report.html"
    assert said["bytes"] == page.stat().st_size
    assert (said["pictures"], said["missing"]) == (8, 0)
    assert cli("report", pictures_run).code == 0  # an earlier report is replaced
    elsewhere = cli("report", pictures_run, "--out", tmp_path / "other.html")
    assert "other.html (0." in elsewhere.out
    assert (tmp_path / "other.html").read_bytes() == page.read_bytes()


@pytest.fixture
def pictures_run(cli, pictures, tmp_path):
    model = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")
    assert cli("pairs", pictures, *model, "--out", tmp_path / "run").code == 0
    return tmp_path / "run"


def test_nothing_but_a_report_is_replaced(cli, pictures_run, tmp_path):
    mine = tmp_path / "thesis.html"
    mine.write_text("<p>precious")
    for out, message in (
        (mine, "is no report"),
        (tmp_path / "no" / "where.html", "no such folder"),
        (tmp_path, "cannot be written"),
    ):
        outcome = cli("report", pictures_run, "--out", out)
        assert (outcome.code, outcome.out) == (2, "")
        assert message in outcome.err
    assert mine.read_text() == "<p>precious"
    assert cli("report", tmp_path / "nothing").code == 2


def test_a_failure_leaves_the_earlier_page(pictures_run, monkeypatch):
    run = lpipstore.open_run(pictures_run)
    before = run.report().read_bytes()

    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lpipstore.pipeline.common.atomic.Path.replace", no_space)
    with pytest.raises(lpipstore.LpipstoreError, match="No space left"):
        run.report()
    assert (pictures_run / "report.html").read_bytes() == before
    assert not [*pictures_run.glob(".lpipstore-*")]


def test_distances_come_back_from_the_page(thirty):
    page = thirty.report().read_text()
    packing = block(page, "matrix")["distances"]
    found = packing["low"] + packing["step"] * integers(packing)
    assert np.abs(found - thirty.condensed()).max() <= packing["step"] / 2 + 1e-7
    order = integers(block(page, "matrix")["order"])
    assert sorted(order) == list(range(30))


def test_the_threshold_is_told_with_its_reason(thirty):
    found = thirty.duplicates()
    assert found.reason not in ("it was asked for", "")
    assert f": {found.reason}." in thirty.report().read_text()


def test_extremes_are_those_of_the_matrix(thirty):
    page = thirty.report().read_text()
    cards = [float(d) for d in re.findall(r'data-pair="[^"]*" data-distance="([^"]*)"', page)]
    ranked = np.sort(thirty.condensed())
    assert cards[:6] == pytest.approx(ranked[:6])
    assert cards[12:18] == pytest.approx(ranked[::-1][:6])
    middle = np.abs(ranked - np.median(ranked))
    assert np.abs(np.array(cards[6:12]) - np.median(ranked)).max() <= np.sort(middle)[6] + 1e-4


def test_two_images_and_identical_ones(tmp_path, draw, score):
    draw(tmp_path / "two", 2)
    page = score(tmp_path / "two").report().read_text()
    assert "map" not in sections(page)
    assert "All pairs, the closest first" in page
    for number in range(4):
        (tmp_path / "same").mkdir(exist_ok=True)
        shutil.copy(tmp_path / "two" / "000.png", tmp_path / "same" / f"{number}.png")
    page = score(tmp_path / "same").report().read_text()
    assert "All pairs are at the same distance" in page
    assert "NaN" not in page and ">nan<" not in page
    assert page.count('class="badge">keep') == 1


def test_images_that_are_gone_or_have_changed_are_counted(tmp_path, draw, score):
    paths = draw(tmp_path / "some", 5)
    run = score(tmp_path / "some")
    paths[1].unlink()
    Image.new("RGB", (32, 32), "red").save(paths[2])
    page = run.report().read_text()
    assert "2 of 5 pictures on this page could not be read" in page
    shown = block(page, "pictures")
    missing = {shown["names"][int(n)]: reason for n, reason in shown["missing"].items()}
    assert {*missing} == {"001.png", "002.png"}
    assert "changed since" in missing["002.png"]
    assert integers(shown["small"]["widths"]).tolist() == [32, 0, 0, 32, 32]
    names = [shown["names"][n] for n in integers(shown["small"]["numbers"])]
    assert names == [path.name for path in paths]


def test_members_of_archives_and_arrays_have_pictures(tmp_path, draw, score):
    draw(tmp_path / "some", 4)
    shutil.make_archive(str(tmp_path / "some"), "zip", tmp_path / "some")
    arrays = np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), np.uint8)
    np.savez(tmp_path / "samples.npz", arrays)
    run = score([tmp_path / "some.zip", tmp_path / "samples.npz"])
    page = run.report().read_text()
    small = block(page, "pictures")["small"]
    assert not block(page, "pictures")["missing"]
    assert integers(small["widths"]).tolist() == [48] * 7
    assert integers(small["heights"]).tolist() == [48] * 4 + [32] * 3


def test_images_in_memory_have_pictures_where_they_are_given_again():
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    run = lpipstore.pairs(images, **METRIC)
    assert len(block(run.report().read_text(), "pictures")["missing"]) == 4
    again = run.report(images=images).read_text()
    assert block(again, "pictures")["missing"] == {}
    others = run.report(images=images[::-1]).read_text()
    assert len(block(others, "pictures")["missing"]) == 4
    assert "4 images" in run._repr_html_()


def test_of_many_images_a_sample_is_shown(thirty, monkeypatch):
    monkeypatch.setattr(allpairs, "MOST", 8)
    page = thirty.report().read_text()
    shown = len(integers(block(page, "matrix")["images"]))
    assert 8 <= shown < 30
    assert f"The run has 30 images. This page shows {shown} of them" in page
    small = thirty.distances.compute()
    counts = block(page, "histogram")["counts"]
    assert sum(counts) == 30 * 29 // 2
    packing = block(page, "matrix")["distances"]
    assert len(integers(packing)) == shown * (shown - 1) // 2
    assert packing["low"] == pytest.approx(small[np.triu_indices(30, 1)].min())


def test_every_kind_of_run_has_a_page(tmp_path, draw):
    draw(tmp_path / "a", 4)
    draw(tmp_path / "b", 3, seed=5)
    a, b = tmp_path / "a", tmp_path / "b"
    runs = [
        lpipstore.compare(a, b, **METRIC),
        lpipstore.compare(a, b, paired=True, **METRIC),
        lpipstore.below(a, 1e-9, **METRIC),
        lpipstore.nearest(a, 2, **METRIC),
        lpipstore.score([(a / "000.png", b / "000.png")], **METRIC),
    ]
    for run in runs:
        page = run.report(tmp_path / f"{id(run)}.html").read_text()
        assert sections(page)[0] == "figures", run.kind
        assert run._repr_html_().startswith("<div>")


def test_what_a_notebook_shows(thirty, hostile):
    shown = thirty._repr_html_()
    assert "<script" not in shown and "<style" not in shown
    assert shown.count("data:image/webp") == 6
    assert shown.count("data:image/png") == 1
    assert f"{thirty.mean:.4f}" in shown
    assert len(shown) < 200_000
    text = hostile._repr_html_()
    assert not re.search(r"<(b|script)>|onerror=alert\(1\)>(?!&)\.png\"? src=x", text)
    assert not re.search(r"<img src=x", text)


def test_numbers_are_packed_within_what_they_promise():
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    packing = quantised(values)
    back = packing["low"] + packing["step"] * integers(packing)
    assert np.abs(back - values).max() <= packing["step"] / 2 * 1.001
    assert integers(packed([0, 255])).tolist() == [0, 255]
    assert integers(packed([0, 256, 65535])).tolist() == [0, 256, 65535]
    assert integers(quantised(np.empty(0, np.float32))).size == 0
    same = quantised(np.full(3, 0.25, np.float32))
    assert same["low"] + same["step"] * integers(same)[0] == 0.25


def test_sides_fall_with_the_number_of_images():
    sides = [side_of(count) for count in (1, 300, 301, 1000, 1001, 9999)]
    assert sides == [224, 224, 128, 128, 96, 96]


def test_every_section_has_its_files_and_every_file_a_section():
    shared = {"page", "macros", "quantiles", "notebook"}
    names = [section.name for section in SECTIONS]
    assert len(names) == len(set(names))
    files = {path.name for path in ASSETS.iterdir()}
    assert {f"{name}.html.j2" for name in names} <= files
    assert {file.partition(".")[0] for file in files} == {*names} | shared


@pytest.mark.parametrize("path", sorted(ASSETS.iterdir()), ids=lambda path: path.name)
def test_assets_keep_to_the_policy(path):
    text = path.read_text()
    if path.suffix == ".js":
        code = text.replace("http://www.w3.org/2000/svg", "")  # a name, which nobody fetches
        assert not re.search(r"(inner|outer|Adjacent)HTML|eval\(|</script|https?:", code)
    elif path.suffix == ".j2" and path.name != "page.html.j2":
        assert not re.search(r"\sstyle=|\son[a-z]+=|\|\s*safe|<script|https?:", text)
    else:
        assert not re.search(r"https?:|@import", text)
