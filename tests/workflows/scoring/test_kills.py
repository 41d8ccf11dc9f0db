"""A short kill campaign over whole runs; the long one is run by hand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).parents[2] / "benchmarks" / "run_kills.py"


@pytest.mark.slow
def test_killed_runs_of_every_mode_end_in_the_same_bytes(tmp_path):
    done = subprocess.run(
        [sys.executable, str(CAMPAIGN), "--runs", "22", "--folder", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["runs"] >= 22
    assert result["kills"] >= 22
    assert len(result["modes"]) == 22
    assert not result["troubles"]
