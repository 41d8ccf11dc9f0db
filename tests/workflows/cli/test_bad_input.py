"""Whatever a person gets wrong: one clear message, the right exit code, never a traceback."""

import fcntl
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lpipstore.pipeline.backbones.load import load_backbone

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")


@pytest.fixture
def bad(cli, pictures, tmp_path):
    """Run ``pairs`` with something wrong; return (exit code, message)."""

    def run(*arguments, sources=None, model=MODEL):
        arguments = (*([pictures] if sources is None else sources), *model, *arguments)
        if "--out" not in arguments:
            arguments += ("--out", tmp_path / "run")
        outcome = cli("pairs", *arguments)
        assert outcome.out == ""
        return outcome.code, " ".join(outcome.err.split())

    return run


def test_an_empty_folder(bad, tmp_path):
    (tmp_path / "empty").mkdir()
    code, message = bad(sources=[tmp_path / "empty"])
    assert code == 1
    assert f"no images in {tmp_path / 'empty'}" in message
    assert ".jpg" in message


def test_a_folder_without_images(bad, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "readme.txt").write_text("hello")
    code, message = bad(sources=[tmp_path / "texts"])
    assert (code, "no images in" in message) == (1, True)


def test_a_path_that_is_not_there(bad, tmp_path):
    code, message = bad(sources=[tmp_path / "nowhere"])
    assert (code, f"no such file or folder: {tmp_path / 'nowhere'}" in message) == (2, True)


def test_one_image_only(bad, pictures):
    code, message = bad(sources=[pictures / "000.png"])
    assert (code, "at least two images, and 1 can be used" in message) == (1, True)


def test_only_broken_images(bad, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"")
    code, message = bad(sources=[tmp_path / "broken"])
    assert (code, "the file is empty" in message) == (1, True)


def test_one_image_left_after_decoding(bad, pictures, tmp_path):
    whole = (pictures / "000.png").read_bytes()
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "whole.png").write_bytes(whole)
    (tmp_path / "two" / "torn.png").write_bytes(whole[: len(whole) // 2])
    code, message = bad(sources=[tmp_path / "two"])
    assert code == 1
    assert "at least two images, and 1 can be used" in message
    assert "torn.png" in message


def test_mixed_sizes_with_native(bad, pictures, tmp_path, draw):
    draw(tmp_path / "larger", 1, side=(40, 48))
    code, message = bad("--size", "native", sources=[pictures, tmp_path / "larger"])
    assert code == 2
    assert "48×40" in message
    assert "32×32" in message
    assert "--size auto" in message


@pytest.mark.parametrize("size", ["0", "-3", "huge", "64x", "64x0", "1e3"])
def test_sizes_that_are_none(bad, size):
    code, message = bad(f"--size={size}")
    assert (code, size in message) == (2, True)


@pytest.mark.parametrize(("backbone", "least"), [("squeeze", 17), ("vgg", 16), ("alex", 31)])
def test_images_under_the_smallest_side(bad, backbone, least):
    model = ("--backbone", backbone, "--weights", "random")
    code, message = bad("--size", least - 1, model=model)
    assert (code, str(least) in message, str(least - 1) in message) == (2, True, True)


def test_an_unknown_backbone(bad):
    code, message = bad(model=("--backbone", "resnet"))
    assert code == 2
    for name in ("resnet", "alex", "vgg", "squeeze", "torchvision:"):
        assert name in message


def test_torchvision_without_taps_or_head(bad):
    model = ("--backbone", "torchvision:resnet18", "--weights", "random")
    code, message = bad("--heads", "none", model=model)
    assert (code, "--taps" in message) == (2, True)
    code, message = bad("--taps", "layer1", model=model)
    assert (code, "--heads none" in message) == (2, True)


def test_a_head_of_another_backbone(bad, tmp_path):
    channels = (64, 192, 384, 256, 256)
    head = {f"lin{n}.model.1.weight": torch.ones(1, c, 1, 1) for n, c in enumerate(channels)}
    torch.save(head, tmp_path / "alex.pth")
    code, message = bad("--heads", tmp_path / "alex.pth")
    assert (code, "alex" in message, "squeeze" in message) == (2, True, True)


@pytest.mark.parametrize("content", [b"", b"not a file of tensors", b"\x80\x02}q\x00."])
def test_a_head_file_that_is_none(bad, tmp_path, content):
    (tmp_path / "head.pth").write_bytes(content)
    code, message = bad("--heads", tmp_path / "head.pth")
    assert (code, "head.pth" in message) == (2, True)


def test_a_head_or_weights_file_that_is_not_there(bad, tmp_path):
    code, message = bad("--heads", tmp_path / "gone.pth")
    assert (code, "gone.pth" in message) == (2, True)
    code, message = bad(model=("--backbone", "squeeze", "--weights", tmp_path / "gone.pth"))
    assert (code, "gone.pth" in message) == (2, True)


def test_missing_weights_without_network(bad, no_network):
    code, message = bad(model=("--backbone", "squeeze"))
    assert code == 1
    for part in ("https://", str(no_network), "LPIPSTORE_WEIGHTS", "--weights"):
        assert part in message


@pytest.mark.parametrize(
    "option", ["--row-dtype=int3", "--device=tpu", "--trunk-dtype=float8", "--lpips-version=0.2"]
)
def test_unknown_names(bad, option):
    code, message = bad(option)
    assert (code, option.split("=")[1] in message) == (2, True)


@pytest.mark.parametrize("option", ["--memory", "--store-limit"])
@pytest.mark.parametrize("size", ["lots", "0", "-1GB", "4 parsecs", "1e400"])
def test_bytes_that_are_none(bad, option, size):
    code, message = bad(f"{option}={size}")
    assert (code, size in message) == (2, True)


def test_too_little_memory_says_how_much_is_needed(bad, cli, pictures, tmp_path):
    code, message = bad("--memory", "10kB")
    assert (code, "--memory is too small" in message) == (2, True)
    enough = re.search(r"takes (\d+MB) at least", message)[1]
    command = ("pairs", pictures, *MODEL, "--out", tmp_path / "run", "--memory", enough)
    assert cli(*command).code == 0


def test_the_folder_of_a_different_run(bad, cli, pictures, tmp_path, draw):
    assert cli("pairs", pictures, *MODEL, "--out", tmp_path / "run").code == 0
    before = (tmp_path / "run" / "distances.zarr" / "c" / "0" / "0").read_bytes()
    code, message = bad("--heads", "none")
    assert code == 2
    assert "different run" in message
    assert "head_digest" in message
    draw(pictures, 1, seed=9)  # replaces one picture
    code, message = bad()
    assert (code, "images are others" in message) == (2, True)
    assert (tmp_path / "run" / "distances.zarr" / "c" / "0" / "0").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"{torn"])
def test_a_damaged_matrix(bad, cli, pictures, tmp_path, content):
    assert cli("pairs", pictures, *MODEL, "--out", tmp_path / "run").code == 0
    (tmp_path / "run" / "distances.zarr" / "zarr.json").write_bytes(content)
    code, message = bad()
    assert (code, "distances.zarr is damaged" in message) == (1, True)


def test_a_file_of_the_run_that_cannot_be_replaced(bad, cli, pictures, tmp_path):
    assert cli("pairs", pictures, *MODEL, "--out", tmp_path / "run").code == 0
    (tmp_path / "run" / "images.parquet").unlink()
    (tmp_path / "run" / "images.parquet").mkdir()
    code, message = bad()
    assert (code, "cannot write results" in message) == (1, True)


def test_a_run_that_another_process_is_writing(bad, cli, pictures, tmp_path):
    (tmp_path / "run").mkdir()
    held = os.open(tmp_path / "run", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    code, message = bad()
    os.close(held)
    assert (code, "another process is writing the run" in message) == (1, True)
    assert cli("pairs", pictures, *MODEL, "--out", tmp_path / "run").code == 0


def test_a_weights_file_among_the_sources(cli, pictures, tmp_path):
    weights = tmp_path / "squeezenet1_1.pth"
    torch.save(load_backbone("squeeze", weights="random").trunk.state_dict(), weights)
    os.utime(weights, (1e9, 1e9))  # old enough for its hash to be remembered
    model = ("--backbone", "squeeze", "--weights", weights, "--workers", "0")
    for run in ("one", "two"):
        outcome = cli("pairs", pictures, weights, *model, "--out", tmp_path / run)
        assert outcome.code == 0
        assert "squeezenet1_1.pth is left out: not an image" in outcome.err


def test_images_that_do_not_fit_into_memory(bad, monkeypatch):
    def fail(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 10 TB")

    monkeypatch.setattr("lpipstore.pipeline.backbones.backbone.Backbone.each_tap", fail)
    code, message = bad()
    assert (code, "choose a smaller --size" in message) == (1, True)


def test_a_demo_where_nothing_can_be_written(cli, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for place, code in ((tmp_path / "file" / "demo", 1), (tmp_path / "file", 2), ("/proc/demo", 1)):
        outcome = cli("demo", "--out", place)
        assert outcome.code == code
        assert "--out" in outcome.err


def test_a_folder_with_other_files(bad, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("precious")
    code, message = bad()
    assert (code, "thesis.tex" in message) == (2, True)
    assert (tmp_path / "run" / "thesis.tex").read_text() == "precious"


def test_a_damaged_manifest(bad, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text("{torn")
    code, message = bad()
    assert (code, "manifest.json" in message) == (1, True)


def test_output_where_nothing_can_be_written(bad, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, message = bad("--out", tmp_path / "file" / "run")
    assert (code, "cannot write results" in message) == (1, True)


def test_read_only_output(bad, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    if os.geteuid() == 0:  # permissions do not bind root; a read-only mount does
        mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("needs a read-only folder: root may not mount one here")
    else:
        folder.chmod(0o555)
    try:
        code, message = bad("--out", folder / "run")
        assert (code, "cannot write results" in message) == (1, True)
        assert "choose another --out" in message
        code, message = bad("--store", folder / "store")
        assert (code, str(folder / "store") in message) == (1, True)
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", str(folder)], check=True)
        else:
            folder.chmod(0o755)


def test_a_store_that_is_a_file(bad, tmp_path):
    (tmp_path / "store").write_text("in the way")
    code, message = bad()
    assert (code, "store" in message) == (1, True)


def test_no_store_to_describe(cli, tmp_path):
    outcome = cli("store", "info", "--store", tmp_path / "nowhere")
    assert (outcome.code, "no store at" in outcome.err) == (2, True)
    assert not (tmp_path / "nowhere").exists()


def test_nothing_of_python_reaches_the_prompt(tmp_path):
    """The installed command in a process of its own, as a person meets it."""
    command = Path(sys.executable).with_name("lpipstore")
    for arguments, code in (
        (["pairs", str(tmp_path / "nowhere"), "--out", str(tmp_path / "run")], 2),
        (["pairs"], 2),
        (["pears"], 2),
        (["store", "info", "--store", str(tmp_path / "nowhere")], 2),
    ):
        ended = subprocess.run([command, *arguments], capture_output=True, text=True, check=False)
        assert ended.returncode == code, ended.stderr
        assert ended.stderr
        assert "Traceback" not in ended.stderr
