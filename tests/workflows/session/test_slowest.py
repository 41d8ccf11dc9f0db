"""Which part of an extraction is the slowest, in the summary and beside the progress."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from lpipstore.workflows.session import screen as console
from lpipstore.workflows.session import slowest
from lpipstore.workflows.session.screen import Screen
from lpipstore.workflows.session.settings import Settings
from lpipstore.workflows.session.slowest import show_slowest

MODEL = ("--backbone", "alex", "--weights", "random")


@pytest.mark.parametrize(
    ("seconds", "workers", "text"),
    [
        ({"decode": 5.0, "forward": 3.0, "score": 99.0}, None, "decoding{}: workers=16"),
        ({"decode": 5.0, "forward": 3.0}, 16, "decoding{}"),
        ({"decode": 5.0, "forward": 3.0}, 0, "decoding{}: workers=16"),
        ({"forward": 3.0, "write": 2.9}, None, "the trunk{}"),
        ({"copy": 3.0, "forward": 2.0}, None, "copying to the device{}"),
        ({"forward": 3.0, "write": 3.1}, None, "writing to the store{}: a faster disk for store"),
    ],
)
def test_the_slowest_part_is_named_with_what_helps(monkeypatch, seconds, workers, text):
    monkeypatch.setattr(slowest, "available_cores", lambda: 16)
    shown = show_slowest(seconds, Settings(workers=workers))
    assert shown is not None
    assert console.spelled(shown, console.keyword) == text.format(" is the slowest part")


def test_nothing_is_said_too_early_or_of_a_cluster():
    assert show_slowest({"decode": 0.5, "forward": 0.4, "read": 9.0}, Settings()) is None
    assert show_slowest({}, Settings()) is None
    busy = {"forward": 100.0}
    assert show_slowest(busy, Settings())
    assert show_slowest(busy, replace(Settings(), dask="local:2")) is None


def test_it_stands_beside_the_progress_of_its_stage_alone(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with Screen() as screen:
        screen.notes["images"] = lambda: "decoding is the slowest part" if now[0] > 20 else None
        for stage in ("images", "tiles"):
            for seconds, done in ((0, 0), (10, 10), (50, 50)):
                now[0] = seconds
                screen.report(stage, done, 100)
    assert capsys.readouterr().err.splitlines() == [
        "images 10 of 100 (10%, 90 s left)",
        "images 50 of 100 (50%, 50 s left; decoding is the slowest part)",
        "tiles 10 of 100 (10%, 90 s left)",
        "tiles 50 of 100 (50%, 50 s left)",
    ]


def test_an_extraction_says_what_was_slowest(cli, pictures, monkeypatch):
    monkeypatch.setattr(slowest, "_LEAST_SECONDS", 0.0)
    outcome = cli("extract", pictures, *MODEL)
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("slowest")]
    assert "is the slowest part" in line
    (seconds,) = [line for line in outcome.out.splitlines() if line.startswith("seconds")]
    assert "forward " in seconds
    assert "write " in seconds
    assert "copy" not in seconds  # nothing is copied on a CPU
