"""`store push`, `store pull` and --remote against a real S3 server, a folder and a memory."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import lpipstore
from lpipstore.cache.errors import LpipstoreError, UsageError
from lpipstore.cache.exchange import fetch as fetching
from lpipstore.cache.keys import PoolSpec
from lpipstore.cache.store import FeatureStore

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")
KEYWORDS = {"backbone": "squeeze", "weights": "random", "workers": 0}
ROW = 2 * 24_768  # bytes of a row of squeeze at 32 px
SPEC = PoolSpec("tests", 30_000, "uint16", {"backbone": "alex"})


def result(outcome):
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def is_segment(name):
    return name.endswith("/c.0.0")


def is_catalogue(name):
    return name.endswith(".parquet")


class Bucket:
    """What lies in the bucket of a test, by name."""

    def __init__(self, s3):
        self.s3 = s3
        self.url = f"{s3.url}/rows"

    def names(self, which=lambda name: True):
        listed = self.s3.client.list_objects_v2(Bucket=self.s3.bucket, Prefix="rows/")
        return [o["Key"] for o in listed.get("Contents", []) if which(o["Key"])]

    def read(self, name):
        return self.s3.client.get_object(Bucket=self.s3.bucket, Key=name)["Body"].read()

    def remove(self, name):
        self.s3.client.delete_object(Bucket=self.s3.bucket, Key=name)


@pytest.fixture
def bucket(s3):
    return Bucket(s3)


@pytest.fixture
def filled(cli, pictures, tmp_path):
    """A store with the rows of the eight pictures, and the run of all their pairs."""
    store = tmp_path / "first"
    command = ("pairs", pictures, *MODEL, "--store", store, "--out", tmp_path / "cold")
    assert cli(*command).code == 0
    return store


def rows_of(store, numbers):
    rows = [(np.arange(SPEC.length) + n) % 60_000 for n in numbers]
    keys = [SPEC.key(b"%d" % n) for n in numbers]
    assert store.put_many(SPEC, keys, np.array(rows, "uint16")) == len(keys)


def many_segments(path, numbers):
    """Make a store of one segment for each ten rows."""
    with FeatureStore(path, limit=10 << 20) as store:
        rows_of(store, numbers)
    return path


def same_run(files_of, one, two):
    assert files_of(one) == files_of(two)


def test_push_and_pull_by_way_of_s3(cli, bucket, filled, pictures, tmp_path, files_of):
    pushed = result(cli("store", "push", bucket.url, "--store", filled, "--json"))
    assert (pushed["rows"], pushed["segments"], pushed["there"]) == (8, 1, 0)
    assert pushed["bytes"] > 8 * ROW
    bucket.s3.requests.clear()
    again = result(cli("store", "push", bucket.url, "--store", filled, "--json"))
    assert (again["rows"], again["bytes"], again["there"]) == (0, 0, 8)
    assert not bucket.s3.count("PUT")
    second = tmp_path / "second"
    pulled = result(cli("store", "pull", bucket.url, "--store", second, "--json"))
    assert (pulled["wanted"], pulled["rows"], pulled["there"]) == (8, 8, 0)
    out = ("--store", second, "--out", tmp_path / "warm", "--json")
    summary = result(cli("pairs", pictures, *MODEL, *out))
    assert (summary["forwards"], summary["hits"]) == (0, 8)
    same_run(files_of, tmp_path / "cold", tmp_path / "warm")
    bucket.s3.requests.clear()
    again = result(cli("store", "pull", bucket.url, "--store", second, "--json"))
    assert (again["rows"], again["bytes"], again["there"]) == (0, 0, 8)
    assert not bucket.s3.reads()  # the catalogue is kept: one request asks whether it changed
    assert not [name for name in bucket.s3.reads() if is_segment(name)]


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_push_and_pull_by_way_of_a_folder_or_a_memory(
    cli, memory, kind, filled, pictures, tmp_path, files_of
):
    url = {"file": f"file://{tmp_path}/remote/rows", "memory": "memory://remote/rows"}[kind]
    pushed = result(cli("store", "push", url + "/", "--store", filled, "--json"))
    assert (pushed["rows"], pushed["url"]) == (8, url)
    assert result(cli("store", "push", url, "--store", filled, "--json"))["bytes"] == 0
    second = tmp_path / "second"
    assert result(cli("store", "pull", url, "--store", second, "--json"))["rows"] == 8
    out = ("--store", second, "--out", tmp_path / "warm", "--json")
    assert result(cli("pairs", pictures, *MODEL, *out))["forwards"] == 0
    same_run(files_of, tmp_path / "cold", tmp_path / "warm")
    assert not list(tmp_path.rglob("*.partial"))


def test_only_the_rows_of_some_images(cli, bucket, filled, pictures, draw, tmp_path):
    draw(tmp_path / "more", 3, seed=5)
    assert cli("store", "push", bucket.url, "--store", filled).code == 0
    second = tmp_path / "second"
    some = [pictures / f"00{n}.png" for n in (1, 2, 6)]
    command = ("store", "pull", bucket.url, *some, tmp_path / "more", *MODEL, "--store", second)
    pulled = result(cli(*command, "--json"))
    assert (pulled["wanted"], pulled["rows"], pulled["unknown"]) == (6, 3, 3)
    shown = cli(*command).out
    assert "0 of 6 rows" in shown
    assert "3 rows: they are computed when they are needed" in shown
    assert result(cli("store", "info", "--store", second, "--json"))["rows"] == 3


def test_what_the_limit_leaves_room_for(cli, memory, tmp_path):
    many_segments(tmp_path / "first", range(60))
    assert cli("store", "push", "memory://rows", "--store", tmp_path / "first").code == 0
    second = tmp_path / "second"
    with FeatureStore(second, limit=2 << 20) as store:
        rows_of(store, range(1000, 1010))
        store.sealed()
    pulled = result(cli("store", "pull", "memory://rows", "--store", second, "--json"))
    assert 10 < pulled["rows"] < 40
    assert pulled["rows"] + pulled["no_room"] == pulled["wanted"] == 60
    assert pulled["evicted_bytes"] > 0
    info = result(cli("store", "info", "--store", second, "--json"))
    assert info["bytes"] <= info["limit"]
    assert info["rows"] == pulled["rows"]  # none was evicted for another
    with FeatureStore(second) as store:
        store.evict(1 << 20)
        kept = store.stat().rows
    again = result(cli("store", "pull", "memory://rows", "--store", second, "--json"))
    assert again["there"] == kept
    assert "store-limit" in cli("store", "pull", "memory://rows", "--store", second).out


def test_pinned_rows_stay(cli, memory, tmp_path):
    many_segments(tmp_path / "first", range(60))
    assert cli("store", "push", "memory://rows", "--store", tmp_path / "first").code == 0
    with FeatureStore(tmp_path / "second", limit=2 << 20) as store:
        rows_of(store, range(1000, 1010))
        keys = [SPEC.key(b"%d" % n) for n in range(1000, 1010)]
        with store.pin("a run", keys):
            store.sealed()
            where = ("--store", tmp_path / "second", "--json")
            pulled = result(cli("store", "pull", "memory://rows", *where))
            assert pulled["no_room"] > 0
            assert not store.missing(keys)


@pytest.mark.parametrize(
    "command", [("pairs",), ("pairs", "--below", "0.9"), ("extract",), ("dry",)], ids=str
)
def test_remote_rows_are_fetched_instead_of_computed(
    cli, bucket, filled, pictures, draw, tmp_path, command
):
    url = bucket.url
    if "--below" in command:
        where = ("--store", filled, "--out", tmp_path / "close")
        assert cli("pairs", pictures, *MODEL, "--below", "0.9", *where).code == 0
    assert cli("store", "push", url, "--store", filled).code == 0
    draw(pictures, 1, seed=9)  # another picture under an old name
    words = ("pairs", "--dry-run") if command == ("dry",) else command
    out = () if command == ("extract",) else ("--out", tmp_path / "run")
    where = ("--store", tmp_path / "second", "--remote", url)
    summary = result(cli(words[0], pictures, *words[1:], *MODEL, *out, *where, "--json"))
    assert (summary["forwards"], summary["hits"]) == (1, 0)
    rows = 7 + (7 if "--below" in command else 0)  # with their pooled rows
    assert summary["fetched"] == rows
    if command == ("dry",):
        return
    assert summary["fetched_bytes"] >= 7 * ROW
    bucket.s3.requests.clear()
    again = cli(words[0], pictures, *words[1:], *MODEL, *out, *where)
    assert again.code == 0
    assert "fetched" in again.out
    assert "0 rows, 0 B" in again.out
    assert not [name for name in bucket.s3.reads() if is_segment(name)]


def test_a_search_fetches_whole_rows_only_where_it_has_to(cli, memory, draw, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "_GAP", 0)  # rows in between count only where they are asked for
    draw(tmp_path / "many", 80, side=64)
    where = ("--store", tmp_path / "first", "--out", tmp_path / "close", "--json")
    close = ("pairs", tmp_path / "many", *MODEL, "--below", "0.0001")
    assert result(cli(*close, *where))["listed"] == 0
    assert cli("store", "push", "memory://rows", "--store", tmp_path / "first").code == 0
    where = ("--store", tmp_path / "second", "--out", tmp_path / "again", "--json")
    summary = result(cli(*close, *where, "--remote", "memory://rows"))
    assert (summary["forwards"], summary["listed"]) == (0, 0)
    assert summary["fetched"] > 80
    assert summary["fetched_bytes"] < 80 * 2 * 118_976 / 2


def test_a_store_without_room_fetches_again_and_computes_nothing(
    cli, memory, draw, tmp_path, files_of
):
    draw(tmp_path / "many", 24, side=64)
    url, command = "memory://rows", ("pairs", tmp_path / "many", *MODEL)
    first = ("--store", tmp_path / "first", "--out", tmp_path / "cold")
    assert cli(*command, *first).code == 0
    assert cli("store", "push", url, "--store", tmp_path / "first").code == 0
    small = ("--store", tmp_path / "small", "--store-limit", "2MB", "--remote", url)
    outcome = cli(*command, *small, "--out", tmp_path / "run", "--json")
    summary = result(outcome)
    assert summary["forwards"] == 0
    assert summary["fetched"] >= 24
    assert "more forwards" not in outcome.err
    same_run(files_of, tmp_path / "cold", tmp_path / "run")


def test_other_commands_and_python(cli, memory, filled, pictures, tmp_path):
    url = "memory://rows"
    assert cli("store", "push", url, "--store", filled).code == 0
    pair = [(str(pictures / "000.png"), str(pictures / "001.png"))]
    run = lpipstore.score(pair, store=tmp_path / "s1", remote=url, **KEYWORDS)
    assert (run.summary["forwards"], run.summary["fetched"]) == (0, 2)
    both = (str(pictures / "000.png"), str(pictures / "005.png"))
    run = lpipstore.compare(*both, store=tmp_path / "s2", remote=url, **KEYWORDS)
    assert (run.summary["forwards"], run.summary["fetched"]) == (0, 2)
    line = f"{url} has no rows of this backbone, with these weights and this size"
    other = ("extract", pictures, *MODEL, "--size", "48", "--store", tmp_path / "s5")
    assert line in cli(*other, "--remote", url).err
    where = ("--store", tmp_path / "s3", "--remote", url, "--out", tmp_path / "plain")
    rescore = ("rescore", tmp_path / "cold", "--heads", "none", *where, "--weights", "random")
    assert "8 rows" in cli(*rescore, "--no-compute").out
    summary = lpipstore.pairs(pictures, store=tmp_path / "s4", **KEYWORDS).summary
    assert "fetched" not in summary


def damage(bucket, how):
    """Damage the only segment that was pushed; return its name."""
    (name,) = bucket.names(is_segment)
    data = bucket.read(name)
    kinds = {"truncated": data[: len(data) // 3], "altered": data[:99] + b"?" + data[100:]}
    bucket.s3.put(name, kinds[how])
    return name.removeprefix("rows/")


@pytest.mark.parametrize("how", ["truncated", "altered"])
def test_a_damaged_object_is_named_and_its_rows_computed(
    cli, bucket, filled, pictures, tmp_path, files_of, how
):
    assert cli("store", "push", bucket.url, "--store", filled).code == 0
    name = damage(bucket, how)
    where = ("--store", tmp_path / "second", "--out", tmp_path / "run", "--remote", bucket.url)
    outcome = cli("pairs", pictures, *MODEL, *where, "--json")
    summary = result(outcome)
    assert summary["fetched"] + summary["forwards"] == 8
    assert (summary["forwards"] == 1) if how == "altered" else (summary["forwards"] > 4)
    assert f"warning: {bucket.url}/{name} is damaged or gone" in outcome.err
    same_run(files_of, tmp_path / "cold", tmp_path / "run")
    pulled = result(cli("store", "pull", bucket.url, "--store", tmp_path / "third", "--json"))
    assert pulled["damaged"] == summary["forwards"]
    assert pulled["no_room"] == 0
    outcome = cli("store", "push", bucket.url, "--store", filled)
    assert outcome.code == 0
    assert "altered objects" in outcome.out
    pulled = result(cli("store", "pull", bucket.url, "--store", tmp_path / "third", "--json"))
    assert (pulled["rows"], pulled["damaged"]) == (summary["forwards"], 0)


def test_a_catalogue_that_was_removed(cli, bucket, filled, pictures, tmp_path):
    assert cli("store", "push", bucket.url, "--store", filled).code == 0
    for name in bucket.names(is_catalogue):
        bucket.remove(name)
    where = ("--store", tmp_path / "second")
    for command in (
        ("store", "pull", bucket.url),
        ("pairs", pictures, *MODEL, "--remote", bucket.url, "--out", tmp_path / "run"),
    ):
        outcome = cli(*command, *where)
        assert outcome.code == 1
        assert f"error: there is no catalogue of rows in {bucket.url}: " in outcome.err
        assert "`lpipstore store push` makes it" in outcome.err
    pushed = result(cli("store", "push", bucket.url, "--store", filled, "--json"))
    assert (pushed["segments"], pushed["resumed"]) == (0, 1)
    assert pushed["bytes"] < 10_000
    assert result(cli("store", "pull", bucket.url, *where, "--json"))["rows"] == 8


def push_process(url, store):
    """Start a push as a process of its own."""
    start = "from lpipstore.workflows.cli.app import main; main()"
    words = ("store", "push", url, "--store", store, "--json")
    command = [sys.executable, "-c", start, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, process):
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_push_goes_on(cli, bucket, tmp_path):
    store = many_segments(tmp_path / "first", range(150))
    bucket.s3.delay = 0.1
    process = push_process(bucket.url, store)
    wait_for(lambda: len(bucket.names(is_segment)) >= 4, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    bucket.s3.delay = 0.0
    sent = len(bucket.names(is_segment))
    assert 4 <= sent < 15
    assert not bucket.names(is_catalogue)
    assert cli("store", "pull", bucket.url, "--store", tmp_path / "second").code == 1
    pushed = result(cli("store", "push", bucket.url, "--store", store, "--json"))
    assert pushed["rows"] == 150
    assert sent <= pushed["resumed"] <= sent + 4  # those on their way may have arrived
    pulled = result(cli("store", "pull", bucket.url, "--store", tmp_path / "second", "--json"))
    assert (pulled["rows"], pulled["damaged"]) == (150, 0)


def test_two_pushes_at_once(cli, bucket, tmp_path):
    stores = [
        many_segments(tmp_path / "one", range(60)),
        many_segments(tmp_path / "two", range(30, 90)),
    ]
    processes = [push_process(bucket.url, store) for store in stores]
    for process in processes:
        out, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
        assert json.loads(out)["rows"] >= 30
    pulled = result(cli("store", "pull", bucket.url, "--store", tmp_path / "second", "--json"))
    assert (pulled["wanted"], pulled["rows"], pulled["damaged"]) == (90, 90, 0)


def test_what_cannot_be_reached(cli, s3, filled, pictures, tmp_path, monkeypatch, impatient):
    gone = "s3://no-such-bucket-at-all/rows"
    for command in (
        ("store", "push", gone, "--store", filled),
        ("store", "pull", gone),
        ("extract", pictures, *MODEL, "--remote", gone),
    ):
        outcome = cli(*command)
        assert outcome.code == 1
        assert outcome.err.splitlines()[-1] == f"error: {gone} cannot be listed: no such bucket"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    outcome = cli("store", "pull", f"{s3.url}/rows")
    assert outcome.code == 1
    line = f"error: {s3.url}/rows cannot be listed: no credentials (set AWS_ACCESS_KEY_ID"
    assert outcome.err.splitlines()[-1].startswith(line)


def test_no_server_answers(cli, s3, filled, monkeypatch, impatient):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    outcome = cli("store", "push", f"{s3.url}/rows", "--store", filled)
    assert outcome.code == 1
    expected = f"error: {s3.url}/rows cannot be listed: the server cannot be reached"
    assert outcome.err.splitlines()[-1] == expected


def test_what_is_no_remote_store(cli, filled, pictures, tmp_path, monkeypatch):
    for url in ("rows", str(tmp_path), "https://host/rows", "C:\\rows"):
        for command in (
            ("store", "push", url, "--store", filled),
            ("store", "pull", url),
            ("extract", pictures, *MODEL, "--remote", url),
        ):
            outcome = cli(*command)
            assert outcome.code == 2
            assert "a remote store is at a URL such as s3://bucket/folder" in outcome.err
    outcome = cli("store", "push", "s3://key:secret@bucket/rows", "--store", filled)
    assert outcome.code == 2
    assert "secret" not in outcome.err
    outcome = cli("store", "push", "s3://bucket/rows", "--store", tmp_path / "none")
    assert outcome.code == 2
    assert "no store at" in outcome.err
    with pytest.raises(UsageError, match="a remote store is at a URL"):
        lpipstore.extract(pictures, remote="rows", store=tmp_path / "s", **KEYWORDS)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    outcome = cli("store", "pull", "s3://bucket/rows")
    assert outcome.code == 2
    assert "pip install 'lpipstore[remote]'" in outcome.err
    with pytest.raises(LpipstoreError, match="lpipstore"):
        lpipstore.extract(pictures, remote="s3://bucket/rows", store=tmp_path / "s", **KEYWORDS)


def test_a_folder_that_cannot_be_written(cli, filled, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    url = f"file://{tmp_path}/file/rows"
    outcome = cli("store", "push", url, "--store", filled)
    assert outcome.code == 1
    assert outcome.err.splitlines()[-1].startswith(f"error: {url}/")


@pytest.mark.slow
def test_workers_of_a_cluster_get_what_was_fetched(cli, filled, pictures, tmp_path, files_of):
    pytest.importorskip("distributed")
    url = f"file://{tmp_path}/rows"
    assert cli("store", "push", url, "--store", filled).code == 0
    where = ("--store", tmp_path / "second", "--out", tmp_path / "run", "--json")
    summary = result(cli("pairs", pictures, *MODEL, *where, "--remote", url, "--dask", "local:1"))
    assert (summary["forwards"], summary["fetched"]) == (0, 8)
    same_run(files_of, tmp_path / "cold", tmp_path / "run")
