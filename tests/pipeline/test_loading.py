"""Decoding in workers: the same batches in the same order, and files that change meanwhile."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lpipstore.pipeline.images import content_hash, decode
from lpipstore.pipeline.loading import decode_files, start_worker


@pytest.fixture
def files(tmp_path, draw):
    paths = draw(tmp_path / "pictures", 11, side=(24, 40))
    return [(str(path), content_hash(path.read_bytes())) for path in paths]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_in_order_whatever_the_workers(files, workers):
    batches = list(decode_files(files, (20, 16), 4, workers))
    assert [batch.indices for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    expected = np.stack([decode(Path(path).read_bytes(), (20, 16)) for path, _ in files])
    assert torch.equal(torch.cat([batch.pixels for batch in batches]), torch.from_numpy(expected))


@pytest.mark.parametrize("workers", [0, 2])
def test_files_that_change_vanish_or_break_are_failures(files, tmp_path, workers):
    changed, gone, torn = (files[n][0] for n in (1, 4, 6))
    with open(changed, "ab") as file:
        file.write(b"more")
    (tmp_path / "pictures" / "004.png").unlink()
    data = Path(torn).read_bytes()[:60]
    Path(torn).write_bytes(data)
    files[6] = (torn, content_hash(data))
    failures = {}
    indices = []
    for batch in decode_files(files, (20, 16), 4, workers):
        failures |= batch.failures
        indices += batch.indices
    assert indices == [0, 2, 3, 5, 7, 8, 9, 10]
    assert "changed during the run" in failures[1]
    assert "No such file" in failures[4]
    assert "broken" in failures[6]
    assert gone.endswith("004.png")


def test_no_files_are_no_batches():
    assert list(decode_files([], (8, 8), 4)) == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_worker_can_be_terminated_whatever_the_main_process_does_with_signals():
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        child = os.fork()
        if child == 0:
            start_worker(0)
            signal.raise_signal(signal.SIGINT)  # is left to the main process
            signal.raise_signal(signal.SIGTERM)
            os._exit(1)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the loader's own watchdog does it")
def test_a_worker_dies_with_its_parent():
    """A pipe that the worker holds open closes as soon as its parent is killed."""
    reading, writing = os.pipe()
    script = (
        "import os, signal, sys, time\n"
        "from lpipstore.pipeline.loading import start_worker\n"
        "if os.fork() == 0:\n"
        "    start_worker(0)\n"
        "    os.write(int(sys.argv[1]), b'x')\n"
        "    time.sleep(60)\n"
        "signal.pause()\n"
    )
    command = [sys.executable, "-c", script, str(writing)]
    with subprocess.Popen(command, pass_fds=[writing]) as process:
        os.close(writing)
        assert os.read(reading, 1) == b"x"
        process.kill()
    ended, _, _ = select.select([reading], [], [], 2)
    assert ended
    assert os.read(reading, 1) == b""
    os.close(reading)
