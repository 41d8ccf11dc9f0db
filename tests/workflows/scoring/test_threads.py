"""torch's threads: their number decides over no byte of a result, whatever the kind of run."""

import pytest
import torch


@pytest.fixture
def use_threads():
    """The function that sets the number of threads, until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "kind", ["pairs", "compare", "paired", "score", "below", "top-k", "across"]
)
def test_threads_change_no_byte(cli, jobs, tmp_path, files_of, use_threads, kind):
    model = ("--backbone", "squeeze", "--weights", "random", "--workers", "2")
    results = []
    for threads in (1, 2, 3):
        use_threads(threads)
        where = ("--store", tmp_path / f"store{threads}", "--out", tmp_path / f"run{threads}")
        outcome = cli(*jobs[kind], *model, *where)
        assert outcome.code == 0, outcome.err
        results.append(files_of(tmp_path / f"run{threads}"))
    assert results[0] == results[1] == results[2]
