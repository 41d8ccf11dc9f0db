"""The pages of comparisons, namesakes and groups in a real browser."""

import numpy as np
import pytest

import lpipstore

from .conftest import METRIC
from .test_page import CONTRASTS, INKED, bring

KINDS = ("across_run", "paired_run", "group_run")


@pytest.fixture(scope="module")
def pages(tmp_path_factory, across_run, paired_run, group_run):
    folder = tmp_path_factory.mktemp("pages")
    runs = (across_run, paired_run, group_run)
    return {
        name: run.report(folder / f"{name}.html") for name, run in zip(KINDS, runs, strict=True)
    }


def names_of(run, side):
    rows = run.images.to_pylist()
    return [
        "/".join(row["path"].split("/")[-2:])
        for row in rows
        if row["side"] == side and row["status"] == "ok"
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_pages_fit_are_legible_and_fetch_nothing(visit, pages, kind, width, scheme):
    seen = visit(pages[kind], width=width, height=844, color_scheme=scheme)
    for name in seen.page.eval_on_selector_all("main section", "all => all.map(one => one.id)"):
        bring(seen.page, name)
    assert seen.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert seen.page.evaluate(CONTRASTS) == []
    nameless = """() => [...document.querySelectorAll("button, input, select, canvas, svg")]
      .filter((one) => one.checkVisibility())
      .filter((one) => !["aria-label", "aria-hidden"].some((name) => one.getAttribute(name)))
      .filter((one) => !one.closest("[aria-hidden]"))
      .filter((one) => !one.labels?.length && !one.textContent.trim())
      .map((one) => one.outerHTML.slice(0, 80))"""
    assert seen.page.evaluate(nameless) == []
    ids = seen.page.eval_on_selector_all("[id]", "all => all.map(one => one.id)")
    assert len(ids) == len(set(ids))
    seen.check()


def test_the_heat_map_of_two_collections_names_its_pairs(visit, pages, across_run):
    seen = visit(pages["across_run"])
    page, whole = seen.page, across_run.distances.compute()
    down, right = names_of(across_run, "first"), names_of(across_run, "second")
    bring(page, "matrix")
    canvas = page.locator("#matrix-canvas")
    assert canvas.evaluate(INKED) > 50
    names = page.locator("#matrix-readout figcaption").all_inner_texts()
    assert names == ["made/copy.png", "train/003.png"]  # the closest pair at first
    box, found = canvas.bounding_box(), set()
    for x, y in ((0.3, 0.7), (0.9, 0.3), (0.98, 0.97)):
        canvas.hover(position={"x": box["width"] * x, "y": box["height"] * y})
        names = page.locator("#matrix-readout figcaption").all_inner_texts()
        shown = float(page.locator("#matrix-readout .distance").inner_text())
        assert shown == pytest.approx(whole[down.index(names[0]), right.index(names[1])], abs=2e-4)
        found.add(tuple(names))
    assert len(found) == 3
    canvas.focus()
    for key in ("Home", *["ArrowUp"] * 8, *["ArrowDown"] * 8, "End"):
        page.keyboard.press(key)
    last = page.locator("#matrix-readout figcaption").all_inner_texts()
    page.keyboard.press("+")
    page.keyboard.press("Enter")
    assert page.locator("#pair figcaption").all_inner_texts() == last
    seen.check()


def test_a_click_shows_the_nearest_in_the_other_collection(visit, pages, across_run):
    seen = visit(pages["across_run"])
    page, whole = seen.page, across_run.distances.compute()
    down, right = names_of(across_run, "first"), names_of(across_run, "second")
    bring(page, "copies")
    card = page.locator("#copies-list .card").nth(1)
    left, match = card.locator(".caption").all_inner_texts()
    card.click()
    page.locator("#pair [data-nearest]").first.click()
    assert page.locator("#nearest-chosen figcaption").inner_text() == left
    assert page.locator("#nearest-heading").inner_text() == "Its nearest in train"
    listed = page.locator("#nearest-list .caption").all_inner_texts()
    nearest = np.argsort(whole[down.index(left)])[:10]
    assert listed == [right[n] for n in nearest] and listed[0] == match
    page.locator("#nearest-search").fill("train/003")
    page.keyboard.press("Enter")
    assert page.locator("#nearest-heading").inner_text() == "Its nearest in made"
    assert page.locator("#nearest-list .caption").first.inner_text() == "made/copy.png"
    assert page.locator("#nearest-list .card").count() == 7
    seen.check()


def test_matches_are_turned_page_by_page_and_around(visit, tmp_path, draw):
    draw(tmp_path / "a", 30)
    draw(tmp_path / "b", 4, seed=8)
    run = lpipstore.compare(tmp_path / "a", tmp_path / "b", **METRIC)
    seen = visit(run.report(tmp_path / "page.html"))
    page, ranked = seen.page, sorted(run.distances.compute().min(1).tolist())
    bring(page, "copies")
    values = page.locator("#copies-list .value")
    first, second = page.locator("#copies [data-turn='-1']"), page.locator(".pages [data-turn='1']")
    assert values.all_inner_texts() == [f"{d:.4f}" for d in ranked[:24]]
    assert first.is_disabled() and page.locator("#copies-where").inner_text() == "1 to 24 of 30"
    second.focus()
    page.keyboard.press("Enter")
    assert values.all_inner_texts() == [f"{d:.4f}" for d in ranked[24:]]
    assert second.is_disabled()
    page.locator("#copies-order").select_option("farthest")
    assert values.all_inner_texts() == [f"{d:.4f}" for d in ranked[::-1][:24]]
    page.locator(".again button").click()
    assert page.locator("#copies-where").inner_text() == "25 to 30 of 30"
    seen.check()


def test_maps_of_differences_are_drawn_read_and_laid_over(visit, pages):
    seen = visit(pages["paired_run"])
    page = seen.page
    bring(page, "differences")
    canvases = page.locator("#differences canvas.map")
    assert canvases.count() == 12
    assert all(canvases.nth(n).evaluate(INKED) > 20 for n in range(12))
    canvases.first.hover()
    said = page.locator("#differences-readout").inner_text()
    assert float(said.split()[-1]) > 0
    colours = canvases.first.evaluate("canvas => canvas.toDataURL()")
    page.locator("#differences-over").focus()
    page.keyboard.press("Space")
    assert canvases.first.evaluate("canvas => canvas.toDataURL()") != colours
    card = page.locator("#differences .card").first
    card.focus()
    page.keyboard.press("Enter")
    title = page.locator("#pair-title").inner_text()
    assert title.removeprefix("Distance ") == card.locator(".value").inner_text()
    assert not page.locator("#pair [data-nearest]").first.is_visible()  # there is no such section
    seen.check()


def test_groups_are_read_and_their_pairs_opened(visit, pages, group_run):
    seen = visit(pages["group_run"])
    page = seen.page
    bring(page, "diversity")
    said = page.locator("#diversity .groups svg").evaluate_all(
        "all => all.map((one) => one.getAttribute('aria-label'))"
    )
    means = sorted((g for g in group_run.groups["mean"].to_pylist() if g is not None), reverse=True)
    assert [text.split("distance ")[1][:6] for text in said] == [f"{mean:.4f}" for mean in means]
    dots = page.locator("#diversity .dot").evaluate_all(
        "all => all.map((one) => one.getBoundingClientRect().x)"
    )
    assert dots == sorted(dots, reverse=True)
    card = page.locator("#diversity .card").first
    card.focus()
    page.keyboard.press("Enter")
    shown = page.locator("#pair-title").inner_text().removeprefix("Distance ")
    assert shown == card.locator(".value").inner_text()
    page.keyboard.press("Escape")
    page.locator("#diversity summary").click()
    assert page.locator("#diversity tbody tr").count() == 4
    seen.check()


@pytest.mark.parametrize("kind", KINDS)
def test_without_scripts_pages_have_their_numbers(visit, pages, kind):
    seen = visit(pages[kind], java_script_enabled=False, pictures=False)
    needed = {
        "across_run": "#copies noscript td.name",
        "paired_run": "#partners td.name",
        "group_run": "#diversity .dots .dot",
    }
    assert seen.page.locator(needed[kind]).first.is_visible()


def test_hostile_names_are_harmless_in_matches(visit, hostile, tmp_path, draw):
    folder = str(hostile.images["path"][0].as_py()).rpartition("/")[0]
    draw(tmp_path / "<b>other<b>", 2)
    run = lpipstore.compare(folder, tmp_path / "<b>other<b>", **METRIC)
    seen = visit(run.report(tmp_path / "page.html"))
    page = seen.page
    bring(page, "copies")
    shown = page.locator("#copies-list .caption").all_text_contents()
    names = [name.rpartition("/")[2] for name in shown[::2]]
    assert "<img src=x onerror=alert(1)>.png" in names and "bytes \\xff\\xfe.png" in names
    assert "<b>other<b>" in page.locator("#copies .hint").inner_text()
    assert page.locator("main b, main script, main img").count() == 0
    page.locator("#copies-list .card").first.click()
    assert page.locator("#pair figcaption").first.text_content() == shown[0]
    seen.check()
