"""Two lanes: both work, at once if there are threads for it, and errors come through."""

import threading

import pytest
import torch

from lpipstore.pipeline.distances.threads import LANES, in_lanes

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_every_lane_works_once_with_its_share_of_the_threads(threads):
    seen = []
    in_lanes(lambda lane: seen.append((lane, torch.get_num_threads())), CPU)
    assert sorted(seen) == [(lane, max(1, threads // LANES)) for lane in range(LANES)]
    assert torch.get_num_threads() == threads


def test_lanes_run_side_by_side():
    before = torch.get_num_threads()
    torch.set_num_threads(LANES)
    meeting = threading.Barrier(LANES, timeout=60)  # broken unless all lanes come to it
    try:
        in_lanes(lambda lane: meeting.wait(), CPU)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("broken", range(LANES))
def test_an_error_comes_through_and_the_threads_come_back(threads, broken):
    ended = []

    def work(lane):
        if lane == broken:
            raise ArithmeticError(lane)
        ended.append(lane)

    with pytest.raises(ArithmeticError, match=str(broken)):
        in_lanes(work, CPU)
    assert torch.get_num_threads() == threads
    if threads >= LANES:
        assert ended == [lane for lane in range(LANES) if lane != broken]
