"""Training in several processes: which device each of them takes, and what ends their waits."""

import os
import signal
import socket
import subprocess
import sys

import pytest
import torch

from lpipstore.cache.errors import UsageError
from lpipstore.pipeline.training.distributed import Processes, device_of_process, rank_here


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize(
    ("rank", "choice", "device"),
    [
        (None, "auto", "auto"),
        ("0", "auto", "cuda:0"),
        ("1", "cuda", "cuda:1"),
        ("1", "cpu", "cpu"),
    ],
)
def test_each_process_takes_a_gpu_of_its_own(monkeypatch, two_gpus, rank, choice, device):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert device_of_process(choice) == device


def test_more_processes_than_gpus_are_one_message(monkeypatch, two_gpus):
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UsageError, match="process 3 for 2 GPUs: give nproc_per_node=2, or device="):
        device_of_process("auto")
    assert device_of_process("cpu") == "cpu"


def test_alone_nothing_is_waited_for(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert rank_here() == 0
    assert Processes().first
    assert Processes().add(torch.tensor([2.0])).tolist() == [2]


_LOST = """
import sys, torch
from lpipstore.cache.errors import LpipstoreError
from lpipstore.pipeline.training.distributed import joined
try:
    with joined(torch.device("cpu")) as processes:
        processes.wait()
        if not processes.first:
            print("here", flush=True)
            sys.stdin.read()
        getattr(processes, sys.argv[1])(*([torch.ones(3)] if sys.argv[1] == "add" else []))
except LpipstoreError as error:
    print(error)
"""


@pytest.mark.parametrize("waiting", ["wait", "add"])
def test_the_death_of_a_process_ends_the_waits_for_it(waiting):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    first, second = (
        subprocess.Popen(
            [sys.executable, "-c", _LOST, waiting],
            env={**os.environ, **meeting, "RANK": rank},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    )
    with first, second:
        assert second.stdout.readline() == "here\n"
        second.send_signal(signal.SIGKILL)
        told, _ = first.communicate(timeout=60)
    assert told.startswith("another process of this training ended or cannot be reached")
    assert "the same command goes on" in told
