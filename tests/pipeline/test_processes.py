"""Training in several processes: which device each of them takes."""

import pytest
import torch

from lpipstore.cache.errors import UsageError
from lpipstore.pipeline.processes import Processes, device_of_process, rank_here


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
    with pytest.raises(UsageError, match="process 3 for 2 GPUs: give --nproc-per-node 2, or"):
        device_of_process("auto")
    assert device_of_process("cpu") == "cpu"


def test_alone_nothing_is_waited_for(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert rank_here() == 0
    assert Processes().first
    assert Processes().add(torch.tensor([2.0])).tolist() == [2]
