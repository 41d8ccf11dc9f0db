"""Runs on a Dask cluster: the bytes of a run in this process; and what is wrong is said."""

import json
import os
import re
import socket
import sys
from dataclasses import replace

import numpy as np
import pytest

import lpipstore
from lpipstore.cache.errors import UsageError
from lpipstore.workflows.session import cluster

MODEL = ("--backbone", "alex", "--weights", "random", "--size", "32")


def same_runs(files_of, one, other):
    here, there = files_of(one), files_of(other)
    assert here.keys() == there.keys()
    assert [name for name in here if here[name] != there[name]] == []


def compare_runs(cli, jobs, files_of, tmp_path, dask):
    """Make every kind of run here and on a cluster, and some again with another head."""
    for kind, command in jobs.items():
        folder = tmp_path / kind
        for name, more in (("here", ()), ("there", ("--dask", dask))):
            where = ("--store", folder / name / "store", "--out", folder / name / "run")
            outcome = cli(*command, *MODEL, *where, *more, "--json")
            assert outcome.code == 0, (kind, outcome.err)
            (folder / name / "out.json").write_text(outcome.out)
        same_runs(files_of, folder / "here" / "run", folder / "there" / "run")
        here, there = (
            json.loads((folder / name / "out.json").read_text()) for name in ("here", "there")
        )
        for name in ("images", "unique", "failed", "forwards", "hits", "pairs", "mean"):
            assert here.get(name) == there.get(name), (kind, name)
    for kind in ("pairs", "score"):
        for name, more in (("here", ()), ("there", ("--dask", dask))):
            folder = tmp_path / kind / name
            again = ("--heads", "none", "--store", folder / "store", "--out", folder / "again")
            assert cli("rescore", folder / "run", *again, *more).code == 0
        same_runs(files_of, tmp_path / kind / "here/again", tmp_path / kind / "there/again")


def test_every_kind_of_run_has_the_same_bytes(cli, jobs, files_of, scheduler, tmp_path):
    """In one test, because a cluster takes seconds to start."""
    compare_runs(cli, jobs, files_of, tmp_path, scheduler)


@pytest.mark.slow
def test_four_workers_give_the_same_bytes(cli, jobs, draw, files_of, four_workers, tmp_path):
    draw(tmp_path / "many", 1100)  # three tiles on each side
    draw(tmp_path / "few", 40)
    many, few = tmp_path / "many", tmp_path / "few"
    wide = {
        "pairs": ("pairs", many),
        "below": ("pairs", many, "--below", "0.2"),
        "compare": ("compare", many, few),
        "score": jobs["score"],
    }
    compare_runs(cli, wide, files_of, tmp_path, four_workers)


def test_processes_of_its_own_score_many_tiles(cli, draw, files_of, tmp_path, monkeypatch):
    for name in ("_FIRST_LINE_SECONDS", "_LINE_SECONDS"):  # each step of the progress is told
        monkeypatch.setattr(f"lpipstore.workflows.session.screen.{name}", 0.0)
    draw(tmp_path / "pictures", 560)  # two tiles on each side, eighteen batches
    command = ("pairs", tmp_path / "pictures", *MODEL)
    for name, more in (("here", ()), ("there", ("--dask", "local:2"))):
        where = ("--store", tmp_path / name / "store", "--out", tmp_path / name / "run")
        outcome = cli(*command, *where, *more)
        assert outcome.code == 0, outcome.err
    assert "starting 2 workers on this machine" in outcome.err
    assert "Dask's dashboard is at http://127.0.0.1:" in outcome.err
    assert re.search(
        r"^images \d+ of 560 \(.*; 2 workers, [\d.]+ .?B/s\)$", outcome.err, re.MULTILINE
    )
    assert re.search(r"^tiles \d of 3 \(.*; 2 workers, [\d.]+ .?B/s\)$", outcome.err, re.MULTILINE)
    same_runs(files_of, tmp_path / "here" / "run", tmp_path / "there" / "run")
    assert cli("store", "verify", "--store", tmp_path / "there" / "store").code == 0


@pytest.mark.parametrize("shared", [True, False])
def test_from_python_images_in_memory_and_in_files(draw, scheduler, tmp_path, monkeypatch, shared):
    if not shared:  # as if the workers did not see the store: images and rows are sent
        found = cluster.probe
        monkeypatch.setattr(cluster, "probe", lambda *args: replace(found(*args), share=0))
    options = {"backbone": "alex", "weights": "random", "size": 32}
    draw(tmp_path / "pictures", 40)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    for number, images in enumerate((tmp_path / "pictures", pixels)):
        stores = [tmp_path / f"{number}{where}" for where in ("here", "there")]
        here = lpipstore.distance_matrix(images, store=stores[0], **options)
        there = lpipstore.distance_matrix(images, store=stores[1], dask=scheduler, **options)
        assert here.tobytes() == there.tobytes()


def test_workers_need_all_rows_in_the_store(cli, draw, scheduler, tmp_path):
    draw(tmp_path / "pictures", 120)
    small = ("--store", tmp_path / "small", "--store-limit", "1MiB")
    command = ("pairs", tmp_path / "pictures", *MODEL, *small)
    outcome = cli(*command, "--out", tmp_path / "run", "--dask", scheduler)
    assert outcome.code == 1
    assert "with --dask, workers read all rows from the store: they take 1.38 MB" in outcome.err
    assert "raise --store-limit, or leave out --dask" in outcome.err
    assert cli(*command, "--out", tmp_path / "run").code == 0


# -- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "choice", ["local", "local:0", "local:x", "10.0.0.1:8786", "gone.json", ""]
)
def test_a_cluster_that_cannot_be_meant(cli, pictures, tmp_path, choice):
    outcome = cli("pairs", pictures, *MODEL, "--out", tmp_path / "run", "--dask", choice)
    assert outcome.code == 2
    assert f"unknown --dask '{choice}': write local:4" in outcome.err
    assert not (tmp_path / "run").exists()


def test_no_scheduler_answers(cli, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("lpipstore.workflows.session.cluster._ANSWER_S", 1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    outcome = cli("extract", pictures, *MODEL, "--dask", address)
    assert outcome.code == 1
    assert f"no Dask scheduler answers at {address}" in outcome.err
    assert len([line for line in outcome.err.splitlines() if line.startswith("error")]) == 1


def test_a_file_that_is_no_scheduler_file(cli, pictures, tmp_path):
    file = tmp_path / "file.json"
    for text in ("no JSON", "[]", "{}"):
        file.write_text(text)
        outcome = cli("extract", pictures, *MODEL, "--dask", file)
        assert outcome.code == 1
        assert f"{file} is no file of a Dask scheduler, or it is being written" in outcome.err


def test_a_scheduler_without_workers(cli, pictures, monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setattr("lpipstore.workflows.session.cluster._WORKERS_S", 0.2)
    options = {"dashboard_address": ":0", "processes": False, "protocol": "tcp"}
    with LocalCluster(n_workers=0, **options) as cluster:
        outcome = cli("extract", pictures, *MODEL, "--dask", cluster.scheduler_address)
    assert outcome.code == 1
    assert "has no workers after 0 s: start some with `dask worker" in outcome.err


def test_without_the_extra_the_option_says_how_to_get_it(cli, pictures, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    outcome = cli("extract", pictures, *MODEL, "--dask", "local:2")
    assert outcome.code == 2
    assert "--dask needs Dask's scheduler, which is not installed" in outcome.err
    assert "pip install 'lpipstore[cluster]'" in outcome.err
    with pytest.raises(UsageError, match="dask needs Dask's scheduler"):
        lpipstore.distance_matrix(pictures, weights="random", dask="local:2")


def test_a_dry_run_counts_for_workers_and_starts_none(cli, draw, tmp_path, monkeypatch):
    monkeypatch.setattr("lpipstore.workflows.session.cluster._installed", None)
    draw(tmp_path / "pictures", 600)  # two tiles on each side
    command = ("pairs", tmp_path / "pictures", *MODEL, "--out", tmp_path / "run", "--dry-run")
    outcome = cli(*command, "--dask", "local:3", "--json")
    assert outcome.code == 0, outcome.err
    told = json.loads(outcome.out)
    cluster, row = told["cluster"], told["bytes_kept"] // told["forwards"]
    assert (cluster["workers"], cluster["local"]) == (3, True)
    sizes = [path.stat().st_size for path in (tmp_path / "pictures").iterdir()]
    assert cluster["bytes_images"] == sum(sizes)
    assert cluster["bytes_written"] == 600 * row
    assert cluster["bytes_read"] == 2 * 600 * row  # two pieces on the diagonal, one off it
    assert cluster["bytes_returned"] == 4 * 600 * 599 // 2
    side_by_side = min(3, len(os.sched_getaffinity(0)))
    for stage, seconds in cluster["seconds_of_one"].items():
        assert told["seconds"][stage] == seconds / side_by_side
    for_people = cli(*command, "--dask", "local:3").out
    assert "workers     3 on this machine\n" in for_people
    assert "and that of the workers, if work is shared evenly" in for_people


def test_a_dry_run_asks_the_scheduler_how_many_workers_it_has(cli, pictures, scheduler, tmp_path):
    command = ("pairs", pictures, *MODEL, "--out", tmp_path / "run", "--dry-run", "--json")
    told = json.loads(cli(*command, "--dask", scheduler).out)
    assert (told["cluster"]["workers"], told["cluster"]["local"]) == (2, False)
    assert told["seconds"]["total"] == told["cluster"]["seconds_of_one"]["total"] / 2
    assert not (tmp_path / "run").exists()
