"""A Dask scheduler with workers, started by hand."""

import subprocess
import sys
import time

import pytest

WORKERS = 2


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """The scheduler file of a scheduler with two workers, all in processes of their own."""
    folder = tmp_path_factory.mktemp("dask")
    file, dask = folder / "scheduler.json", [sys.executable, "-m", "dask"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    place = ["--scheduler-file", file, "--no-dashboard", "--host", "127.0.0.1"]
    begun = [subprocess.Popen([*dask, "scheduler", *place, "--port", "0"], **quiet)]
    many = ["--nworkers", str(WORKERS), "--nthreads", "1", "--memory-limit", "0"]
    where = ["--local-directory", folder]
    begun.append(subprocess.Popen([*dask, "worker", *place, *many, *where], **quiet))
    until = time.monotonic() + 60
    while not file.exists() and time.monotonic() < until:
        time.sleep(0.05)
    yield file
    for process in reversed(begun):
        process.kill()  # workers end with the process that started them
        process.wait(30)
