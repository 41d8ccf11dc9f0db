"""The command line as such: help, options, where things are printed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lpipstore.cache.errors import LpipstoreError, UsageError
from lpipstore.workflows.session.settings import first_limit, parse_bytes, show_bytes

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")


def test_help_imports_neither_torch_nor_zarr():
    code = (
        "import sys; from lpipstore.workflows.cli.app import main; sys.argv[1:] = ['--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'torch', 'zarr', 'numpy', 'pyarrow', 'dask'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert ended.returncode == 0
    assert b"pairs" in ended.stdout


@pytest.mark.parametrize("command", ["pairs", "extract", "demo", "store info"])
def test_each_command_explains_itself_with_an_example(cli, command):
    outcome = cli(*command.split(), "--help")
    assert outcome.code == 0
    assert f"lpipstore {command}" in outcome.out.partition(" Example")[2]
    if command == "pairs":
        assert "those of the lpips package" in outcome.out
        assert "$LPIPSTORE_STORE" in outcome.out
        assert "10GB, at most half of what is free" in outcome.out


def test_version(cli):
    assert re.fullmatch(r"lpipstore \d+\.\d+\.\d+\n", cli("--version").out)


def test_results_go_to_stdout_and_messages_to_stderr(cli, pictures, tmp_path):
    outcome = cli("pairs", pictures, *MODEL, "--out", tmp_path / "run")
    assert "mean distance" in outcome.out
    assert "untrained" in outcome.err
    assert "warning" not in outcome.out
    as_json = cli("pairs", pictures, *MODEL, "--out", tmp_path / "run", "--json")
    assert json.loads(as_json.out)["pairs"] == 28


def test_extract_then_pairs_forwards_once(cli, pictures, tmp_path):
    extracted = json.loads(cli("extract", pictures, *MODEL, "--json").out)
    assert (extracted["images"], extracted["forwards"], extracted["hits"]) == (8, 8, 0)
    again = json.loads(cli("extract", pictures, *MODEL, "--json").out)
    assert (again["forwards"], again["hits"]) == (0, 8)
    scored = json.loads(cli("pairs", pictures, *MODEL, "--out", tmp_path / "run", "--json").out)
    assert scored["forwards"] == 0


def test_store_info_tells_what_is_there(cli, pictures):
    cli("extract", pictures, *MODEL)
    stat = json.loads(cli("store", "info", "--json").out)
    assert stat["rows"] == 8
    assert stat["pools"][0]["recipe"]["backbone"] == "squeeze"
    shown = cli("store", "info").out
    assert "squeeze-32x32" in shown
    assert Path(stat["path"]).name == "store"


def test_the_size_that_was_chosen_is_said(cli, pictures, tmp_path, draw):
    draw(tmp_path / "larger", 1, side=(40, 48))
    outcome = cli("pairs", pictures, tmp_path / "larger", *MODEL, "--out", tmp_path / "run")
    assert "2 different sizes: all are scaled to 224×224" in outcome.err


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1", 1),
        ("500MB", 500_000_000),
        ("20GB", 20_000_000_000),
        ("4GiB", 4 << 30),
        ("1.5 kB", 1500),
        ("2k", 2000),
        ("3tb", 3_000_000_000_000),
        ("7 B", 7),
    ],
)
def test_bytes_as_people_write_them(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GB", "0", "-1", "1 zebra", "1e9", "nan", "1,5GB", "0.1B"])
def test_bytes_that_are_none(text):
    with pytest.raises(UsageError):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (56_640_000, "56.6 MB"), (2 * 10**13, "20 TB")],
)
def test_bytes_as_people_read_them(count, text):
    assert show_bytes(count) == text


def test_the_default_limit_leaves_half_of_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 3_000_000})())
    assert first_limit(tmp_path / "not" / "there" / "yet") == 1_500_000


def test_a_disk_without_room_for_a_store_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 4096})())
    with pytest.raises(LpipstoreError, match=r"4.1 kB free .*folder \(store\)"):
        first_limit(tmp_path)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (("--size", "big"), "unknown --size"),
        (("--backbone", "Squeeze"), "Unknown backbone"),
        (("--device", "gpu"), "unknown device"),
        (("--row-dtype", "float16"), "unknown --row-dtype"),
    ],
)
def test_options_are_looked_at_before_the_images(cli, pictures, tmp_path, option, says):
    outcome = cli("pairs", pictures, "--out", tmp_path / "run", *option)
    assert outcome.code == 2
    assert says in outcome.err and "hash" not in outcome.err
