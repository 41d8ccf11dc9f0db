"""Two threads: both work, at once if there are threads for it, and errors come through."""

import threading

import pytest
import torch

from lpipstore.pipeline.distances.threads import THREADS, in_threads

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_every_lane_works_once_with_its_share_of_the_threads(threads):
    seen = []
    in_threads(lambda thread: seen.append((thread, torch.get_num_threads())), CPU)
    assert sorted(seen) == [(thread, max(1, threads // THREADS)) for thread in range(THREADS)]
    assert torch.get_num_threads() == threads


def test_lanes_run_side_by_side():
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    meeting = threading.Barrier(THREADS, timeout=60)  # broken unless all threads come to it
    try:
        in_threads(lambda thread: meeting.wait(), CPU)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("broken", range(THREADS))
def test_an_error_comes_through_and_the_threads_come_back(threads, broken):
    ended = []

    def work(thread):
        if thread == broken:
            raise ArithmeticError(thread)
        ended.append(thread)

    with pytest.raises(ArithmeticError, match=str(broken)):
        in_threads(work, CPU)
    assert torch.get_num_threads() == threads
    if threads >= THREADS:
        assert ended == [thread for thread in range(THREADS) if thread != broken]
