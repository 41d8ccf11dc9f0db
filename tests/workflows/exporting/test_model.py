"""`export model` and `export check`: files that are what they say, or are not there."""

import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

import lpipstore
from lpipstore.pipeline.graphs import onnx_file

MODEL = ("--backbone", "squeeze", "--weights", "random")
EMBEDDING = ("--as", "embedding", "--size", "32", "--pixels", "uint8")


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """An embedding of untrained squeeze for 32 px, as an ONNX file."""
    path = tmp_path_factory.mktemp("exported") / "rows.onnx"
    options = {"backbone": "squeeze", "weights": "random", "size": 32}
    found = lpipstore.export_model(path, form="embedding", pixels="uint8", **options)
    assert found.check.passed
    return path


@pytest.fixture
def rows(made, tmp_path):
    """A copy of `made`."""
    return shutil.copy(made, tmp_path / "rows.onnx")


def changed(path, change):
    """Change a model within its file."""
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)


def louder(model):
    """Make the first of the constants that rows are scaled by larger by a thousandth."""
    largest = max(model.graph.initializer, key=lambda each: np.prod(each.dims))
    values = onnx.numpy_helper.to_array(largest) * np.float32(1.001)
    largest.CopyFrom(onnx.numpy_helper.from_array(values, largest.name))


def test_the_command_writes_rows_whose_squared_distances_are_those_of_pairs(
    cli, pictures, tmp_path
):
    out = tmp_path / "rows.onnx"
    outcome = cli(
        *("export", "model", *MODEL, *EMBEDDING, "--samples", pictures, "--out", out, "--json")
    )
    assert outcome.code == 0, outcome.err
    told = json.loads(outcome.out)  # nothing else is on the standard output
    assert told["bytes"] == out.stat().st_size
    assert told["deviation"] <= 1e-5
    assert told["sizes"] == ["32x32"]
    assert all(
        line.startswith(("warning: the trunk is untrained", "decode ", "check "))
        for line in outcome.err.splitlines()
    )
    session = onnxruntime.InferenceSession(out)
    assert session.get_modelmeta().custom_metadata_map == told["metadata"]
    images = np.stack([np.asarray(Image.open(path)) for path in sorted(pictures.glob("*.png"))])
    (rows,) = session.run(None, {"images": images.transpose(0, 3, 1, 2)})
    found = np.square(rows[:, None].astype(np.float64) - rows).sum(2)
    options = {"backbone": "squeeze", "weights": "random", "row_dtype": "float32"}
    wanted = lpipstore.distance_matrix(pictures, **options)
    assert wanted.max() > 0.01
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_a_file_can_be_checked_again_on_other_images(cli, rows, pictures):
    outcome = cli("export", "check", rows, "--weights", "random", "--samples", pictures)
    assert outcome.code == 0, outcome.err
    assert "image -> embedding: squeeze, LPIPS 0.1, UNTRAINED" in outcome.out
    assert "6 images at 32x32: largest deviation" in outcome.out


def test_a_file_that_deviates_fails_its_check(cli, rows):
    changed(rows, louder)
    outcome = cli("export", "check", rows, "--weights", "random")
    assert (outcome.code, outcome.out) == (1, "")
    assert "rows.onnx deviates from lpipstore: 6 inputs at 32x32" in outcome.err


def test_a_model_that_deviates_is_not_left_under_its_name(cli, rows, tmp_path, monkeypatch):
    changed(rows, louder)
    monkeypatch.setattr(
        "lpipstore.workflows.exporting.model.onnx_bytes", lambda *_: rows.read_bytes()
    )
    out = tmp_path / "new" / "rows.onnx"
    out.parent.mkdir()
    outcome = cli("export", "model", *MODEL, *EMBEDDING, "--out", out)
    assert (outcome.code, outcome.out) == (1, "")
    assert "the model deviates from lpipstore" in outcome.err
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--backbone", "alex"), "holds a model with --backbone squeeze, not alex"),
        (("--lpips-version", "0.0"), "holds a model with --lpips-version 0.1, not 0.0"),
        (("--heads", "none"), "was made from a head with the digest"),
    ],
)
def test_a_file_of_another_metric(cli, rows, options, message):
    outcome = cli("export", "check", rows, "--weights", "random", *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err


def test_files_that_are_no_models_of_ours(cli, rows, tmp_path):
    def message(path):
        outcome = cli("export", "check", path, "--weights", "random")
        assert (outcome.code, outcome.out) == (2, "")
        assert len(outcome.err.splitlines()) == 1
        return outcome.err

    assert "nowhere.onnx cannot be read: No such file" in message(tmp_path / "nowhere.onnx")
    (tmp_path / "it.pt2").write_bytes(b"PK")
    assert "loading one of torch.export can run what is in it" in message(tmp_path / "it.pt2")
    for share in (0, 2, 3):
        whole = rows.read_bytes()
        (tmp_path / "torn.onnx").write_bytes(whole[: len(whole) * share // 4])
        assert "torn.onnx is not an ONNX model that" in message(tmp_path / "torn.onnx")
    changed(rows, lambda model: model.ClearField("metadata_props"))
    assert "rows.onnx was not exported by this version of lpipstore" in message(rows)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ("--opset 99", 2, "There is no export to --opset 99: choose 18 to 23."),
        ("--opset 20 --to pt2", 2, "--opset is for --to onnx only"),
        ("--to tflite", 2, "unknown --to 'tflite': choose onnx, pt2"),
        ("--as row", 2, "unknown --as 'row': choose pair, embedding"),
        ("--pixels float", 2, "unknown --pixels 'float': choose signed, unit, uint8"),
        ("--as embedding", 2, "depends on the size of the images: choose one, such as --size 224"),
        ("--as embedding --size 64 --spatial", 2, "an embedding has no map: --spatial is for"),
        ("--as embedding --size 8", 2, "Images of 8x8 pixels"),
        ("--quantize dynamic --calibrate .", 2, "does nothing for convolutions"),
        ("--quantize int4 --calibrate .", 2, "unknown --quantize 'int4': choose int8"),
        ("--quantize int8", 2, "name about a hundred with --calibrate"),
        ("--quantize int8 --calibrate . --to pt2", 2, "--quantize int8 is for --to onnx only"),
        ("--quantize int8 --calibrate nowhere", 2, "no such file or folder: nowhere"),
        ("--quantize int8 --calibrate empty", 1, "no images in --calibrate empty"),
        ("--quantize int8 --calibrate . --images .", 2, "--images is for --judgements only"),
        ("--quantize int8 --calibrate . --judgements no.csv", 2, "no judgements at no.csv"),
        ("--calibrate .", 2, "--calibrate is for --quantize int8 only"),
        ("--samples nowhere", 2, "no such file or folder: nowhere"),
        ("--samples broken", 1, "none of the --samples can be used as an image, such as broken/"),
        ("--out nowhere/m.onnx", 1, "cannot write nowhere/m.onnx: No such file or directory"),
        ("--out there.onnx", 2, "--out there.onnx exists: choose another"),
        ("--out m.pt2 --to onnx", 2, "--to onnx contradicts --out m.pt2"),
    ],
)
def test_bad_input_ends_with_one_message(cli, tmp_path, monkeypatch, options, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no image")
    (tmp_path / "there.onnx").write_bytes(b"precious")
    words = options.split()
    out = () if "--out" in words else ("--out", "m" if "pt2" in words else "m.onnx")
    before = sorted(tmp_path.rglob("*"))
    outcome = cli("export", "model", *MODEL, *words, *out)
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    assert message in outcome.err
    assert sum(line.startswith("error: ") for line in outcome.err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "there.onnx").read_bytes() == b"precious"


def test_without_onnx_the_extra_is_named_before_anything_is_computed(cli, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    outcome = cli("export", "model", *MODEL, "--out", tmp_path / "m.onnx")
    assert (outcome.code, outcome.out) == (2, "")
    assert "need the package onnxruntime, which is not installed" in outcome.err
    assert "pip install 'lpipstore[onnx]'" in outcome.err


def test_a_failure_of_the_exporter_is_one_message(cli, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no such operator\nand a stack trace")

    monkeypatch.setattr(onnx_file.torch.onnx, "export", fail)
    outcome = cli("export", "model", *MODEL, *EMBEDDING, "--out", tmp_path / "m.onnx")
    assert (outcome.code, outcome.out) == (1, "")
    last = outcome.err.splitlines()[-1]
    assert "torch cannot write the backbone squeeze as ONNX: no such operator." in last
    assert not list(tmp_path.glob("*m.onnx*"))


def test_a_run_named_like_nothing_else_is_still_exported_without_a_word(cli, finished, tmp_path):
    assert cli("export", finished(), "--out", tmp_path / "m.csv").code == 0
