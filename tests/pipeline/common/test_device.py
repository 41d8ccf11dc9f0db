import numpy as np
import pytest
import torch

from lpipstore.pipeline.common.device import Cpu, Device, Gpu, device_of, installed

from ...emulated import CPU, Emulated


def test_on_the_cpu_nothing_is_copied():
    device = device_of(CPU)
    rows = np.arange(6, dtype=np.uint16).reshape(2, 3)
    tensor = device.upload(rows)
    rows[0, 0] = 7
    assert device.local
    assert int(tensor[0, 0]) == 7
    assert np.shares_memory(device.download(tensor)(), rows)


def test_another_device_takes_the_place_and_leaves_it():
    with installed(Emulated()) as outer:
        with installed(Emulated()) as inner:
            assert device_of(CPU) is inner
        assert device_of(CPU) is outer
    assert isinstance(device_of(CPU), Cpu)


def test_the_emulated_device_copies_counts_and_runs_out():
    device = Emulated(memory=100, fails={1})
    rows = np.zeros(3, np.float32)
    tensor = device.upload(rows)
    rows[0] = 1
    assert int(tensor[0]) == 0
    with pytest.raises(torch.OutOfMemoryError):
        device.upload(rows)
    ready = device.download(tensor)
    tensor[0] = 5
    assert ready()[0] == 0
    assert (device.uploads, device.downloads, device.free()) == ([12, 12], [12], 100)


@pytest.mark.gpu
def test_copies_to_a_gpu_and_back_do_not_depend_on_what_happens_meanwhile():
    device: Device = Gpu(torch.device("cuda"))
    rows = np.random.default_rng(0).integers(0, 1 << 16, (512, 4096)).astype(np.uint16)
    for _ in range(20):
        sent = rows.copy()
        tensor = device.upload(sent)
        sent[:] = 0  # the array is free at once
        ready = device.download(tensor.to(torch.float32) * 2)
        assert np.array_equal(ready(), rows.astype(np.float32) * 2)
    assert (device.free() or 0) > 0
