"""Questions of workers and the answers of the coordinator, on a real scheduler."""

import threading
import time

import numpy as np
import pytest

from lpipstore.cache.errors import LpipstoreError
from lpipstore.workflows.session import plane as module
from lpipstore.workflows.session.plane import open_plane

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def client():
    """A client of two workers, threads of this process."""
    options = {"processes": False, "protocol": "tcp", "dashboard_address": ":0"}
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, **options) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


def size_of(ask, count):
    return len(ask("ones", count))


def test_many_tasks_get_each_its_own_answer(client, tmp_path):
    counts = np.random.default_rng(0).integers(0, 100_000, 60).tolist()
    with open_plane(client, tmp_path, rows=True, tell=pytest.fail) as plane:
        plane.offer("ones", bytes)
        found = client.map(size_of, [plane.ask] * len(counts), counts, pure=False)
        assert client.gather(found) == counts
    assert module._waiting == {}


def test_what_cannot_be_answered_is_raised_by_the_task_that_asks(client, tmp_path):
    def refuse(count):
        raise LpipstoreError(f"no {count} ones here")

    with open_plane(client, tmp_path, rows=True, tell=pytest.fail) as plane:
        plane.offer("ones", refuse)
        with pytest.raises(LpipstoreError, match="no 3 ones here"):
            client.submit(size_of, plane.ask, 3, pure=False).result(30)


def test_a_question_is_asked_again_and_answered_once(client, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LOOK_S", 0.005)
    calls, enough = [], threading.Event()

    def slow(count):
        calls.append(count)
        enough.wait(0.5)
        return bytes(count)

    with open_plane(client, tmp_path, rows=True, tell=pytest.fail) as plane:
        plane.offer("ones", slow)
        assert client.submit(size_of, plane.ask, 3, pure=False).result(30) == 3
    assert calls == [3]


def test_nobody_answers_any_more(client, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LOOK_S", 0.001)
    with open_plane(client, tmp_path, rows=True, tell=pytest.fail) as plane:
        pass
    with pytest.raises(LpipstoreError, match="does not answer the worker tcp://"):
        client.submit(size_of, plane.ask, 3, pure=False).result(30)


def unanswered():
    """What answers a question once `over` is set; `asked` is set when it is asked."""
    asked, over = threading.Event(), threading.Event()

    def never(count):
        asked.set()
        over.wait(30)
        return b""

    return never, asked, over


def test_a_run_that_ends_lets_its_tasks_go(client, tmp_path):
    never, asked, over = unanswered()
    with open_plane(client, tmp_path, rows=True, tell=pytest.fail) as plane:
        plane.offer("ones", never)
        future = client.submit(size_of, plane.ask, 3, pure=False)
        assert asked.wait(30)
    with pytest.raises(LpipstoreError, match="the run has ended"):
        future.result(30)
    over.set()


def test_a_task_that_nobody_wants_any_more_stops_asking(client, tmp_path):
    never, asked, over = unanswered()
    with open_plane(client, tmp_path, rows=True, tell=pytest.fail) as plane:
        plane.offer("ones", never)
        future = client.submit(size_of, plane.ask, 3, pure=False)
        assert asked.wait(30)
        future.cancel()  # as the scheduler does for a client that is gone
        until = time.monotonic() + 30
        while module._waiting and time.monotonic() < until:
            time.sleep(0.01)
        assert module._waiting == {}
        over.set()


def test_large_tasks_are_sent_without_a_warning(client, tmp_path, recwarn):
    with open_plane(client, tmp_path, rows=True, tell=pytest.fail):
        images = b"x" * (20 << 20)
        assert client.submit(len, images, pure=False).result(30) == len(images)
    assert not [each for each in recwarn if "large graph" in str(each.message)]


def test_images_that_workers_do_not_see_are_told_of(client, tmp_path, pictures, monkeypatch):
    names, told = [str(path) for path in sorted(pictures.iterdir())], []
    with open_plane(client, tmp_path, rows=False, tell=told.append) as plane:
        assert plane.sees(names)
        assert told == []
        monkeypatch.setattr(module, "sees", lambda client, names: False)
        assert not plane.sees(names)
    assert told == ["workers do not see the images: they travel through the Dask scheduler"]
