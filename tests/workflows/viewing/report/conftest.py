"""Runs to make pages of, and a browser to look at them."""

import os
import shutil
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image

import lpipstore

METRIC = {"backbone": "squeeze", "weights": "random", "size": 32, "workers": 0}
HOSTILE = (
    "a\"quoted' & <b>bold<b>.png",
    "<img src=x onerror=alert(1)>.png",
    "<script>document.title='taken'<script>.png",
    "{{ 7 * 7 }} {% raw %}.png",
    "smile 😀 ünï.png",
    "two\nlines\tand a tab.png",
    "left\u202eright.png",
    "y" * 200 + ".png",
)


@pytest.fixture(scope="session")
def score(tmp_path_factory):
    """A function that scores all pairs of a folder, with an untrained backbone at 32 px."""
    store = tmp_path_factory.mktemp("store")

    def made(folder, **options):
        out = tmp_path_factory.mktemp("run") / "run"
        return lpipstore.pairs(folder, out=out, store=store, **METRIC | options)

    return made


@pytest.fixture(scope="session")
def thirty(tmp_path_factory, draw, score):
    """A run of thirty pictures: two of them copies of others, one more broken."""
    folder = tmp_path_factory.mktemp("thirty") / "pictures"
    draw(folder, 28, (48, 64))
    for number in (3, 4):
        with Image.open(folder / f"{number:03}.png") as image:
            image.point(lambda level: level * 0.99).resize((80, 60)).save(
                folder / f"{number:03}-copy.png"
            )
    (folder / "broken.png").write_bytes(b"no picture")
    return score(folder)


@pytest.fixture(scope="session")
def across_run(tmp_path_factory, draw):
    """A comparison of 7 pictures, one of them a copy, with 12; one more of these is broken."""
    folder = tmp_path_factory.mktemp("across")
    draw(folder / "made", 6, (48, 64), seed=9)
    draw(folder / "train", 12, (48, 64))
    with Image.open(folder / "train" / "003.png") as image:
        image.point(lambda level: level * 0.98).save(folder / "made" / "copy.png")
    (folder / "train" / "broken.png").write_bytes(b"no picture")
    return lpipstore.compare(folder / "made", folder / "train", out=folder / "run", **METRIC)


@pytest.fixture(scope="session")
def paired_run(tmp_path_factory, draw):
    """Fourteen pictures against copies of them, each changed more; one more on either side."""
    folder = tmp_path_factory.mktemp("paired")
    for n, path in enumerate(draw(folder / "before", 14, (48, 64))):
        (folder / "after").mkdir(exist_ok=True)
        with Image.open(path) as image:
            image.paste((200, 40, 40), (8, 8, 10 + 3 * n, 24))
            image.save(folder / "after" / path.name)
    (folder / "before" / "000.png").rename(folder / "before" / "only.png")
    (folder / "after" / "000.png").rename(folder / "after" / "other.png")
    sides = folder / "before", folder / "after"
    return lpipstore.compare(*sides, paired=True, out=folder / "run", **METRIC)


@pytest.fixture(scope="session")
def group_run(tmp_path_factory, draw):
    """Four groups: of six, of four, of two pictures and of one."""
    folder = tmp_path_factory.mktemp("groups")
    for seed, (name, count) in enumerate((("cats", 6), ("dogs", 4), ("pair", 2), ("alone", 1))):
        draw(folder / "all" / name, count, (48, 64), seed=seed)
    return lpipstore.groups(folder / "all", out=folder / "run", **METRIC)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory, score):
    """A run of pictures whose names are hostile."""
    folder = os.fsencode(tmp_path_factory.mktemp("hostile"))
    names = [os.fsencode(name) for name in HOSTILE] + [b"bytes \xff\xfe.png"]
    random = np.random.default_rng(0)
    for name in names:
        pixels = random.integers(0, 256, (40, 40, 3), np.uint8)
        with open(os.path.join(folder, name), "wb") as file:
            Image.fromarray(pixels).save(file, "PNG")
    return score(os.fsdecode(folder))


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium; each worker of the tests has its own."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("needs a browser: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra test")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@dataclass
class Seen:
    """A page in the browser, and what must not happen on it.

    `errors` has messages of the console and exceptions, `requests` what was asked of a network.
    """

    page: object
    errors: list = field(default_factory=list)
    requests: list = field(default_factory=list)

    def check(self):
        assert not self.errors
        assert not self.requests


@pytest.fixture
def visit(chromium):
    """A function that opens a report, waits for its pictures and returns a `Seen`."""
    contexts = []

    def opened(path, *, width=1280, height=900, pictures=True, **options):
        size = {"width": width, "height": height}
        context = chromium.new_context(viewport=size, reduced_motion="reduce", **options)
        contexts.append(context)
        seen = Seen(context.new_page())
        seen.page.set_default_timeout(60_000)
        seen.page.on(
            "console",
            lambda said: said.type in ("error", "warning") and seen.errors.append(said.text),
        )
        seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
        seen.page.on(
            "dialog", lambda dialog: (seen.errors.append(dialog.message), dialog.dismiss())
        )
        seen.page.on(
            "request",
            lambda request: (
                request.url.startswith(("file:", "data:", "blob:"))
                or seen.requests.append(request.url)
            ),
        )
        seen.page.goto(path.absolute().as_uri())
        if pictures:
            seen.page.evaluate("report.loaded")
        return seen

    yield opened
    for context in contexts:
        context.close()
