"""The main job from end to end: counts, bytes, resuming, and what must not change a result."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

import lpipstore
from lpipstore.pipeline.sources.source import ImageError
from lpipstore.pipeline.sources.sources import Sources

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")
TEMPORARY = f".lpipstore-{'0a' * 8}.partial"  # what a killed process leaves


def summary_of(outcome):
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_pair_is_scored_and_the_run_is_whole(cli, pictures, tmp_path):
    summary = summary_of(cli("pairs", pictures, *MODEL, "--out", tmp_path / "run", "--json"))
    assert (summary["images"], summary["pairs"], summary["forwards"]) == (8, 28, 8)
    assert summary["failed"] == summary["hits"] == 0
    assert set(summary["seconds"]) >= {
        "hash",
        "decode",
        "forward",
        "read",
        "score",
        "write",
        "total",
    }
    run = lpipstore.open_run(tmp_path / "run")
    matrix = run.distances.compute()
    assert matrix.dtype == np.float32
    assert matrix.shape == (8, 8)
    assert np.array_equal(matrix, matrix.T)
    assert (matrix.diagonal() == 0).all()
    assert (matrix[np.triu_indices(8, 1)] > 0).all()
    assert summary["mean"] == pytest.approx(matrix[np.triu_indices(8, 1)].mean(), rel=1e-6)
    images = run.images.to_pydict()
    assert images["index"] == list(range(8))
    assert images["path"] == [str(pictures / f"{n:03}.png") for n in range(8)]
    assert images["status"] == ["ok"] * 8
    assert images["width"] == [32] * 8
    assert run.summary == summary
    assert run.manifest["size"] == "32x32"
    assert run.manifest["weights_origin"].startswith("random")
    attributes = zarr.open_array(tmp_path / "run" / "distances.zarr").attrs
    assert attributes["head_digest"] == run.manifest["head_digest"]


def test_warm_results_are_byte_identical(cli, pictures, tmp_path, monkeypatch):
    summary_of(cli("pairs", pictures, *MODEL, "--out", tmp_path / "one", "--json"))

    def refuse(*_):
        raise AssertionError("an image was decoded")

    monkeypatch.setattr("lpipstore.pipeline.images.data.decode", refuse)
    summary = summary_of(cli("pairs", pictures, *MODEL, "--out", tmp_path / "two", "--json"))
    assert (summary["forwards"], summary["hits"]) == (0, 8)
    one, two = (files_of(tmp_path / name / "distances.zarr") for name in ("one", "two"))
    assert one == two


def test_identical_files_are_computed_once_and_have_distance_zero(cli, pictures, tmp_path):
    (pictures / "sub").mkdir()
    (pictures / "sub" / "copy.png").write_bytes((pictures / "003.png").read_bytes())
    summary = summary_of(cli("pairs", pictures, *MODEL, "--out", tmp_path / "run", "--json"))
    assert (summary["images"], summary["unique"], summary["forwards"]) == (9, 8, 8)
    assert lpipstore.open_run(tmp_path / "run").distances[3, 8].compute() == 0


def test_order_of_the_images_does_not_change_a_bit(cli, pictures, tmp_path):
    paths = sorted(pictures.iterdir())
    order = [5, 2, 7, 0, 1, 6, 4, 3]
    summary_of(cli("pairs", *paths, *MODEL, "--out", tmp_path / "one", "--json"))
    shuffled = [paths[n] for n in order]
    store = ("--store", tmp_path / "other-store")
    summary_of(cli("pairs", *shuffled, *MODEL, *store, "--out", tmp_path / "two", "--json"))
    one, two = (lpipstore.open_run(tmp_path / name).distances.compute() for name in ("one", "two"))
    assert np.array_equal(one[np.ix_(order, order)], two)


@pytest.mark.parametrize(("count", "side"), [(70, 32), (26, (321, 481))])
def test_workers_do_not_change_a_bit(cli, tmp_path, draw, count, side):
    """Long rows go through the trunk in batches so small that its threads would show."""
    draw(tmp_path / "many", count, side)
    results = []
    for workers in ("0", "1", "3"):
        where = ("--store", tmp_path / f"store{workers}", "--out", tmp_path / f"run{workers}")
        options = ("--backbone", "squeeze", "--weights", "random", "--workers", workers)
        summary = summary_of(cli("pairs", tmp_path / "many", *options, *where, "--json"))
        assert summary["forwards"] == count
        results.append(files_of(tmp_path / f"run{workers}" / "distances.zarr"))
    assert results[0] == results[1] == results[2]


def test_the_same_command_goes_on_where_tiles_are_missing(cli, pictures, tmp_path):
    command = ("pairs", pictures, *MODEL, "--out", tmp_path / "run", "--json")
    summary_of(cli(*command))
    before = files_of(tmp_path / "run" / "distances.zarr")
    (tmp_path / "run" / "distances.zarr" / "c" / "0" / "0").unlink()
    (tmp_path / "run" / "summary.json").unlink()
    torn = tmp_path / "run" / "distances.zarr" / "c" / "0" / f"0.{'0a' * 16}.partial"
    torn.write_bytes(b"torn")  # as zarr calls it
    (tmp_path / "run" / TEMPORARY).write_bytes(b"torn")
    summary = summary_of(cli(*command))
    assert not (tmp_path / "run" / TEMPORARY).exists()
    assert summary["forwards"] == 0
    assert files_of(tmp_path / "run" / "distances.zarr") == before


def test_row_dtypes_agree_within_their_steps(cli, pictures, tmp_path):
    matrices = []
    for dtype in ("uint16", "float32"):
        out = tmp_path / dtype
        summary_of(cli("pairs", pictures, *MODEL, "--row-dtype", dtype, "--out", out, "--json"))
        matrices.append(lpipstore.open_run(out).distances.compute())
    assert 0 < np.abs(matrices[0] - matrices[1]).max() < 1e-5


def test_the_baseline_and_other_heads_need_no_forwards(cli, pictures, tmp_path):
    summary_of(cli("pairs", pictures, *MODEL, "--out", tmp_path / "one", "--json"))
    command = ("pairs", pictures, *MODEL, "--heads", "none", "--out", tmp_path / "two", "--json")
    assert summary_of(cli(*command))["forwards"] == 0
    one, two = (lpipstore.open_run(tmp_path / name) for name in ("one", "two"))
    assert one.manifest["head_digest"] != two.manifest["head_digest"]
    assert not np.allclose(one.distances.compute(), two.distances.compute())


def test_a_lost_row_is_computed_again(cli, pictures, tmp_path):
    summary_of(cli("pairs", pictures, *MODEL, "--out", tmp_path / "one", "--json"))
    shards = list((tmp_path / "store" / "pools").glob("*/c.*"))
    assert shards
    for shard in shards:
        data = bytearray(shard.read_bytes())
        data[100] ^= 1
        shard.write_bytes(data)
    summary = summary_of(cli("pairs", pictures, *MODEL, "--out", tmp_path / "two", "--json"))
    assert 1 <= summary["forwards"] <= len(shards)
    one, two = (files_of(tmp_path / name / "distances.zarr") for name in ("one", "two"))
    assert one == two


def test_torchvision_backbones_with_named_taps(cli, pictures, tmp_path):
    model = ("--backbone", "torchvision:resnet18", "--taps", "layer1,layer2", "--weights", "random")
    command = ("pairs", pictures, *model, "--heads", "none", "--out", tmp_path / "run", "--json")
    assert summary_of(cli(*command))["forwards"] == 8
    run = lpipstore.open_run(tmp_path / "run")
    assert run.manifest["row_dtype"] == "int16"
    assert (run.distances.compute()[np.triu_indices(8, 1)] > 0).all()


def test_good_images_are_scored_and_bad_ones_listed(cli, pictures, tmp_path, bomb):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(noise).save(pictures / "truncated.jpg")
    data = (pictures / "truncated.jpg").read_bytes()
    (pictures / "truncated.jpg").write_bytes(data[: len(data) // 2])
    (pictures / "empty.png").write_bytes(b"")
    (pictures / "text.jpg").write_text("no picture at all")
    (pictures / "bomb.png").write_bytes(bomb)
    command = ("pairs", pictures, *MODEL, "--out", tmp_path / "run")
    outcome = cli(*command)
    assert outcome.code == 0
    for name in ("truncated.jpg", "empty.png", "text.jpg", "bomb.png"):
        assert f"{name} is left out" in outcome.err
    images = lpipstore.open_run(tmp_path / "run").images.to_pydict()
    assert images["status"].count("ok") == 8
    assert images["index"].count(None) == 4
    assert all(
        error for error, i in zip(images["error"], images["index"], strict=True) if i is None
    )
    assert cli(*command, "--strict").code == 1


def test_a_store_that_is_too_small_changes_no_byte(cli, tmp_path, draw):
    draw(tmp_path / "many", 80)
    command = ("pairs", tmp_path / "many", *MODEL)
    summary_of(cli(*command, "--out", tmp_path / "one", "--json"))
    small = ("--store", tmp_path / "small", "--store-limit", "1.5MB")
    outcome = cli(*command, *small, "--out", tmp_path / "two", "--json")
    assert "the store's limit is 1.5 MB" in outcome.err
    assert summary_of(outcome)["forwards"] > 80
    one, two = (files_of(tmp_path / name / "distances.zarr") for name in ("one", "two"))
    assert one == two


def test_a_matrix_of_other_images_is_never_continued(cli, pictures, tmp_path, monkeypatch):
    """The same number of images, but another one failed: tiles must not be mixed."""

    def failing(name):
        surveyed = set()

        def read(sources, path):
            if path.endswith(name) and path in surveyed:
                raise ImageError("cannot be read: Input/output error")
            surveyed.add(path)
            return whole(sources, path)

        return read

    command = ("pairs", pictures, *MODEL, "--out", tmp_path / "run")
    whole = Sources.read
    monkeypatch.setattr(Sources, "read", failing("001.png"))
    assert cli(*command).code == 0
    monkeypatch.setattr(Sources, "read", failing("002.png"))
    outcome = cli(*command, "--store", tmp_path / "other-store")
    assert outcome.code == 1
    assert "begun with other images" in outcome.err


@pytest.mark.parametrize("content", [b"", b"short"])
def test_a_torn_tile_is_written_again(cli, pictures, tmp_path, content):
    command = ("pairs", pictures, *MODEL, "--out", tmp_path / "run", "--json")
    summary_of(cli(*command))
    tile = tmp_path / "run" / "distances.zarr" / "c" / "0" / "0"
    whole = tile.read_bytes()
    tile.write_bytes(content)
    summary_of(cli(*command))
    assert tile.read_bytes() == whole


def test_what_does_not_change_the_answer_is_the_same_run(cli, pictures, tmp_path, monkeypatch):
    command = (*MODEL, "--out", tmp_path / "run", "--json")
    summary_of(cli("pairs", pictures, *command))
    monkeypatch.chdir(pictures.parent)
    assert summary_of(cli("pairs", "pictures", *command))["forwards"] == 0
    (package,) = importlib.util.find_spec("lpips").submodule_search_locations
    stock = Path(package) / "weights" / "v0.1" / "squeeze.pth"
    assert summary_of(cli("pairs", pictures, *command, "--heads", stock))["forwards"] == 0


def test_a_killed_start_does_not_lock_the_folder(cli, pictures, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / TEMPORARY).write_text("{")
    assert cli("pairs", pictures, *MODEL, "--out", tmp_path / "run").code == 0
    assert not list((tmp_path / "run").rglob("*.partial"))


@pytest.mark.parametrize("name", ["thesis.partial", ".hidden.partial", f"0.{'0a' * 16}.partial"])
def test_a_folder_with_files_of_others_is_refused_and_keeps_them(cli, pictures, tmp_path, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("mine")
    outcome = cli("pairs", pictures, *MODEL, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "is not empty and holds no run" in outcome.err
    assert [path.name for path in (tmp_path / "run").iterdir()] == [name]


def test_files_that_others_put_into_a_run_stay(cli, pictures, tmp_path):
    command = ("pairs", pictures, *MODEL, "--below", "2", "--out", tmp_path / "run")
    assert cli(*command).code == 0
    mine = [
        tmp_path / "run" / place
        for place in (
            "thesis.partial",
            "notes/draft.partial",
            f"notes/{TEMPORARY}",
            "parts/parts.npz",
            "distances.zarr/thesis.partial",
            "tensorboard/events.out.tfevents.1.mine",
        )
    ]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    (tmp_path / "run" / "pairs.parquet").unlink()
    assert cli(*command).code == 0
    assert [path.read_text() for path in mine] == ["mine"] * len(mine)
    assert [path.name for path in (tmp_path / "run" / "parts").iterdir()] == ["parts.npz"]


def test_paths_of_any_bytes(cli, pictures, tmp_path):
    odd = os.fsdecode(b"caf\xe9 \n\x1b[31m")
    (pictures / f"{odd}.png").write_bytes((pictures / "000.png").read_bytes())
    (pictures / f"{odd}-broken.png").write_bytes(b"")
    outcome = cli("pairs", pictures, *MODEL, "--out", tmp_path / odd)
    assert outcome.code == 0
    assert "\x1b[31m" not in outcome.err + outcome.out
    run = lpipstore.open_run(tmp_path / odd)
    assert run.images.num_rows == 10
    assert run.distances[0, 8].compute() == 0


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [False, True], ids=["one", "group"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_says_how_to_go_on_and_loses_nothing(tmp_path, draw, number, whole_group):
    draw(tmp_path / "many", 300, side=40)
    command = [Path(sys.executable).with_name("lpipstore"), "pairs", tmp_path / "many"]
    options = ["--backbone", "squeeze", "--weights", "random", "--size", "96", "--workers", "2"]
    where = ["--store", tmp_path / "store", "--out", tmp_path / "run", "--json"]
    with subprocess.Popen(
        [*command, *options, *where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        while not list((tmp_path / "store").glob("pools/*/c.*")):  # until rows have been sealed
            assert process.poll() is None
            time.sleep(0.01)
        if whole_group:  # as timeout does, and what looks after jobs and services
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        _, messages = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "interrupted; what is finished is kept" in messages
    assert "Traceback" not in messages
    ended = subprocess.run([*command, *options, *where], capture_output=True, check=True)
    summary = json.loads(ended.stdout)
    assert summary["images"] == 300
    assert summary["hits"] > 0
    assert summary["hits"] + summary["forwards"] == 300


def test_results_that_cannot_be_printed_are_an_error_not_a_traceback(cli, pictures, tmp_path):
    assert cli("pairs", pictures, *MODEL, "--out", tmp_path / "run").code == 0
    command = [Path(sys.executable).with_name("lpipstore"), "pairs", pictures, *MODEL]
    for form in ([], ["--json"]):
        with open("/dev/full", "w") as full:
            ended = subprocess.run(
                [*command, "--out", tmp_path / "run", *form],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert ended.returncode == 1
        assert "cannot print the results" in ended.stderr
        assert "Traceback" not in ended.stderr
    with open("/dev/full", "w") as full:
        export = [command[0], "export", tmp_path / "run", "--format", "csv", "--out", "-"]
        ended = subprocess.run(export, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 1
    assert "cannot print the results" in ended.stderr
