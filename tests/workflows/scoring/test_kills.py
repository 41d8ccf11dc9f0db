"""A short kill campaign over whole runs; the long one is run by hand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).parents[2] / "benchmarks" / "run_kills.py"


@pytest.mark.slow
def test_twenty_killed_runs_end_in_the_same_bytes(tmp_path):
    done = subprocess.run(
        [sys.executable, str(CAMPAIGN), "--runs", "20", "--folder", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["runs"] >= 20
    assert result["kills"] >= 20
    assert len(result["modes"]) == 17
    assert not result["troubles"]
