"""The page in a real browser: nothing fails, nothing is fetched, hover, click and keys work."""

import socket

import pytest

from .conftest import HOSTILE

SECTIONS = [
    "figures",
    "histogram",
    "extremes",
    "duplicates",
    "matrix",
    "nearest",
    "map",
    "failures",
]
INKED = """canvas => {
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return new Set(new Uint32Array(pixels.data.buffer)).size;
}"""


@pytest.fixture(scope="module")
def page_of_thirty(thirty, tmp_path_factory):
    return thirty.report(tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture
def seen(visit, page_of_thirty):
    seen = visit(page_of_thirty)
    yield seen
    seen.check()


def bring(page, name):
    """Scroll to a section and wait for it to draw: sections start when they come near."""
    page.locator(f"#{name}").scroll_into_view_if_needed()
    page.evaluate(
        "async () => { for (let n = 0; n < 4; n++) await new Promise(requestAnimationFrame); }"
    )


def test_the_page_has_all_sections_and_fetches_nothing(seen):
    page = seen.page
    assert page.eval_on_selector_all("main section", "all => all.map(one => one.id)") == SECTIONS
    for name in SECTIONS:
        bring(page, name)
        assert page.locator(f"#{name} .hint").inner_text().endswith(".")
    assert page.locator("#failures td.name").inner_text() == "broken.png"
    page.wait_for_timeout(200)


def test_pictures_are_drawn(seen):
    page = seen.page
    canvases = page.locator("#extremes canvas.picture")
    assert canvases.count() == 3 * 6 * 2
    assert all(canvases.nth(n).evaluate(INKED) > 50 for n in range(canvases.count()))


def test_the_histogram_is_read_by_pointer_and_by_keys(seen):
    page = seen.page
    bring(page, "histogram")
    plot = page.locator("#histogram-plot svg")
    plot.hover(position={"x": 600, "y": 100})
    said = page.locator("#histogram-readout").inner_text()
    assert "pairs" in said and "%" in said
    plot.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#histogram-readout").inner_text() != said


def test_the_heat_map_names_the_pair_under_the_pointer(seen, thirty):
    page = seen.page
    bring(page, "matrix")
    canvas = page.locator("#matrix-canvas")
    assert canvas.evaluate(INKED) > 100
    box = canvas.bounding_box()
    seen_pairs = set()
    for x, y in ((0.3, 0.7), (0.9, 0.2)):
        canvas.hover(position={"x": box["width"] * x, "y": box["height"] * y})
        names = page.locator("#matrix-readout figcaption").all_inner_texts()
        shown = float(page.locator("#matrix-readout .distance").inner_text())
        assert shown == pytest.approx(distance(thirty, *names), abs=2e-4)
        seen_pairs.add(tuple(names))
    assert len(seen_pairs) == 2
    canvas.click(position={"x": box["width"] * 0.9, "y": box["height"] * 0.2})
    dialog = page.locator("dialog#pair")
    assert dialog.is_visible()
    assert dialog.locator("figcaption").all_inner_texts() == names
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


def distance(run, left, right):
    names = [path.rpartition("/")[2] for path in run.images["path"].to_pylist()]
    good = [n for n, s in zip(names, run.images["status"].to_pylist(), strict=True) if s == "ok"]
    return float(run.distances[good.index(left), good.index(right)])


def test_arrow_keys_move_the_cursor_and_enter_shows_the_pair(seen, thirty):
    page = seen.page
    bring(page, "matrix")
    page.locator("#matrix-canvas").focus()
    before = page.locator("#matrix-readout figcaption").all_inner_texts()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    names = page.locator("#matrix-readout figcaption").all_inner_texts()
    assert names[0] != before[0] and names[1] != before[1]
    page.keyboard.press("+")
    page.keyboard.press("Enter")
    title = page.locator("#pair-title").inner_text()
    assert float(title.removeprefix("Distance ")) == pytest.approx(
        distance(thirty, *names), abs=2e-4
    )


def test_a_name_is_found_and_its_nearest_are_those_of_the_matrix(seen, thirty):
    page = seen.page
    bring(page, "nearest")
    page.locator("#nearest-search").fill("003-COPY")
    assert page.locator("#nearest-count").inner_text() == "1 image"
    page.keyboard.press("Enter")
    assert page.locator("#nearest-chosen figcaption").inner_text() == "003-copy.png"
    cards = page.locator("#nearest-list .caption").all_inner_texts()
    values = [float(text) for text in page.locator("#nearest-list .value").all_inner_texts()]
    assert cards[0] == "003.png"
    assert len(cards) == 10
    assert values == sorted(values)
    for card, value in zip(cards, values, strict=True):
        assert value == pytest.approx(distance(thirty, "003-copy.png", card), abs=2e-4)
    page.locator("#nearest-search").fill("no such name")
    assert page.locator("#nearest-count").inner_text() == "0 images"


def test_a_click_on_a_picture_chooses_it(seen):
    page = seen.page
    keep = page.locator("#duplicates .keep").first
    name = keep.locator(".caption").first.inner_text()
    keep.click()
    assert page.locator("#nearest-chosen figcaption").inner_text() == name
    assert page.locator("#nearest-title").is_visible()


def test_a_pair_opens_and_leads_to_the_nearest(seen):
    page = seen.page
    card = page.locator("#extremes .card").first
    names = card.locator(".caption").all_inner_texts()
    card.focus()
    page.keyboard.press("Enter")
    assert page.locator("#pair figcaption").all_inner_texts() == names
    page.locator("#pair [data-nearest]").nth(1).click()
    assert page.locator("#nearest-chosen figcaption").inner_text() == names[1]


def test_the_map_names_pictures_by_pointer_and_keys(seen):
    page = seen.page
    bring(page, "map")
    canvas = page.locator("#map-canvas")
    canvas.focus()
    names = set()
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown"):
        page.keyboard.press(key)
        names.add(page.locator("#map-readout").inner_text())
    assert len(names) > 1 and all(name.endswith(".png") for name in names)
    page.keyboard.press("Enter")
    chosen = page.locator("#nearest-chosen figcaption").inner_text()
    assert chosen == page.locator("#map-readout").inner_text()
    assert canvas.evaluate(INKED) > 100


def test_light_dark_and_the_toggle(visit, page_of_thirty):
    grounds = {}
    for scheme in ("light", "dark"):
        seen = visit(page_of_thirty, color_scheme=scheme)
        ground = "getComputedStyle(document.body).backgroundColor"
        grounds[scheme] = seen.page.evaluate(ground)
        toggle = seen.page.locator("#theme")
        toggle.click()
        assert toggle.inner_text() == "Theme: light"
        assert seen.page.evaluate(ground) == grounds["light"]
        toggle.click()
        assert seen.page.evaluate(ground) != grounds["light"]
        seen.check()
    assert grounds["light"] != grounds["dark"]


CONTRASTS = """() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map((v) => {
      v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!colour.endsWith(", 0)")) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *:not(script)")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const paper = light(ground(element));
    const ink = light(element instanceof SVGElement ? style.fill : style.color);
    const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (contrast < 4.5) poor.push([element.className, element.textContent.slice(0, 30), contrast]);
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(visit, page_of_thirty, scheme):
    seen = visit(page_of_thirty, color_scheme=scheme)
    bring(seen.page, "nearest")
    assert seen.page.evaluate(CONTRASTS) == []


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_width_scrolls_sideways(visit, page_of_thirty, width):
    seen = visit(page_of_thirty, width=width, height=844)
    for name in SECTIONS:
        bring(seen.page, name)
    assert seen.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    seen.check()


def test_everything_interactive_has_a_name(seen):
    nameless = """() => [...document.querySelectorAll("button, input, canvas, svg, [role]")]
      .filter((one) => one.checkVisibility())
      .filter((one) => !["aria-label", "aria-labelledby"].some((name) => one.getAttribute(name)))
      .filter((one) => !one.labels?.length && !one.textContent.trim())
      .map((one) => one.outerHTML.slice(0, 80))"""
    for name in SECTIONS:
        bring(seen.page, name)
    assert seen.page.evaluate(nameless) == []
    ids = seen.page.eval_on_selector_all("[id]", "all => all.map(one => one.id)")
    assert len(ids) == len(set(ids))


def test_without_scripts_the_figures_are_tables(visit, page_of_thirty):
    seen = visit(page_of_thirty, java_script_enabled=False, pictures=False)
    assert "Scripts are off" in seen.page.locator("noscript").first.inner_text()
    assert "median" in seen.page.locator("#histogram noscript").inner_text()
    assert seen.page.locator("#matrix noscript img").is_visible()


ATTACK = """async (address) => {
  const blocked = [];
  document.addEventListener("securitypolicyviolation", (event) => {
    blocked.push(event.effectiveDirective);
  });
  await fetch(address).catch(() => {});
  const image = new Image();
  image.src = address + "a.png";
  const script = document.createElement("script");
  script.textContent = "window.taken = 1";
  const styled = document.createElement("p");
  styled.setAttribute("style", "color: red");
  const button = document.createElement("button");
  button.setAttribute("onclick", "window.taken = 1");
  document.body.append(image, script, styled, button);
  button.click();
  while (blocked.length < 5) await new Promise((done) => setTimeout(done, 20));
  return [blocked.sort(), window.taken];
}"""


def test_the_policy_blocks_the_network_and_code(visit, page_of_thirty):
    seen = visit(page_of_thirty)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        blocked, taken = seen.page.evaluate(ATTACK, address)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody called
            server.accept()
    kinds = ["connect-src", "img-src", "script-src-attr", "script-src-elem", "style-src-attr"]
    assert (blocked, taken) == (kinds, None)


def test_hostile_names_are_shown_harmless_and_found(visit, hostile, tmp_path):
    seen = visit(hostile.report(tmp_path / "report.html"))
    page = seen.page
    names = page.evaluate("report.names")
    assert len(names) == len(HOSTILE) + 1
    assert {"a\"quoted' & <b>bold<b>.png", "two\\nlines\\tand a tab.png"} <= {*names}
    assert {"left\\u202eright.png", "bytes \\xff\\xfe.png", "y" * 200 + ".png"} <= {*names}
    assert page.title().startswith("LPIPS report")
    assert page.locator("main b, main script, main img").count() == 0
    bring(page, "nearest")
    for name in names:
        page.locator("#nearest-search").fill(name)
        found = page.locator("#nearest-found .caption").all_text_contents()
        assert name in found
        page.locator("#nearest-found .card").nth(found.index(name)).click()
        assert page.locator("#nearest-chosen figcaption").text_content() == name
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    seen.check()
