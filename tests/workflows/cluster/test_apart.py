"""Workers without a shared folder, in namespaces of their own: the bytes of a run in this process.

Their mount namespace hides the folder of the test: store, images and weights. In a network
namespace they reach the scheduler and one another, and nothing else.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import pytest
import torch

from lpipstore.cache.store import FeatureStore

DASK = [sys.executable, "-m", "dask"]
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
HIDE = 'for folder in $1; do mount -t tmpfs none "$folder" || exit 1; done; shift; exec "$@"'


def allowed(*words):
    """Return whether this machine lets us run a command."""
    if not shutil.which(words[0]):
        return False
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


needs_mounts = pytest.mark.skipif(
    not allowed("unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"),
    reason="mount namespaces are not allowed here: they take root",
)
needs_networks = pytest.mark.skipif(
    not allowed("unshare", "-n", "ip", "link", "add", "lptest", "type", "bridge"),
    reason="network namespaces are not allowed here, or there is no `ip`: they take root",
)


@contextmanager
def network(count):
    """Make network namespaces on one bridge; yield (address of the bridge, [(name, address)])."""
    number = os.getpid() % 250
    bridge, place = f"lpb{number}", f"10.213.{number}"
    with ExitStack() as stack:

        def ip(*words, undo=None):
            subprocess.run(["ip", *words], check=True, capture_output=True)
            if undo:
                stack.callback(subprocess.run, ["ip", *undo], check=False, capture_output=True)

        ip("link", "add", bridge, "type", "bridge", undo=("link", "del", bridge))
        ip("addr", "add", f"{place}.1/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        spaces = []
        for at in range(count):
            name, address = f"lpn{number}x{at}", f"{place}.{10 + at}"
            ip("netns", "add", name, undo=("netns", "del", name))
            pair = ("type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "add", f"lpv{number}x{at}", *pair)
            ip("link", "set", f"lpv{number}x{at}", "master", bridge, "up")
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
            spaces.append((name, address))
        yield f"{place}.1", spaces


class Cluster:
    """A scheduler, and workers from which folders are hidden."""

    def __init__(self, folder, host="127.0.0.1"):
        self.folder, self.file, self.workers = folder, folder / "scheduler.json", []
        words = ["--scheduler-file", self.file, "--host", host, "--port", "0", "--no-dashboard"]
        self.scheduler = subprocess.Popen([*DASK, "scheduler", *words], **QUIET)
        until = time.monotonic() + 120
        self.address = None
        while self.address is None:
            assert time.monotonic() < until
            time.sleep(0.05)
            with suppress(FileNotFoundError, json.JSONDecodeError):  # it is being written
                self.address = json.loads(self.file.read_text())["address"]

    def work(self, hidden=(), space=None, host="127.0.0.1"):
        """Start a worker, with one task at a time, whose death is not made good by a nanny."""
        enter = ["ip", "netns", "exec", space] if space else []
        hide = ["unshare", "-m", "sh", "-c", HIDE, "sh", " ".join(map(str, hidden))]
        words = ["worker", self.address, "--nthreads", "1", "--memory-limit", "0", "--no-nanny"]
        words += ["--no-dashboard", "--host", host, "--local-directory", self.folder]
        self.workers.append(subprocess.Popen([*enter, *hide, *DASK, *words], **QUIET))

    def wait(self):
        """Wait until all workers have come."""
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(len(self.workers), timeout=120)

    def end(self):
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait(30)


@pytest.fixture
def cluster(tmp_path_factory):
    """A scheduler; the test starts the workers."""
    cluster = Cluster(tmp_path_factory.mktemp("dask"))
    yield cluster
    cluster.end()


def runs_of(cli, commands, where, *more):
    """Carry out commands in this process or elsewhere; return what they say on stderr."""
    said = []
    for name, command in commands.items():
        out = () if command[0] == "extract" else ("--out", where / name)
        outcome = cli(*command, "--store", where / f"{name}-store", *out, *more)
        assert outcome.code == 0, outcome.err
        said.append(outcome.err)
    return said


def rows_of(store):
    """Return the values and keys of all rows of a store."""
    with FeatureStore(store) as opened:
        assert opened.verify().ok
        (pool,) = opened.stat().pools
    return pool.rows, pool.recipe


@pytest.mark.slow
@needs_mounts
@needs_networks
def test_without_a_shared_folder_all_bytes_are_the_same(
    cli, jobs, files_of, tmp_path, tmp_path_factory
):
    from lpipstore.pipeline.backbones.load import load_backbone
    from lpipstore.pipeline.backbones.trunk import wanted_tensors

    trunk = load_backbone("squeeze", weights="random").trunk
    state = {name: 0.9 * tensor for name, tensor in wanted_tensors(trunk).items()}
    torch.save(state, tmp_path / "weights.pth")
    model = ("--backbone", "squeeze", "--weights", tmp_path / "weights.pth", "--size", "32")
    commands = {
        "pairs": jobs["pairs"],
        "score": jobs["score"],
        "extract": ("extract", *jobs["pairs"][1:]),
    }
    runs_of(cli, commands, tmp_path / "here", *model)
    with network(2) as (host, spaces):
        cluster = Cluster(tmp_path_factory.mktemp("dask"), host)
        try:
            for space, address in spaces:
                cluster.work([tmp_path], space, address)
            cluster.wait()
            said = runs_of(cli, commands, tmp_path / "there", *model, "--dask", cluster.address)
        finally:
            cluster.end()
    for each in said:
        assert re.search(
            r"2 of 2 workers do not share the store at .*: images and rows travel", each
        )
    for name in ("pairs", "score"):
        here, there = (files_of(tmp_path / where / name) for where in ("here", "there"))
        assert here == there
        summaries = [
            json.loads((tmp_path / where / name / "summary.json").read_text())
            for where in ("here", "there")
        ]
        for entry in ("images", "unique", "failed", "forwards", "hits", "pairs", "mean"):
            assert summaries[0].get(entry) == summaries[1].get(entry)
    here, there = (tmp_path / where / "extract-store" for where in ("here", "there"))
    assert rows_of(here) == rows_of(there)
    again = ("pairs", *commands["extract"][1:], *model)
    for name, store in (("one", here), ("other", there)):
        assert cli(*again, "--store", store, "--out", tmp_path / name, "--json").code == 0
        assert json.loads((tmp_path / name / "summary.json").read_text())["forwards"] == 0
    assert files_of(tmp_path / "one") == files_of(tmp_path / "other")


@needs_mounts
def test_one_worker_sees_the_folder_one_does_not_and_is_killed(
    cli, draw, files_of, cluster, tmp_path
):
    draw(tmp_path / "pictures", 200, 64)
    model = ("--backbone", "alex", "--weights", "random", "--size", "64")
    commands = {"pairs": ("pairs", tmp_path / "pictures")}
    runs_of(cli, commands, tmp_path / "here", *model)
    cluster.work()
    cluster.work([tmp_path])
    cluster.wait()
    pools = tmp_path / "there" / "pairs-store" / "pools"

    def kill():
        until = time.monotonic() + 120
        while not list(pools.glob("*/")) and time.monotonic() < until:  # until rows have come back
            time.sleep(0.01)
        cluster.workers[1].kill()

    with ThreadPoolExecutor(1) as killer:
        killed = killer.submit(kill)
        (said,) = runs_of(cli, commands, tmp_path / "there", *model, "--dask", cluster.address)
        killed.result()
    assert cluster.workers[1].wait(30) == -signal.SIGKILL
    assert "1 of 2 workers does not share the store" in said
    assert files_of(tmp_path / "there" / "pairs") == files_of(tmp_path / "here" / "pairs")
