"""Decoding in threads: the same batches in the same order, whatever happens meanwhile."""

import subprocess
import sys
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from lpipstore.cache.errors import LpipstoreWarning
from lpipstore.cache.store import FeatureStore
from lpipstore.pipeline.images.decode import content_hash, decode
from lpipstore.pipeline.images.loader import ahead, decode_images
from lpipstore.pipeline.images.preparation import Preparation
from lpipstore.pipeline.images.survey import survey
from lpipstore.pipeline.sources.sources import Sources


@pytest.fixture
def files(tmp_path, draw):
    paths = draw(tmp_path / "pictures", 11, side=(24, 40))
    return [(str(path), content_hash(path.read_bytes())) for path in paths]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_in_order_whatever_the_workers(files, workers):
    batches = list(decode_images(files, Sources(), Preparation((20, 16)), 4, workers))
    assert [batch.indices for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    expected = np.stack(
        [decode(Path(path).read_bytes(), Preparation((20, 16))) for path, _ in files]
    )
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
    for batch in decode_images(files, Sources(), Preparation((20, 16)), 4, workers):
        failures |= batch.failures
        indices += batch.indices
    assert indices == [0, 2, 3, 5, 7, 8, 9, 10]
    assert "changed during the run" in failures[1]
    assert "No such file" in failures[4]
    assert "broken" in failures[6]
    assert gone.endswith("004.png")


def test_no_files_are_no_batches():
    assert list(decode_images([], Sources(), Preparation((8, 8)), 4)) == []


class Jobs:
    """Batches of two numbers each, and what was taken and done of them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.taken = 0
        self.done: list[int] = []

    def __iter__(self):
        for number in range(self.count):
            self.taken += 1
            yield [2 * number, 2 * number + 1]

    def work(self, job: int) -> int:
        self.done.append(job)
        return -job


def decoding_threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("lpipstore-decode")]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_work_runs_a_few_batches_ahead_and_no_further(workers):
    jobs = Jobs(20)
    results = ahead(jobs.work, tuple, jobs, workers)
    for number in range(5):
        assert next(results) == (-2 * number, -2 * number - 1)
        assert jobs.taken == number + 1 + 2 * workers
    results.close()
    assert len(jobs.done) <= 2 * jobs.taken
    assert decoding_threads() == []


def test_threads_stop_at_the_next_job_when_nobody_waits_any_more(monkeypatch):
    started, ending, done = threading.Event(), threading.Event(), []

    def work(job: int) -> int:
        done.append(job)
        if job:  # of the second batch: the result of the first can be taken
            started.set()
            assert ending.wait(30)
        return job

    end = ThreadPoolExecutor.shutdown
    monkeypatch.setattr(
        ThreadPoolExecutor, "shutdown", lambda *pool, **how: (ending.set(), end(*pool, **how))
    )
    results = ahead(work, list, [[0], [1, 2, 3], [4, 5, 6]], 1)
    monkeypatch.setattr("lpipstore.pipeline.images.loader._AHEAD", 1)
    assert next(results) == [0]
    assert started.wait(30)
    results.close()
    assert done == [0, 1]
    assert decoding_threads() == []


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_up_at_its_batch_and_ends_the_threads(workers):
    def work(job: int) -> int:
        if job == 3:
            raise MemoryError("no room")
        return job

    results = ahead(work, list, [[0, 1], [2, 3], [4, 5]], workers)
    assert next(results) == [0, 1]
    with pytest.raises(MemoryError, match="no room"):
        next(results)
    assert decoding_threads() == []
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.parametrize("allowed", [0, 1])
def test_where_no_thread_can_be_started_the_caller_does_the_work(files, monkeypatch, allowed):
    start, begun = threading.Thread.start, []

    def refuse(thread):
        if len(begun) >= allowed:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        start(thread)

    expected = torch.cat(
        [batch.pixels for batch in decode_images(files, Sources(), Preparation((20, 16)), 2, 0)]
    )
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.warns(LpipstoreWarning, match="can't start new thread.*workers=0") as warned:
        batches = list(decode_images(files, Sources(), Preparation((20, 16)), 2, 2))
    assert len(warned) == 1  # and not for each of six batches
    assert torch.equal(torch.cat([batch.pixels for batch in batches]), expected)
    assert len(begun) == allowed


def test_images_are_surveyed_and_read_in_order_without_threads(draw, tmp_path, monkeypatch):
    paths = draw(tmp_path / "pictures", 6)
    with tarfile.open(tmp_path / "more.tar.gz", "w:gz") as archive:  # read in order
        for path in paths:
            archive.add(path, path.name)
    sources = Sources()
    names = sources.find([tmp_path / "pictures", tmp_path / "more.tar.gz"]).names
    store = FeatureStore(tmp_path / "store")
    expected = survey(names, sources, store, rehash=True)
    images = [(record.path, record.content) for record in expected]
    pixels = [batch.pixels for batch in decode_images(images, sources, Preparation((9, 9)), 4, 0)]

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert survey(names, sources, store, rehash=True) == expected
    with pytest.warns(LpipstoreWarning, match="can't start new thread"):
        batches = [*decode_images(images, sources, Preparation((9, 9)), 4, 2)]
    assert torch.equal(torch.cat([batch.pixels for batch in batches]), torch.cat(pixels))
    store.close()


def children():
    tasks = Path("/proc/self/task").iterdir()
    return {child for task in tasks for child in (task / "children").read_text().split()}


def test_decoding_starts_no_process(files):
    before = children()  # servers of other tests
    batches = decode_images(files, Sources(), Preparation((20, 16)), 2, 3)
    next(batches)
    assert children() <= before
    assert len(decoding_threads()) == 3
    batches.close()
    assert decoding_threads() == []


_SMALL = """
import sys
from pathlib import Path
from lpipstore.pipeline.images.decode import content_hash
from lpipstore.pipeline.images.loader import decode_images
from lpipstore.pipeline.images.preparation import Preparation
from lpipstore.pipeline.sources.sources import Sources
files = [(path, content_hash(Path(path).read_bytes())) for path in sys.argv[1:]]
batches = decode_images(files, Sources(), Preparation((512, 512)), 8, 2)
print(sum(len(batch.indices) for batch in batches))
"""


def test_a_small_dev_shm_is_no_matter(tmp_path, draw):
    """One megabyte is less than a batch of eight images of 512 pixels takes."""
    mount = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=1m tmpfs /dev/shm && "$@"']
    if subprocess.run([*mount, "sh", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    paths = draw(tmp_path, 40, side=64)
    command = [*mount, "sh", sys.executable, "-c", _SMALL, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "40\n"), done.stderr
