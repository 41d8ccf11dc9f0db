"""Images in a bucket, through the command line: the same answers as from a folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import lpipstore

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")
FLEETING = ("seconds", "forwards", "hits", "rows_read")


def summary_of(outcome):
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def distances(run):
    return lpipstore.open_run(run).distances.compute()


@pytest.fixture
def photos(s3, pictures):
    """The URL of a prefix with the eight pictures, two of them in a subfolder."""
    for name, number in (("a", 6), ("b", 7)):
        (pictures / "sub" / name).mkdir(parents=True)
        (pictures / f"00{number}.png").rename(pictures / "sub" / name / "x.png")
    return s3.upload(pictures, "photos")


def test_pairs_of_a_prefix_are_those_of_the_folder(cli, s3, photos, pictures, tmp_path):
    summary_of(cli("pairs", pictures, *MODEL, "--out", tmp_path / "local", "--json"))
    summary = summary_of(cli("pairs", photos, *MODEL, "--out", tmp_path / "run", "--json"))
    assert (summary["images"], summary["forwards"], summary["hits"]) == (8, 0, 8)
    assert np.array_equal(distances(tmp_path / "run"), distances(tmp_path / "local"))
    names = lpipstore.open_run(tmp_path / "run").images["path"].to_pylist()
    assert names == [
        f"{photos}{path.removeprefix(f'{pictures}/')}"
        for path in lpipstore.open_run(tmp_path / "local").images["path"].to_pylist()
    ]
    assert sorted(s3.reads()) == sorted(name.removeprefix(f"{s3.url}/") for name in names)


def test_a_cold_run_and_a_warm_one(cli, s3, photos, tmp_path):
    cold = summary_of(cli("pairs", photos, *MODEL, "--out", tmp_path / "cold", "--json"))
    assert cold["forwards"] == 8
    assert len(s3.reads()) == 16  # once for the hash, once to decode
    assert s3.count("HEAD") == 0
    s3.requests.clear()
    warm = summary_of(cli("pairs", photos, *MODEL, "--out", tmp_path / "warm", "--json"))
    assert warm["forwards"] == 0
    assert s3.requests == [("GET", f"/{s3.bucket}")]
    for table in ("images.parquet", "distances.zarr/c/0/0"):
        assert (tmp_path / "warm" / table).read_bytes() == (tmp_path / "cold" / table).read_bytes()


def test_a_changed_object_is_read_again(cli, s3, photos, pictures, tmp_path, draw):
    summary_of(cli("pairs", photos, *MODEL, "--out", tmp_path / "before", "--json"))
    shutil.copy(draw(tmp_path / "new", 1, seed=9)[0], pictures / "003.png")
    s3.put("photos/003.png", (pictures / "003.png").read_bytes())
    s3.requests.clear()
    summary = summary_of(cli("pairs", photos, *MODEL, "--out", tmp_path / "after", "--json"))
    assert summary["forwards"] == 1
    assert set(s3.reads()) == {"photos/003.png"}
    summary_of(cli("pairs", pictures, *MODEL, "--out", tmp_path / "local", "--json"))
    assert np.array_equal(distances(tmp_path / "after"), distances(tmp_path / "local"))


def test_an_update_reads_what_is_new(cli, s3, photos, pictures, tmp_path, draw):
    summary_of(cli("pairs", photos, *MODEL, "--out", tmp_path / "old", "--json"))
    s3.put("photos/new.png", draw(tmp_path / "new", 1, seed=9)[0].read_bytes())
    s3.client.delete_object(Bucket=s3.bucket, Key="photos/000.png")
    s3.requests.clear()
    arguments = ("--update", tmp_path / "old", "--weights", "random", "--workers", "0")
    outcome = cli("pairs", photos, *arguments, "--out", tmp_path / "new-run", "--json")
    update = summary_of(outcome)["update"]
    assert (update["added"], update["removed"], update["changed"]) == (1, 1, 0)
    assert set(s3.reads()) == {"photos/new.png"}
    assert f"1 added: {photos}new.png" in outcome.err


def test_from_and_rescore(cli, s3, photos, tmp_path, monkeypatch):
    run = tmp_path / "run"
    summary_of(cli("pairs", photos, *MODEL, "--out", run, "--json"))
    s3.requests.clear()
    again = ("pairs", "--from", run / "manifest.json", "--weights", "random", "--workers", "0")
    assert summary_of(cli(*again, "--out", tmp_path / "again", "--json"))["forwards"] == 0
    assert not s3.reads()
    for file in ("images.parquet", "distances.zarr/c/0/0"):
        assert (tmp_path / "again" / file).read_bytes() == (run / file).read_bytes()

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody is there
    s3.requests.clear()
    rescored = cli("rescore", run, "--heads", "none", "--out", tmp_path / "rescored", "--json")
    assert rescored.code == 0, rescored.err
    assert not s3.requests


def test_from_names_what_has_changed(cli, s3, photos, tmp_path):
    summary_of(cli("pairs", photos, *MODEL, "--out", tmp_path / "run", "--json"))
    s3.client.delete_object(Bucket=s3.bucket, Key="photos/000.png")
    again = ("pairs", "--from", tmp_path / "run", "--weights", "random")
    outcome = cli(*again, "--out", tmp_path / "again")
    assert outcome.code == 1
    assert f"{photos}000.png (cannot be read: no such file)" in " ".join(outcome.err.split())


def test_compare(cli, s3, photos, pictures, draw, tmp_path):
    draw(tmp_path / "other", 3, seed=5)
    other = s3.upload(tmp_path / "other", "other")
    for name, (first, second) in {
        "remote": (photos, other),
        "local": (pictures, tmp_path / "other"),
        "mixed": (pictures, other),
    }.items():
        summary_of(cli("compare", first, second, *MODEL, "--out", tmp_path / name, "--json"))
    for name in ("remote", "mixed"):
        assert np.array_equal(distances(tmp_path / name), distances(tmp_path / "local"))


def test_namesakes(cli, s3, photos, draw, tmp_path):
    draw(tmp_path / "other", 8, seed=5)
    (tmp_path / "other" / "sub" / "a").mkdir(parents=True)
    (tmp_path / "other" / "007.png").rename(tmp_path / "other" / "sub" / "a" / "x.png")
    for second in (s3.upload(tmp_path / "other", "other"), tmp_path / "other"):
        s3.requests.clear()
        run = tmp_path / f"run-{bool(s3.requests)}-{len(str(second))}"
        summary = summary_of(
            cli("compare", photos, second, "--paired", *MODEL, "--out", run, "--json")
        )
        assert (summary["pairs"], summary["only_in_first"], summary["only_in_second"]) == (7, 1, 1)
        line = lpipstore.open_run(run).pairs.to_pylist()[6]
        assert (line["name"], line["path_i"]) == ("sub/a/x.png", f"{photos}sub/a/x.png")
        assert s3.count("HEAD") == 0
    single = cli("compare", f"{photos}000.png", photos, "--paired", *MODEL, "--out", tmp_path / "x")
    assert single.code == 2
    assert "is not a folder" in single.err


def test_groups_are_prefixes(cli, s3, draw, tmp_path):
    for number, name in enumerate(("cats", "dogs")):
        draw(tmp_path / "classes" / name, 3, seed=number)
    place = s3.upload(tmp_path / "classes", "classes")
    run = tmp_path / "run"
    summary = summary_of(
        cli("pairs", place, "--group-by", "folder", *MODEL, "--out", run, "--json")
    )
    assert summary["pairs"] == 6
    groups = lpipstore.open_run(run).groups.to_pylist()
    assert [g["group"] for g in groups] == [f"{place}cats", f"{place}dogs"]
    assert cli("rescore", run, "--heads", "none", "--out", tmp_path / "rescored").code == 0


def test_a_table_of_urls(cli, s3, photos, pictures, tmp_path):
    table = tmp_path / "pairs.csv"
    lines = (
        "a,b,note",
        f"{photos}000.png,{photos}001.png,two urls",
        f"{photos}000.png,pictures/002.png,a url and a file",
        f"{photos}none.png,{photos}001.png,none",
    )
    table.write_text("\n".join(lines) + "\n")
    run = tmp_path / "run"
    summary = summary_of(cli("score", table, *MODEL, "--out", run, "--json"))
    assert (summary["pairs"], summary["failed"]) == (2, 1)
    lines = lpipstore.open_run(run).pairs.to_pylist()
    assert lines[0]["path_i"] == f"{photos}000.png"
    assert lines[2]["distance"] is None
    summary_of(cli("pairs", pictures, *MODEL, "--out", tmp_path / "all", "--json"))
    matrix = distances(tmp_path / "all")
    found = [line["distance"] for line in lines[:2]]
    assert np.allclose(found, [matrix[0, 1], matrix[0, 2]], atol=1e-6)


def test_messages(cli, s3, photos, tmp_path):
    for place, code, message in (
        (f"{s3.url}/none/", 2, f"no such file or folder: {s3.url}/none/"),
        ("s3://no-such-bucket-at-all/", 2, "is not there: no such bucket"),
        (f"{photos}shard.tar", 2, "download it first"),
        ("s3://key:secret@bucket/", 2, "s3://***@bucket/ has a password in it"),
        ("gs://bucket/", 2, "needs a package, which is not installed"),
        (f"{photos}none.png", 1, "cannot be read: no such file"),
    ):
        outcome = cli("pairs", place, *MODEL, "--out", tmp_path / "run")
        assert outcome.code == code, (place, outcome.err)
        assert message in " ".join(outcome.err.split())
        assert "secret" not in outcome.err


# -- kill -9 -------------------------------------------------------------------------------------


def start(arguments, folder):
    """Run the command line in a process of its own."""
    program = "from lpipstore.workflows.cli.app import run_command; run_command()"
    with (folder / "output").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            stdout=output,
            stderr=output,
            env={**os.environ, "LPIPSTORE_STORE": str(folder / "store")},
        )


def contents(run):
    files = {}
    for path in sorted(run.rglob("*")):
        if path.name == "summary.json":
            summary = json.loads(path.read_text())
            files[path.relative_to(run)] = {k: v for k, v in summary.items() if k not in FLEETING}
        elif path.is_file():
            files[path.relative_to(run)] = path.read_bytes()
    return files


def test_killed_within_a_prefix_and_resumed(s3, draw, tmp_path):
    count = 300
    draw(tmp_path / "many", count)
    place = s3.upload(tmp_path / "many", "many")
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    command = ("pairs", place, "--backbone", "squeeze", "--weights", "random", "--size", "64")
    whole = start([*command, "--out", tmp_path / "whole" / "run"], tmp_path / "whole")
    assert whole.wait(300) == 0, (tmp_path / "whole" / "output").read_text()

    folder = tmp_path / "killed"
    s3.delay = 0.02
    for reads in (100, count + 60, 250):  # while hashing, and twice while decoding
        s3.requests.clear()
        process = start([*command, "--out", folder / "run"], folder)
        while len(s3.reads()) < reads and process.poll() is None:
            time.sleep(0.005)
        assert process.poll() is None, (folder / "output").read_text()
        process.send_signal(signal.SIGKILL)
        process.wait()
    s3.delay = 0.0
    s3.requests.clear()
    assert start([*command, "--out", folder / "run"], folder).wait(300) == 0
    assert 0 < len(s3.reads()) < count  # what was hashed and computed before is not read again
    assert contents(folder / "run") == contents(tmp_path / "whole" / "run")
