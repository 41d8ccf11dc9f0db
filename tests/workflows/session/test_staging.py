"""Runs at URLs: made here, copied when finished, read by nobody before; and copied back."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import lpipstore
from lpipstore.cache.errors import LpipstoreError, UsageError
from lpipstore.cache.exchange.folder import RemoteError
from lpipstore.workflows.session import runcopy
from lpipstore.workflows.session.screen import Screen
from lpipstore.workflows.session.staging import staged_run

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")
KEYWORDS = {"backbone": "squeeze", "weights": "random", "workers": 0}


def result(outcome):
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def last_line(outcome):
    return outcome.err.splitlines()[-1]


class Place:
    """The folder of a run in the bucket of a test."""

    def __init__(self, s3):
        self.s3 = s3
        self.url = f"{s3.url}/runs/one"

    def names(self):
        listed = self.s3.client.list_objects_v2(Bucket=self.s3.bucket, Prefix="runs/one/")
        return sorted(o["Key"].removeprefix("runs/one/") for o in listed.get("Contents", []))

    def written(self):
        """Names of what was written, in order."""
        root = f"/{self.s3.bucket}/runs/one/"
        return [path.removeprefix(root) for method, path in self.s3.requests if method == "PUT"]


@pytest.fixture
def place(s3):
    return Place(s3)


@pytest.fixture
def staged(tmp_path):
    """A function that lists what lies in the folder of runs on their way."""

    def files():
        root = tmp_path / "cache" / "runs"
        return sorted(path for path in root.rglob("*") if path.is_file())

    return files


def test_a_run_at_a_url_is_that_of_a_folder(cli, place, pictures, tmp_path, files_of, staged):
    assert cli("pairs", pictures, *MODEL, "--out", tmp_path / "here").code == 0
    place.s3.requests.clear()
    outcome = cli("pairs", pictures, *MODEL, "--out", place.url)
    assert outcome.code == 0, outcome.err
    assert f"copied to {place.url} when it is finished" in outcome.err
    assert f"{place.url} (distances.zarr, images.parquet, summary.json)" in outcome.out
    written = place.written()
    assert written[:2] == ["trial", "unfinished.json"]
    assert written[-1] == "manifest.json"
    assert place.names() == sorted(set(written) - {"trial", "unfinished.json"})
    assert not staged()
    fetched = result(cli("export", "run", place.url, tmp_path / "back", "--json"))
    assert fetched["files"] == fetched["copied"] == len(place.names())
    assert files_of(tmp_path / "back") == files_of(tmp_path / "here")
    run = lpipstore.open_run(tmp_path / "back")
    assert run.mean == lpipstore.open_run(tmp_path / "here").mean


def test_the_same_command_again_sends_what_is_not_there(cli, place, pictures, staged):
    command = ("pairs", pictures, *MODEL, "--out", place.url, "--json")
    first = result(cli(*command))
    assert (first["files"], first["copied"], first["url"]) == (5, 5, place.url)
    chunk = "runs/one/distances.zarr/c/0/0"
    data = place.s3.client.get_object(Bucket=place.s3.bucket, Key=chunk)["Body"].read()
    place.s3.put(chunk, data[:-1] + b"?")  # as long as before
    place.s3.requests.clear()
    again = result(cli(*command))
    assert again["forwards"] == 0
    written = place.written()
    assert (written[0], written[-1]) == ("trial", "manifest.json")
    assert set(written[1:-1]) == {"distances.zarr/c/0/0", "summary.json"}
    assert place.s3.client.get_object(Bucket=place.s3.bucket, Key=chunk)["Body"].read() == data
    assert not staged()


def test_every_kind_of_run(cli, memory, jobs, tmp_path, files_of, staged):
    for number, kind in enumerate(("groups", "compare", "paired", "score", "below", "top-k")):
        url = f"memory://runs/{number}"
        assert cli(*jobs[kind], *MODEL, "--out", tmp_path / f"{number}").code == 0
        assert cli(*jobs[kind], *MODEL, "--out", url).code == 0
        assert cli("export", "run", url, tmp_path / f"back{number}").code == 0
        assert files_of(tmp_path / f"back{number}") == files_of(tmp_path / f"{number}")
    words = ("rescore", tmp_path / "1", "--heads", "none", "--heads", "stock")
    outcome = cli(*words, "--weights", "random", "--out", "memory://runs/two")
    assert "memory://runs/two/none" in outcome.out
    for head in ("none", "stock"):
        url, back = f"memory://runs/two/{head}", tmp_path / f"of-{head}"
        assert cli("export", "run", url, back).code == 0
        assert lpipstore.open_run(back).mean > 0
    query = ("--query", jobs["pairs"][1] / "000.png", "--top-k", "2")
    assert cli("neighbours", tmp_path / "1", *query, "--out", "memory://runs/near").code == 0
    assert memory.exists("memory://runs/near/pairs.parquet")
    assert not staged()


def test_another_run_or_something_else_lies_there(cli, place, pictures, tmp_path, staged):
    assert cli("pairs", pictures, *MODEL, "--out", place.url).code == 0
    before = place.names()
    for more in ((), ("--dry-run",)):
        outcome = cli("pairs", pictures, *MODEL, "--heads", "none", "--out", place.url, *more)
        assert outcome.code == 2
        assert last_line(outcome).startswith(f"error: {place.url} holds a different run (head")
        assert "--out" in last_line(outcome)
    other = ("compare", pictures, pictures, *MODEL, "--out")
    assert "holds a different run" in cli(*other, place.url).err
    place.s3.put("notes/readme.txt", b"mine")
    outcome = cli(*other, f"{place.s3.url}/notes")
    assert outcome.code == 2
    assert "notes is not empty and holds no run (readme.txt is there)" in last_line(outcome)
    outcome = cli("export", "run", f"{place.s3.url}/notes", tmp_path / "back")
    assert "is not a run of lpipstore" in last_line(outcome)
    assert place.names() == before
    assert not staged()


def test_a_dry_run_writes_nothing(cli, place, pictures, staged):
    told = result(cli("pairs", pictures, *MODEL, "--out", place.url, "--dry-run", "--json"))
    assert told["forwards"] == 8
    assert not place.written()
    assert not staged()


def start(words, cache, store):
    begin = "from lpipstore.workflows.cli.app import main; main()"
    variables = {"LPIPSTORE_CACHE": str(cache), "LPIPSTORE_STORE": str(store)}
    return subprocess.Popen(
        [sys.executable, "-c", begin, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )


def wait_for(condition, process):
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_half_way_and_given_again(cli, place, pictures, tmp_path, files_of, staged):
    assert cli("pairs", pictures, *MODEL, "--out", tmp_path / "run").code == 0
    heads = ("--heads", "none", "--heads", "stock", "--weights", "random")
    words = ("rescore", tmp_path / "run", *heads, "--out")
    assert cli(*words, tmp_path / "here").code == 0
    place.s3.delay = 0.2
    process = start((*words, place.url), tmp_path / "cache", tmp_path / "store")
    wait_for(lambda: len(place.names()) >= 4, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    place.s3.delay = 0.0
    there = place.names()
    assert "none/unfinished.json" in there
    assert "none/manifest.json" not in there
    assert staged()
    outcome = cli("export", "run", f"{place.url}/none", tmp_path / "half")
    assert outcome.code == 1
    assert "is still being copied there, or that was interrupted" in last_line(outcome)
    other = cli("pairs", pictures, *MODEL, "--out", place.url)
    assert "is not empty and holds no run" in last_line(other)
    assert staged()
    place.s3.requests.clear()
    assert cli(*words, place.url).code == 0
    sent = {name for name in there if not name.endswith(".json")}
    assert not sent & set(place.written())
    assert not [name for name in place.names() if "unfinished" in name]
    assert not staged()
    for head in ("none", "stock"):
        assert cli("export", "run", f"{place.url}/{head}", tmp_path / "back" / head).code == 0
    assert files_of(tmp_path / "back") == files_of(tmp_path / "here")


def test_a_copy_that_fails_keeps_the_run(cli, memory, pictures, staged, monkeypatch):
    send = runcopy.UrlFolder.upload

    def fail(self, name, file):
        if name == "images.parquet":
            raise RemoteError("the line was cut")
        send(self, name, file)

    command = ("pairs", pictures, *MODEL, "--out", "memory://run")
    monkeypatch.setattr(runcopy.UrlFolder, "upload", fail)
    outcome = cli(*command)
    assert outcome.code == 1
    assert "the line was cut (the run is finished in " in last_line(outcome)
    assert staged()
    assert memory.exists("/run/unfinished.json")
    assert not memory.exists("/run/manifest.json")
    monkeypatch.setattr(runcopy.UrlFolder, "upload", send)
    assert cli(*command).code == 0
    assert memory.exists("/run/manifest.json")
    assert not memory.exists("/run/unfinished.json")
    assert not staged()


def test_what_arrived_is_compared_with_what_was_sent(cli, memory, pictures, monkeypatch):
    send = runcopy.UrlFolder.upload

    def tear(self, name, file):
        send(self, name, file)
        if name == "images.parquet":
            self.write(name, bytes(file.stat().st_size))

    monkeypatch.setattr(runcopy.UrlFolder, "upload", tear)
    outcome = cli("pairs", pictures, *MODEL, "--out", "memory://run")
    assert outcome.code == 1
    assert "memory://run/images.parquet is not what was sent" in last_line(outcome)
    assert not memory.exists("/run/manifest.json")


def test_one_process_at_a_time(cli, memory, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("LPIPSTORE_CACHE", str(tmp_path / "cache"))
    with Screen(quiet=True) as screen, staged_run("memory://run", screen) as made:
        outcome = cli("pairs", pictures, *MODEL, "--out", "memory://run")
        assert outcome.code == 1
        assert "another process is making a run for memory://run" in last_line(outcome)
        assert cli("pairs", pictures, *MODEL, "--out", made.folder).code == 0
    assert memory.exists("/run/manifest.json")


def test_what_cannot_be_reached(cli, s3, pictures, tmp_path, monkeypatch, impatient, staged):
    def told(url):
        outcome = cli("pairs", pictures, *MODEL, "--out", url)
        assert outcome.code == 1
        return last_line(outcome)

    gone = "s3://no-such-bucket-at-all/run"
    assert told(gone) == f"error: {gone} cannot be listed: no such bucket"
    url = f"{s3.url}/run"
    with monkeypatch.context() as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        patch.delenv("AWS_SECRET_ACCESS_KEY")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        assert told(url).startswith(f"error: {url} cannot be listed: no credentials (set AWS_")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert told(url) == f"error: {url} cannot be listed: the server cannot be reached"
    assert not (tmp_path / "store").exists()  # before anything was computed
    assert not staged()


def test_a_place_that_cannot_be_written(cli, pictures, tmp_path, staged):
    (tmp_path / "file").write_bytes(b"")
    outcome = cli("pairs", pictures, *MODEL, "--out", f"file://{tmp_path}/file/run")
    assert outcome.code == 1
    assert last_line(outcome).startswith(f"error: file://{tmp_path}/file/run")
    assert not (tmp_path / "store").exists()
    assert not staged()


def test_urls_where_a_path_is_needed(cli, pictures, tmp_path):
    for words in (
        ("report", "s3://bucket/run"),
        ("rescore", "s3://bucket/run", "--heads", "none", "--out", tmp_path / "run"),
        ("export", "s3://bucket/run", "--format", "csv"),
        ("pairs", pictures, "--update", "s3://bucket/run", "--out", tmp_path / "run"),
        ("train", pictures / "a.csv", "--out", "s3://bucket/head"),
    ):
        outcome = cli(*words)
        assert outcome.code == 2
        assert "`lpipstore export run FROM TO` copies" in outcome.err
    with pytest.raises(UsageError, match=r"lpipstore\.copy_run"):
        lpipstore.open_run("s3://bucket/run")
    with pytest.raises(UsageError, match="copy_run"):
        lpipstore.train(pictures / "a.csv", out="s3://bucket/head")
    outcome = cli("pairs", pictures, *MODEL, "--out", "s3://key:secret@bucket/run")
    assert outcome.code == 2
    assert "secret" not in outcome.err
    assert "of one kind" in cli("export", "run", tmp_path / "one", tmp_path / "two").err


def test_copies_go_on_and_stay_inside(cli, finished, memory, tmp_path, files_of):
    run = finished()
    assert result(cli("export", "run", run, "memory://copy", "--json"))["copied"] == 5
    back = tmp_path / "back"
    assert cli("export", "run", "memory://copy", back).code == 0
    (back / "summary.json").unlink()
    (back / "images.parquet").unlink()
    assert "is not finished" in cli("report", back).err
    assert cli("export", "run", "memory://copy", back).code == 0
    assert files_of(back) == files_of(run)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    assert "is not empty and holds no run" in cli("export", "run", "memory://copy", mine).err
    memory.pipe_file("/copy/a/../../outside", b"?")
    outcome = cli("export", "run", "memory://copy", tmp_path / "more")
    assert last_line(outcome).endswith("'a/../../outside', which no run has")
    assert not (tmp_path / "outside").exists()


def test_python(memory, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("LPIPSTORE_CACHE", str(tmp_path / "cache"))
    here = {**KEYWORDS, "store": tmp_path / "store"}
    run = lpipstore.pairs(pictures, out="memory://runs/python", **here)
    assert run.distances.shape == (8, 8)
    folder = run.path
    assert memory.exists("/runs/python/manifest.json")
    again = lpipstore.pairs(pictures, out="memory://runs/python", **here)
    assert (again.forwards, again.mean) == (0, run.mean)
    del run
    assert not folder.exists()
    lpipstore.copy_run("memory://runs/python", tmp_path / "back")
    assert lpipstore.open_run(tmp_path / "back").mean == again.mean
    with pytest.raises(UsageError, match="holds a different run"):
        lpipstore.nearest(pictures, 2, out="memory://runs/python", **here)
    pushed = lpipstore.push("memory://rows", store=tmp_path / "store")
    assert (pushed["rows"], pushed["altered"]) == (8, 0)
    assert lpipstore.push("memory://rows", store=tmp_path / "store", verify=True)["bytes"] == 0
    second = {**KEYWORDS, "store": tmp_path / "second"}
    some = [pictures / "001.png", pictures / "002.png"]
    assert lpipstore.pull("memory://rows", some, **second)["rows"] == 2
    assert lpipstore.pull("memory://rows", store=tmp_path / "second")["rows"] == 6
    assert lpipstore.pairs(pictures, **second).forwards == 0
    with pytest.raises(LpipstoreError, match="no catalogue"):
        lpipstore.pull("memory://nothing", **second)
    with pytest.raises(UsageError, match="a remote store is at a URL"):
        lpipstore.push("rows", store=tmp_path / "store")
