"""Dask schedulers with workers, started by hand."""

import subprocess
import sys
from contextlib import contextmanager

import pytest
from distributed import Client


@contextmanager
def started_by_hand(folder, workers):
    """Yield the scheduler file of a scheduler with workers, all in processes of their own.

    That is `dask scheduler --scheduler-file FILE`, and `dask worker --scheduler-file FILE
    --nworkers N --nthreads 1`.
    """
    file, dask = folder / "scheduler.json", [sys.executable, "-m", "dask"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    place = ["--scheduler-file", file, "--no-dashboard", "--host", "127.0.0.1"]
    begun = [subprocess.Popen([*dask, "scheduler", *place, "--port", "0"], **quiet)]
    many = ["--nworkers", str(workers), "--nthreads", "1", "--memory-limit", "0"]
    where = ["--local-directory", folder]
    begun.append(subprocess.Popen([*dask, "worker", *place, *many, *where], **quiet))
    try:
        with Client(scheduler_file=str(file), timeout=120, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=120)
        yield file
    finally:
        for process in reversed(begun):
            process.kill()  # workers end with the process that started them
            process.wait(30)


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """The scheduler file of a scheduler with two workers."""
    with started_by_hand(tmp_path_factory.mktemp("dask"), 2) as file:
        yield file


@pytest.fixture
def four_workers(tmp_path):
    """The scheduler file of a scheduler with four workers."""
    (tmp_path / "dask").mkdir()
    with started_by_hand(tmp_path / "dask", 4) as file:
        yield file
