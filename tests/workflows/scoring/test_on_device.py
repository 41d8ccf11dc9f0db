"""Commands on a device with memory of its own: the bytes of the CPU, within that memory."""

import pyarrow.parquet as pq
import pytest

from lpipstore.pipeline.common.device import installed

from ...emulated import PLENTY, Emulated

MODEL = ("--backbone", "squeeze", "--weights", "random", "--size", "32", "--workers", "0")


def results(run):
    """The tables and tiles of a run; the work of a search, which a table also tells, may differ."""
    tiles = [path for path in run.glob("distances.zarr/**/*") if path.is_file()]
    found = {str(path.relative_to(run)): path.read_bytes() for path in sorted(tiles)}
    for path in run.glob("pairs.parquet"):
        table = pq.read_table(path)
        found |= {name: table[name].to_pylist() for name in table.column_names}
    assert found
    return found


@pytest.mark.parametrize("kind", ["pairs", "compare", "score", "both", "below across"])
def test_bytes_are_those_of_the_cpu(cli, jobs, tmp_path, kind):
    for name, memory in (("cpu", None), ("large", PLENTY), ("small", 6_000_000)):
        command = (*jobs[kind], *MODEL, "--out", tmp_path / name)
        if memory is None:
            assert cli(*command).code == 0
            continue
        with installed(Emulated(memory=memory)) as device:
            outcome = cli(*command, "--device-memory", f"{memory}")
        assert outcome.code == 0, outcome.err
        assert 0 < device.most <= memory
        assert results(tmp_path / name) == results(tmp_path / "cpu")


def test_a_device_that_is_too_small_is_told_before_anything_is_computed(cli, jobs, tmp_path):
    for kind in ("pairs", "score", "below"):
        with installed(Emulated(memory=10_000)) as device:
            outcome = cli(*jobs[kind], *MODEL, "--out", tmp_path / kind)
        assert outcome.code == 2
        assert "--device-memory is too small for rows of" in outcome.err
        assert not device.uploads
