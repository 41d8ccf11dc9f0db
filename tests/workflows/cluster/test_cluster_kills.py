"""Workers and coordinators killed with SIGKILL, in real processes: no byte differs afterwards."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from lpipstore.cache.store import FeatureStore

COUNT, BATCH = 640, 32
MODEL = ("--backbone", "alex", "--weights", "random", "--size", "64")

pytestmark = pytest.mark.slow


class Command:
    """A run of the command line in a process of its own."""

    def __init__(self, *words, log):
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lpipstore", *map(str, words)],
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def workers(self):
        """The processes of workers: those that were spawned, but for what tracks resources."""
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child)
            except psutil.Error:
                continue
        return found

    def ended(self):
        return self.process.poll() is not None

    def succeed(self):
        assert self.process.wait(240) == 0, self.log.read_text()
        return self.log.read_text()


def rows_in(store):
    """How many segments lie in a store that somebody is filling."""
    return len(list(store.glob("pools/*/c.*")))


def wait_until(condition, command, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert not command.ended(), command.log.read_text()
        assert time.monotonic() < end, command.log.read_text()
        time.sleep(0.01)


@pytest.fixture
def scene(draw, tmp_path):
    """Pictures, and the files of a run that nobody disturbed."""
    draw(tmp_path / "pictures", COUNT, 64)
    where = ("--store", tmp_path / "here" / "store", "--out", tmp_path / "here" / "run")
    (tmp_path / "here").mkdir()
    Command("pairs", tmp_path / "pictures", *MODEL, *where, log=tmp_path / "here.log").succeed()
    return tmp_path


def test_workers_killed_while_they_extract_and_score(scene, files_of):
    where = ("--store", scene / "store", "--out", scene / "run")
    words = ("pairs", scene / "pictures", *MODEL, *where, "--dask", "local:2")
    command = Command(*words, log=scene / "log")
    draw, kills = random.Random(0), 0
    for goal in (2, 8, 14):  # segments; and the last ones as they come
        wait_until(lambda goal=goal: rows_in(scene / "store") >= goal, command)
        os.kill(draw.choice(command.workers()).pid, signal.SIGKILL)
        kills += 1
    while not command.ended():
        time.sleep(3)
        victims = command.workers()
        if victims and kills < 6:
            os.kill(draw.choice(victims).pid, signal.SIGKILL)
            kills += 1
    log = command.succeed()
    assert kills >= 3
    assert files_of(scene / "run") == files_of(scene / "here" / "run")
    again = re.search(r"up to (\d+) images went through the trunk once more", log)
    twice = int(again[1]) if again else 0
    print(f"{kills} kills, {twice} images forwarded twice")
    assert twice <= kills * BATCH
    summary = json.loads((scene / "run" / "summary.json").read_text())
    assert summary["forwards"] == COUNT
    with FeatureStore(scene / "store") as store:
        assert store.verify().findings == []
        assert os.listdir(scene / "store" / "open") == []


def test_the_coordinator_killed_and_the_command_given_again(scene, files_of):
    where = ("--store", scene / "store", "--out", scene / "run")
    words = ("pairs", scene / "pictures", *MODEL, *where, "--dask", "local:2")
    committed, forwards = 0, []
    for goal in (3, 9):
        command = Command(*words, log=scene / "log")
        wait_until(lambda goal=goal: rows_in(scene / "store") >= goal, command)
        workers = command.workers()
        command.process.kill()
        command.process.wait()
        psutil.wait_procs(workers, 30)
        assert not [worker for worker in workers if worker.is_running()]
        with FeatureStore(scene / "store") as store:
            assert store.verify().ok
            rows = store.stat().rows
        assert rows >= max(committed + 1, (goal - 1) * BATCH)
        committed = rows
        forwards.append(rows)
    log = Command(*words, "--json", log=scene / "log").succeed()
    summary = json.loads(log[log.index("{") :])
    assert summary["hits"] == committed
    assert summary["forwards"] == COUNT - committed
    assert files_of(scene / "run") == files_of(scene / "here" / "run")
    assert os.listdir(scene / "store" / "open") == []


def test_an_interrupt_of_all_processes_stops_without_noise(scene, files_of):
    where = ("--store", scene / "store", "--out", scene / "run")
    words = ("pairs", scene / "pictures", *MODEL, *where, "--dask", "local:2")
    command = Command(*words, log=scene / "log")
    wait_until(lambda: rows_in(scene / "store") >= 3, command)
    os.killpg(command.process.pid, signal.SIGINT)  # as a terminal does
    assert command.process.wait(60) == 130
    log = command.log.read_text()
    assert "error: interrupted; what is finished is kept (images " in log
    assert "Traceback" not in log
    assert os.listdir(scene / "store" / "open") == []
    Command(*words, log=scene / "log").succeed()
    assert files_of(scene / "run") == files_of(scene / "here" / "run")


def test_a_scheduler_that_dies_is_told_in_one_line(scene, scheduler, files_of):
    where = ("--store", scene / "store", "--out", scene / "run")
    words = ("pairs", scene / "pictures", *MODEL, *where)
    command = Command(*words, "--dask", scheduler, log=scene / "log")
    wait_until(lambda: rows_in(scene / "store") >= 3, command)
    port = int(json.loads(scheduler.read_text())["address"].rpartition(":")[2])
    (owner,) = {
        each.pid
        for each in psutil.net_connections("tcp")
        if each.laddr.port == port and each.status == psutil.CONN_LISTEN
    }
    os.kill(owner, signal.SIGKILL)
    assert command.process.wait(120) == 1
    log = command.log.read_text()
    assert "error: the Dask scheduler is gone" in log
    assert "Traceback" not in log
    Command(*words, "--dask", "local:2", log=scene / "log").succeed()
    assert files_of(scene / "run") == files_of(scene / "here" / "run")
