"""One process for each GPU: tried with two that compute on the CPU."""

import os
import signal

import pytest
import torch

from lpipstore.cache.errors import LpipstoreError
from lpipstore.pipeline.common.device import devices_of, here
from lpipstore.pipeline.common.tasks import Task, completed
from lpipstore.workflows.session import session
from lpipstore.workflows.session.gpus import open_gpus

MODEL = ("--backbone", "squeeze", "--weights", "random", "--size", "32", "--workers", "0")


@pytest.mark.parametrize(
    ("choice", "devices"),
    [
        ("auto", ["auto"]),
        ("cpu", ["cpu"]),
        ("cuda:1", ["cuda:1"]),
        ("cuda:0,2", ["cuda:0", "cuda:2"]),
        ("cuda:all", [f"cuda:{n}" for n in range(max(1, torch.cuda.device_count()))]),
    ],
)
def test_a_choice_names_devices(choice, devices):
    assert devices_of(choice) == devices


def test_bytes_are_those_of_one_process(cli, jobs, tmp_path, monkeypatch):
    runs = []
    for name in ("one", "two"):
        where = ("--store", tmp_path / f"store-{name}", "--out", tmp_path / name)
        if name == "two":
            monkeypatch.setattr(session, "devices_of", lambda choice: ["cpu", "cpu"])
        outcome = cli(*jobs["pairs"], *MODEL, *where)
        assert outcome.code == 0, outcome.err
        tiles = (tmp_path / name / "distances.zarr").rglob("*")
        files = sorted(path for path in tiles if path.is_file())
        runs.append([path.read_bytes() for path in files])
    assert runs[0] == runs[1]
    assert len(runs[0]) > 1


def test_each_process_has_its_device_and_one_that_ends_is_told():
    with open_gpus(["cuda:3"], 100) as crew:
        (found,) = completed(crew, [Task("here", here, ("cuda:0",))])
        assert found == ("here", torch.device("cuda:3"))
    with (
        pytest.raises(LpipstoreError, match="a process of cpu ended under its work"),
        open_gpus(["cpu"], 100) as crew,
    ):
        list(completed(crew, [Task("gone", end_this_process, ())]))


def end_this_process():
    os.kill(os.getpid(), signal.SIGKILL)
