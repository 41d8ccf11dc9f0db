"""The lock on a run's folder: one process at a time, and none that a child keeps."""

import multiprocessing
import os
import signal

import pytest

from lpipstore.pipeline.runs.lock import RunLock


def test_one_at_a_time(tmp_path):
    lock = RunLock(tmp_path)
    with pytest.raises(BlockingIOError):
        RunLock(tmp_path)
    lock.close()
    lock.close()
    RunLock(tmp_path).close()


def test_a_forked_child_that_outlives_its_parent_holds_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, told = context.Pipe()

    def hold():
        lock = RunLock(tmp_path)
        child = os.fork()
        if not child:
            signal.pause()
        told.send((child, lock is not None))
        signal.pause()

    parent = context.Process(target=hold)
    parent.start()
    child, _ = ready.recv()
    try:
        with pytest.raises(BlockingIOError):  # the parent does hold it
            RunLock(tmp_path)
        parent.kill()
        parent.join()
        RunLock(tmp_path).close()
        os.kill(child, 0)  # and the child is still there
    finally:
        os.kill(child, signal.SIGKILL)
