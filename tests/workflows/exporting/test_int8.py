"""int8 models and the report of what they change."""

import json

import numpy as np
import onnxruntime
import pytest

import lpipstore

ALIKE = 16


@pytest.fixture
def judged(tmp_path, draw):
    """Drawn pictures and judgements of them, of both kinds."""
    names = [path.name for path in draw(tmp_path / "many", ALIKE)]
    (tmp_path / "many" / "broken.png").write_bytes(b"no image")
    threes = zip(names, names[1:], names[2:], strict=False)
    lines = [f"{a},{b},{c},{n % 2}" for n, (a, b, c) in enumerate(threes)]
    text = ["ref,p0,p1,judge", *lines, f"{names[0]},{names[1]},broken.png,1"]
    (tmp_path / "many" / "judged.csv").write_text("\n".join(text))
    return tmp_path / "many"


def test_int8_embeddings_are_reported_and_named_so(cli, judged, tmp_path):
    out = tmp_path / "int8.onnx"
    command = (
        *("export", "model", "--backbone", "squeeze", "--weights", "random", "--as", "embedding"),
        *("--size", "32", "--pixels", "uint8", "--quantize", "int8", "--calibrate", judged),
        *("--judgements", judged / "judged.csv", "--out", out),
    )
    outcome = cli(*command, "--json")
    assert outcome.code == 0, outcome.err
    told = json.loads(outcome.out)
    report = told["int8"]
    assert (report["calibrated"], report["held_out"], report["pairs"]) == (8, 8, 28)
    assert report["bytes"] == out.stat().st_size < 0.3 * report["float32_bytes"]
    assert report["rank_correlation"] > 0.9
    assert 0 < report["mean_error"] <= report["largest_error"] < 0.1
    assert report["speed"] > 0
    (agreement,) = report["agreements"]
    assert (agreement["score"], agreement["judgements"]) == ("agreement", ALIKE - 2)
    assert 0 <= agreement["int8"] <= 1
    assert told["deviation"] <= 1e-5  # of the float32 model
    session = onnxruntime.InferenceSession(out)
    assert session.get_modelmeta().custom_metadata_map["lpipstore.quantised"] == "int8"
    assert session.get_inputs()[0].shape[0] == "batch"
    (rows,) = session.run(None, {"images": np.zeros((3, 3, 32, 32), np.uint8)})
    assert rows.dtype == np.float32
    again = cli("export", "check", out, "--weights", "random", "--samples", judged)
    assert again.code == 0
    assert "int8: largest deviation" in again.out


def test_too_few_images_to_calibrate_on(cli, pictures, tmp_path, monkeypatch):
    (pictures / "000.png").unlink()
    monkeypatch.setattr("lpipstore.workflows.exporting.model.onnx_bytes", lambda *_: b"")
    monkeypatch.setattr("lpipstore.workflows.exporting.model.OnnxModel", lambda *_: None)
    passed = lpipstore.workflows.exporting.model.Check(0.0, 1, ("32x32",))
    monkeypatch.setattr("lpipstore.workflows.exporting.model._checked", lambda *_: passed)
    command = ("export", "model", "--backbone", "squeeze", "--weights", "random")
    quantised = ("--quantize", "int8", "--calibrate", pictures, "--out", tmp_path / "m.onnx")
    outcome = cli(*command, *quantised)
    assert (outcome.code, outcome.out) == (1, "")
    assert "--calibrate has 7 usable images: 8 at least" in outcome.err
    assert not list(tmp_path.glob("*.onnx*"))


@pytest.mark.slow
def test_int8_of_photographs_keeps_their_order_and_agrees_with_people_as_before(
    data, real_weights, tmp_path
):
    found = lpipstore.export_model(
        tmp_path / "int8.onnx",
        pixels="uint8",
        quantize="int8",
        calibrate=data / "photos",
        judgements=data / "materials" / "train_triplets.csv",
        images=data / "materials" / "images",
        backbone="squeeze",
        size=64,
    )
    report = found.int8
    assert report.pairs == 1000
    assert report.bytes <= 0.3 * report.float32_bytes
    assert report.rank_correlation >= 0.99
    (agreement,) = report.agreements
    assert agreement.judgements == 22_801
    assert abs(agreement.int8 - agreement.float32) <= 0.01
