"""Pages of lists and searches: pairs, near-duplicates, neighbours, in the file and in a browser."""

import numpy as np
import pytest
from PIL import Image

import lpipstore
from lpipstore.workflows.viewing.report import allpairs, listed

from .conftest import METRIC
from .test_build import block, integers, sections
from .test_page import CONTRASTS, bring


@pytest.fixture(scope="module")
def folder(tmp_path_factory, draw):
    """Twenty pictures, two of them copies of others."""
    folder = tmp_path_factory.mktemp("twenty") / "pictures"
    draw(folder, 18, (48, 64))
    for number in (3, 4):
        with Image.open(folder / f"{number:03}.png") as image:
            image.point(lambda level: level * 0.99).save(folder / f"{number:03}-copy.png")
    return folder


@pytest.fixture(scope="module")
def runs(folder, tmp_path_factory):
    """A run of each kind of list, by kind."""
    out = tmp_path_factory.mktemp("lists")
    options = METRIC | {"store": out / "store"}
    names = sorted(path.name for path in folder.iterdir())
    pairs = [(a, b) for n, a in enumerate(names) for b in names[n + 1 :: 3]]
    lines = [f"{a},{b},{n}" for n, (a, b) in enumerate(pairs)]
    table = folder.parent / "pairs.csv"
    table.write_text("left,right,<b>note\n" + "\n".join(lines) + "\n003.png,gone.png,x\n")
    near = lpipstore.nearest(folder, 4, out=out / "nearest", **options)
    below = float(np.quantile(near.pairs["distance"].to_numpy(), 0.5))
    return {
        "nearest": near,
        "below": lpipstore.below(folder, below, out=out / "below", **options),
        "none": lpipstore.below(folder, 1e-9, out=out / "none", **options),
        "score": lpipstore.score(table, images=folder, out=out / "score", **options),
    }


def test_sections_by_kind(runs):
    shown = {name: sections(run.report().read_text()) for name, run in runs.items()}
    assert shown == {
        "nearest": ["figures", "histogram", "extremes", "nearest", "hubs"],
        "below": ["figures", "histogram", "extremes", "duplicates", "nearest"],
        "none": ["figures", "duplicates"],
        "score": ["figures", "histogram", "extremes", "worst", "failures"],
    }
    assert "No two images are closer than that" in runs["none"].report().read_text()


def test_neighbours_on_the_page_are_those_of_the_run(runs):
    run = runs["nearest"]
    page = run.report().read_text()
    names, links = block(page, "pictures")["names"], block(page, "nearest")["links"]
    counts, others = integers(links["counts"]), integers(links["others"])
    far = links["distances"]["low"] + links["distances"]["step"] * integers(links["distances"])
    table = run.pairs.to_pylist()
    start = 0
    for number, count in zip(integers(links["images"]), counts, strict=True):
        own = [line for line in table if line["path_i"].endswith("/" + names[number])]
        assert [names[n] for n in others[start : start + count]] == [
            line["path_j"].rpartition("/")[2] for line in own
        ]
        wanted = [line["distance"] for line in own]
        assert far[start : start + count] == pytest.approx(wanted, abs=1e-4)
        start += count
    assert start == len(table)


def test_hubs_and_loners(runs):
    page = runs["nearest"].report().read_text()
    table = runs["nearest"].pairs
    ends, counts = np.unique(table["j"].to_numpy(), return_counts=True)
    assert f"{counts.max():,} images" in page
    firsts = table.filter(np.asarray(table["rank"].to_numpy()) == 1)["distance"].to_numpy()
    assert f'<span class="value distance">{firsts.max():.4f}</span>' in page
    assert len(ends) > 5


def test_the_list_says_what_it_brought_along(runs):
    page = runs["score"].report().read_text()
    assert "&lt;b&gt;note" in page and "<b>note" not in page
    assert "1 line of the list has no distance" in page
    worst = max(filter(None, runs["score"].pairs["distance"].to_pylist()))
    assert f"{worst:.4f}" in page.partition('<section id="worst"')[2].partition("</button>")[0]


def test_rescored_lists_have_pages(runs, tmp_path):
    for kind in ("nearest", "below", "score"):
        again = lpipstore.rescore(runs[kind], "none", out=tmp_path / kind, store=tmp_path / "store")
        assert sections(again.report().read_text())[:2] == ["figures", "histogram"]


def test_images_without_pictures_are_found(thirty, draw, visit, monkeypatch, tmp_path):
    """Of many images a sample is shown; the others are found by name, with their nearest."""
    draw(tmp_path / "many", 120)
    near = lpipstore.nearest(tmp_path / "many", 2, **METRIC)
    monkeypatch.setattr(allpairs, "MOST", 8)
    monkeypatch.setattr(listed, "MOST", 6)
    for run in (thirty, near):
        page = run.report(tmp_path / f"{run.kind}.html")
        text = page.read_text()
        others = block(text, "nearest")["others"]
        pictures = block(text, "pictures")["names"]
        table = run.images.filter(np.array([s == "ok" for s in run.images["status"].to_pylist()]))
        names = [path.rpartition("/")[2] for path in table["path"].to_pylist()]
        assert {*pictures, *others["names"]} == {*names}
        assert others["names"]
        seen = visit(page)
        bring(seen.page, "nearest")
        for name in others["names"][:12]:
            seen.page.locator("#nearest-search").fill(name)
            line = seen.page.locator("#nearest-others li").filter(has_text=name).first
            said = line.inner_text()
            assert said.startswith(f"{name}: nearest, at ")
            distance, _, nearest = said.removeprefix(f"{name}: nearest, at ").partition(", is ")
            assert float(distance) == pytest.approx(nearest_of(run, names, name, nearest), abs=2e-4)
        seen.page.locator("#nearest-search").fill(others["names"][0])
        button = seen.page.locator("#nearest-others button")
        if button.count():
            wanted = button.first.inner_text()
            seen.page.keyboard.press("Enter")
            assert seen.page.locator("#nearest-chosen figcaption").inner_text() == wanted
        seen.check()


def nearest_of(run, names, name, other):
    """Return the distance of the nearest of an image, which has to be `other`."""
    if run.kind == "nearest":
        table = run.pairs.to_pylist()
        line = next(one for one in table if one["path_i"].endswith("/" + name))
        assert line["path_j"].endswith("/" + other)
        return line["distance"]
    row = np.array(run.distances[names.index(name)])
    row[names.index(name)] = np.inf
    assert names[int(row.argmin())] == other
    return row.min()


@pytest.mark.parametrize("kind", ["nearest", "below", "none", "score"])
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_pages_of_lists_in_a_browser(runs, visit, kind, width, scheme):
    seen = visit(runs[kind].report(), width=width, color_scheme=scheme)
    page = seen.page
    for name in page.eval_on_selector_all("main section", "all => all.map(one => one.id)"):
        bring(page, name)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert page.evaluate(CONTRASTS) == []
    seen.check()


def test_a_click_on_a_hub_shows_its_neighbours(runs, visit):
    seen = visit(runs["nearest"].report())
    page = seen.page
    bring(page, "hubs")
    card = page.locator("#hubs .card").nth(2)
    name = card.locator(".caption").inner_text()
    card.focus()
    page.keyboard.press("Enter")
    assert page.locator("#nearest-chosen figcaption").inner_text() == name
    assert page.locator("#nearest-list .card").count() == 4
    page.locator("#nearest-list .card").first.click()
    assert page.locator("#pair").is_visible()
    other = page.locator("#pair figcaption").nth(1).inner_text()
    page.locator("#pair [data-nearest]").nth(1).click()
    assert page.locator("#nearest-chosen figcaption").inner_text() == other
    seen.check()


def test_a_keeper_leads_to_what_is_close_to_it(runs, visit):
    seen = visit(runs["below"].report())
    page = seen.page
    keep = page.locator("#duplicates .keep").first
    name = keep.locator(".caption").first.inner_text()
    keep.click()
    assert page.locator("#nearest-chosen figcaption").inner_text() == name
    assert page.locator("#nearest-list .card").count() >= 1
    seen.check()


def test_a_list_whose_image_is_gone(folder, runs, tmp_path, draw):
    draw(tmp_path / "some", 6)
    run = lpipstore.nearest(tmp_path / "some", 2, **METRIC)
    (tmp_path / "some" / "002.png").unlink()
    assert [*block(run.report().read_text(), "pictures")["missing"]] != []


def test_two_images_and_identical_ones_in_lists(tmp_path, draw):
    draw(tmp_path / "two", 2)
    two = lpipstore.nearest(tmp_path / "two", 1, **METRIC)
    assert "All pairs, the closest first" in two.report().read_text()
    (tmp_path / "two" / "001.png").write_bytes((tmp_path / "two" / "000.png").read_bytes())
    for run in (
        lpipstore.below(tmp_path / "two", 0.1, **METRIC),
        lpipstore.nearest(tmp_path / "two", 1, **METRIC),
    ):
        page = run.report().read_text()
        assert "All pairs are at the same distance" in page
        assert "NaN" not in page and ">nan<" not in page
