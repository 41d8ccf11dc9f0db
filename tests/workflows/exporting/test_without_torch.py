"""An exported file runs where neither torch nor lpipstore is installed."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import lpipstore

SCRIPT = """
import importlib.util, json, sys
import numpy, onnxruntime
for name in ("torch", "torchvision", "lpips", "lpipstore"):
    assert importlib.util.find_spec(name) is None, name
session = onnxruntime.InferenceSession(sys.argv[1])
pairs = numpy.load(sys.argv[2])
found = [session.run(None, {"first": pairs[n][0], "second": pairs[n][1]})[0] for n in pairs.files]
print(json.dumps([each.tolist() for each in found]))
"""


@pytest.mark.slow
def test_a_file_runs_in_a_fresh_environment_without_torch(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    python = tmp_path / "fresh" / "bin" / "python"
    for command in (
        [sys.executable, "-m", "venv", tmp_path / "fresh"],
        [python, "-m", "pip", "install", "--quiet", "onnxruntime", "numpy"],
    ):
        outcome = subprocess.run(
            command,
            env=environment,
            cwd=tmp_path,
            check=False,
            capture_output=True,
            text=True,
            timeout=600,
        )
        if outcome.returncode:
            pytest.skip(f"no fresh environment: {outcome.stderr.strip()[-300:]}")
    out = tmp_path / "pairs.onnx"
    lpipstore.export_model(out, pixels="unit", backbone="squeeze", weights="random")
    random = np.random.default_rng(0)
    shapes = {"a": (2, 1, 3, 64, 64), "b": (2, 5, 3, 65, 97)}
    pairs = {name: random.random(shape, np.float32) for name, shape in shapes.items()}
    np.savez(tmp_path / "pairs.npz", **pairs)
    outcome = subprocess.run(
        [python, "-c", SCRIPT, out, tmp_path / "pairs.npz"],
        env=environment,
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert outcome.returncode == 0, outcome.stderr
    metric = lpipstore.LPIPS(net="squeeze", weights="random")
    for found, (first, second) in zip(json.loads(outcome.stdout), pairs.values(), strict=True):
        with torch.no_grad():
            wanted = metric(torch.from_numpy(first), torch.from_numpy(second), normalize=True)
        assert wanted.min() > 0.001
        np.testing.assert_allclose(found, wanted.flatten().numpy(), rtol=0, atol=1e-5)
