"""Worker processes that a command starts: each with its own GPU, and with memory that it keeps."""

import os
import signal
import time

import pytest
import torch

from lpipstore.workflows.session.own_workers import gpus_to_share, set_up, started

distributed = pytest.importorskip("distributed")


def test_each_worker_sees_its_own_gpu_and_so_does_the_one_that_takes_its_place():
    with started(distributed, 2) as cluster, distributed.Client(cluster) as client:

        def seen(name):
            return sorted(map(str, client.run(os.getenv, name).values()))

        set_up(client, ("3", "GPU-5"))
        assert seen("CUDA_VISIBLE_DEVICES") == ["3", "GPU-5"]
        assert seen("OMP_NUM_THREADS") == ["1", "1"]
        assert seen("MALLOC_TRIM_THRESHOLD_") == ["None", "None"]
        assert set(client.run(signal.getsignal, signal.SIGINT).values()) == {signal.SIG_IGN}
        lost, other = client.run(os.getpid).values()
        os.kill(lost, signal.SIGKILL)
        until = time.monotonic() + 120
        pids = {lost}
        while lost in pids or len(pids) < 2:
            assert time.monotonic() < until
            pids = set(client.run(os.getpid, on_error="ignore").values())
        assert other in pids
        assert seen("CUDA_VISIBLE_DEVICES") == ["3", "GPU-5"]


@pytest.mark.parametrize(
    ("device", "visible", "expected"),
    [
        ("cuda", None, ("0", "1", "2")),
        ("auto", "4, 6", ("4", "6")),
        ("cuda:1", None, ()),
        ("cpu", "4,6", ()),
    ],
)
def test_the_gpus_to_share(monkeypatch, device, visible, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus_to_share(device) == expected
