"""What a person meets at the prompt besides results: progress, warnings, stops, two at once."""

import builtins
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from lpipstore.workflows.session import preflight as foresight
from lpipstore.workflows.session import screen as console
from lpipstore.workflows.session.preflight import warn_of_matrix
from lpipstore.workflows.session.screen import (
    Screen,
    print_lines,
    print_table,
    show_seconds,
)

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")
COMMANDS = ["pairs", "score", "compare", "neighbours", "extract", "rescore", "export", "demo"]


@pytest.mark.parametrize("command", [*COMMANDS, "store info", "store verify", "store evict"])
def test_every_command_has_an_example(cli, command):
    outcome = cli(*command.split(), "--help")
    assert outcome.code == 0
    assert f"lpipstore {command}" in outcome.out.partition(" Example")[2]


@pytest.mark.parametrize(
    ("mistyped", "meant"),
    [
        (("piars", "photos"), "pairs"),
        (("rescor",), "rescore"),
        (("pairs", "photos", "--bakbone", "vgg"), "--backbone"),
        (("rescore", "run", "--head", "x"), "--heads"),
    ],
)
def test_mistyped_words_are_answered_with_what_was_meant(cli, mistyped, meant):
    outcome = cli(*mistyped)
    assert (outcome.code, meant in outcome.err) == (2, True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete(shell):
    command = Path(sys.executable).with_name("lpipstore")
    named = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # whoever asks
    ended = subprocess.run(
        [command, "--show-completion", shell],
        env=named,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "lpipstore" in ended.stdout
    assert {"bash": "complete -o", "zsh": "#compdef", "fish": "complete --command"}[shell] in (
        ended.stdout
    )


FAULTS = """
import ctypes, resource, sys
if sys.argv[1] == "command":
    from lpipstore.workflows.cli.app import _keep_freed_memory
    _keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, size = ctypes.c_void_p, 24 << 20
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_long]
for turn in range(20):
    if turn == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    layers = [libc.malloc(size) for _ in range(4)]
    for layer in layers:
        libc.memset(layer, 1, size)
    for layer in layers:
        libc.free(layer)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_commands_keep_the_memory_that_layers_free():
    """Four of 24 MB at a time: otherwise each page is fetched from the system again and again."""
    faults = {}
    for way in ("command", "another program"):
        program = [sys.executable, "-c", FAULTS, way]
        ended = subprocess.run(program, capture_output=True, text=True, check=True)
        faults[way] = int(ended.stdout)
    assert faults["command"] < 1000 < faults["another program"]


@pytest.mark.parametrize(
    "command",
    [
        "pairs P --out EMPTY",
        "pairs P --out R --store EMPTY",
        "pairs P --out R --update EMPTY",
        "pairs --from EMPTY --out R",
        "score EMPTY --out R",
        "score T --images EMPTY --out R",
        "compare EMPTY P --out R",
        "extract P --store EMPTY",
        "rescore R --heads none --out EMPTY",
        "export EMPTY --format csv",
        "evaluate T --out EMPTY",
        "evaluate EMPTY",
        "train T --out EMPTY",
        "train T --held-out-from EMPTY --out H",
        "demo --out EMPTY",
        "store clear --store EMPTY",
    ],
)
def test_an_empty_path_is_not_the_working_directory(cli, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    outcome = cli(*("" if word == "EMPTY" else word for word in command.split()))
    assert (outcome.code, "the path is empty" in outcome.err) == (2, True), outcome.err
    assert not list(tmp_path.iterdir())


def test_an_error_of_a_file_is_not_one_of_printing(cli, pictures, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise PermissionError(13, "Permission denied", "/some/file")

    monkeypatch.setattr("lpipstore.workflows.scoring.all_pairs.score_pairs", fail)
    outcome = cli("pairs", pictures, *MODEL, "--out", tmp_path / "run")
    assert outcome.code == 1
    assert "a file cannot be read or written: " in outcome.err
    assert "Permission denied: '/some/file'" in outcome.err
    assert "print" not in outcome.err


def test_quiet_leaves_results_and_warnings(cli, pictures, tmp_path):
    (pictures / "broken.png").write_bytes(b"")
    outcome = cli("pairs", pictures, *MODEL, "--quiet", "--out", tmp_path / "run")
    assert outcome.code == 0
    assert "mean distance" in outcome.out
    lines = outcome.err.splitlines()
    assert lines
    assert all(line.startswith("warning: ") for line in lines)
    assert "broken.png is left out" in outcome.err


def test_a_stream_that_cannot_show_a_character_shows_another(cli, pictures, tmp_path):
    variables = {"PYTHONIOENCODING": "ascii", "LPIPSTORE_STORE": str(tmp_path / "store")}
    command = [Path(sys.executable).with_name("lpipstore"), "pairs", pictures, *MODEL]
    ended = subprocess.run(
        [*command, "--out", tmp_path / "日"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | variables,
    )
    assert ended.returncode == 0, ended.stderr
    assert " ? " in next(line for line in ended.stdout.splitlines() if "mean distance" in line)
    assert "results        " in ended.stdout


def test_a_table_in_a_pipe_is_not_cut(capsys):
    names = [f"{'long-' * 40}{number}" for number in range(2)]
    print_table("Heads", ("head", "2AFC"), [(name, "0.7") for name in names])
    shown = capsys.readouterr().out
    assert all(name in shown for name in names)


def test_outside_a_terminal_progress_is_lines_without_colours(cli, pictures, tmp_path):
    outcome = cli("pairs", pictures, *MODEL, "--out", tmp_path / "run")
    lines = outcome.err.splitlines()
    assert any(line.startswith("images 8 in ") for line in lines)
    assert "\x1b" not in outcome.err + outcome.out
    assert "━" not in outcome.err


def go_through_a_stage():
    with Screen() as screen:
        for done in range(3):
            screen.report("images", done, 2)
        screen.warn("what should be seen")


@pytest.mark.parametrize(
    ("variables", "bars"),
    [({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False), ({"JPY_PARENT_PID": "7"}, False)],
)
def test_bars_are_drawn_where_they_can_be(monkeypatch, variables, bars):
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    for name, value in {"TERM": "xterm", **variables}.items():
        monkeypatch.setenv(name, value)
    ours, terminal = os.openpty()
    with open(terminal, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        go_through_a_stage()
        stream.flush()
        seen = ""
        while "what should be seen" not in seen:  # a terminal hands on what has arrived so far
            seen += os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert ("━" in seen) == bars
    assert ("images 2 in 0.0 s" in seen) != bars


def test_a_pipe_that_wants_colours_gets_no_bars(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    go_through_a_stage()
    seen = capsys.readouterr().err
    assert "━" not in seen
    assert seen.startswith("images 2 in 0.0 s\n\x1b[33mwarning: ")


def test_a_notebook_gets_lines_of_text(monkeypatch, capsys):
    shell = type("ZMQInteractiveShell", (), {})()  # by which rich knows a notebook
    monkeypatch.setattr(builtins, "get_ipython", lambda: shell, raising=False)
    assert Console().is_jupyter
    go_through_a_stage()
    print_lines("Title", [("name", "value")])
    printed = capsys.readouterr()
    assert printed.err == "images 2 in 0.0 s\nwarning: what should be seen\n"
    assert printed.out == "Title\nname  value\n"


def test_a_long_stage_tells_now_and_then_how_long_it_takes(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with Screen() as screen:
        for done in range(0, 101):
            screen.report("images", done, 100)
            now[0] += 2.0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "images 3 of 100 (3%, 3 min left)"
    assert lines[-1] == "images 100 in 3 min"
    assert len(lines) == 8


def test_a_stage_that_begins_again_is_told_when_it_ends(capsys):
    with Screen() as screen:
        for done, total in ((0, 2), (2, 2), (2, 2), (0, 1), (1, 1)):
            screen.report("tiles", done, total)
    assert capsys.readouterr().err.splitlines() == ["tiles 2 in 0.0 s", "tiles 1 in 0.0 s"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (45.2, "45 s"), (170, "3 min"), (7800, "2 h 10 min")],
)
def test_times_as_people_read_them(seconds, text):
    assert show_seconds(seconds) == text


def test_a_large_matrix_is_told_with_its_size(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10**13})())
    warn_of_matrix(10**8, tmp_path / "run", Screen())
    assert capsys.readouterr().err == ""
    warn_of_matrix(10**9, tmp_path / "run", Screen())
    assert "the matrix takes 4 GB on disk" in capsys.readouterr().err
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10**9})())
    warn_of_matrix(10**9, tmp_path / "run", Screen())
    assert "takes 4 GB, and the disk of out has 1 GB free" in capsys.readouterr().err


def test_many_forwards_are_told_before_they_begin(cli, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(foresight, "MANY_FORWARDS", 8)
    outcome = cli("pairs", pictures, *MODEL, "--out", tmp_path / "run")
    assert "8 of 8 images are new to the store" in outcome.err
    outcome = cli("pairs", pictures, *MODEL, "--out", tmp_path / "run")
    assert "are new to the store" not in outcome.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_says_what_is_kept_and_how_to_go_on(tmp_path, draw, number):
    draw(tmp_path / "many pictures", 300, side=40)
    command = ["pairs", str(tmp_path / "many pictures"), *MODEL, "--size", "96"]
    command += ["--store", str(tmp_path / "store"), "--out", str(tmp_path / "run")]
    program = Path(sys.executable).with_name("lpipstore")
    with subprocess.Popen(
        [program, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not list((tmp_path / "store").glob("pools/*/c.*")):  # until rows have been sealed
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        out, messages = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert out == ""
    assert "interrupted; what is finished is kept (images " in messages
    assert f"lpipstore pairs '{tmp_path / 'many pictures'}' --backbone squeeze" in messages
    assert "Traceback" not in messages


def test_two_runs_at_once_on_one_store(tmp_path, draw):
    """Both are right, and no image goes through the trunk more than twice in total."""
    draw(tmp_path / "many", 150, side=40)
    program = Path(sys.executable).with_name("lpipstore")
    command = [program, "pairs", tmp_path / "many", *MODEL, "--size", "64", "--json"]
    store = ["--store", tmp_path / "store"]
    both = [
        subprocess.Popen([*command, *store, "--out", tmp_path / name], stdout=subprocess.PIPE)
        for name in ("one", "two")
    ]
    told = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert 150 <= sum(summary["forwards"] for summary in told) <= 300
    alone = ["--store", tmp_path / "other", "--out", tmp_path / "alone"]
    subprocess.run([*command, *alone], check=True, capture_output=True)
    files = [
        {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        for folder in (tmp_path / name / "distances.zarr" for name in ("one", "two", "alone"))
    ]
    assert files[0] == files[1] == files[2]
    verify = [program, "store", "verify", *store]
    assert subprocess.run(verify, check=False, capture_output=True).returncode == 0
