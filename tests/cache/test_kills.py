"""A short kill campaign; the long one is run by hand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).parents[1] / "benchmarks" / "store_kills.py"


@pytest.mark.slow
def test_fifty_kills_leave_nothing_bad(tmp_path):
    done = subprocess.run(
        [sys.executable, str(CAMPAIGN), "--kills", "50", "--folder", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["kills"] >= 50 and result["examinations"] >= 1
    assert result["bad_rows"] == result["orphans_left"] == result["other_troubles"] == 0
    assert result["hits"] > 0 and result["evicted_segments"] > 0
