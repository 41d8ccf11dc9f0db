"""Images in NumPy files through every command, from the prompt to the tables of the run."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lpipstore
from lpipstore.pipeline.distances.heads import make_head, save_head

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")
CHANNELS = (64, 128, 256, 384, 384, 512, 512)
FLEETING = {"seconds", "forwards", "hits", "rows_read"}

ATTEMPT = """
import os, signal, sys
from lpipstore.pipeline.features.extractor import Extractor
from lpipstore.workflows.cli.app import main
rows, left = Extractor.rows, [int(sys.argv.pop(1))]
def counted(self, *arguments):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return rows(self, *arguments)
Extractor.rows = counted
main()
"""


@pytest.fixture
def images(draw, tmp_path):
    """Twelve images of 32×32 pixels, also in the folder ``files``."""
    paths = draw(tmp_path / "files", 12)
    return np.stack([np.asarray(Image.open(path)) for path in paths])


@pytest.fixture
def samples(images, tmp_path, monkeypatch):
    """These images in a file, which is a while old, in the working directory."""
    monkeypatch.chdir(tmp_path)
    return aged(images)


def aged(array, name="samples.npz", save=np.savez):
    """Write an array as if it had been done an hour ago, so that its hashes are kept."""
    save(name, array)
    old = os.stat(name).st_mtime - 3600
    os.utime(name, (old, old))
    return name


def summary_of(run):
    summary = lpipstore.open_run(run).summary
    return {name: value for name, value in summary.items() if name not in FLEETING}


def matrix(run):
    return lpipstore.open_run(run).distances.compute()


def run(cli, *arguments, out):
    outcome = cli(*arguments, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def test_files_npy_npz_and_arrays_are_the_same(cli, images, samples, tmp_path):
    told = run(cli, "pairs", samples, *MODEL, out="one")
    assert (told["images"], told["forwards"]) == (12, 12)
    table = lpipstore.open_run("one").images
    assert table.column("path").to_pylist() == [f"samples.npz#{k}" for k in range(12)]
    assert set(table.column("bytes").to_pylist()) == {32 * 32 * 3}
    aged(np.asfortranarray(images.transpose(0, 3, 1, 2)), "first.npy", np.save)
    aged(images, "packed.npz", np.savez_compressed)
    for number, name in enumerate(("first.npy", "packed.npz")):
        again = run(cli, "pairs", name, *MODEL, out=f"again{number}")
        assert (again["forwards"], again["hits"]) == (0, 12)
        assert np.array_equal(matrix("one"), matrix(f"again{number}"))
    with lpipstore.FeatureStore(tmp_path / "store") as store:
        before = store.stat().rows
        given = lpipstore.distance_matrix(
            list(images), store=store, backbone="squeeze", weights="random"
        )
        assert store.stat().rows == before
    assert np.abs(given - matrix("one")).max() < 1e-6
    run(cli, "pairs", "files", *MODEL, out="files-run")
    assert np.array_equal(matrix("one"), matrix("files-run"))


def test_a_warm_run_opens_no_image(cli, samples, monkeypatch):
    run(cli, "pairs", samples, *MODEL, out="one")

    def read(*_):
        raise AssertionError("an image was read")

    monkeypatch.setattr("lpipstore.pipeline.sources.kinds.array_files.ArrayFile.read", read)
    told = run(cli, "pairs", samples, *MODEL, out="two")
    assert (told["forwards"], told["hits"]) == (0, 12)
    assert np.array_equal(matrix("one"), matrix("two"))
    assert lpipstore.open_run("one").images.equals(lpipstore.open_run("two").images)


def test_floats_need_a_value_range(cli, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    aged(images.astype(np.float32) / 255, "floats.npz")
    refused = cli("pairs", "floats.npz", *MODEL, "--out", "one")
    assert refused.code == 1
    assert "value_range" in refused.err
    run(cli, "pairs", "floats.npz", *MODEL, "--value-range", "0,1", out="one")
    other = run(cli, "pairs", "floats.npz", *MODEL, "--value-range", "-1,1", out="two")
    assert other["forwards"] == 12
    run(cli, "pairs", "files", *MODEL, out="three")
    assert np.abs(matrix("one") - matrix("three")).max() < 1e-4
    assert np.abs(matrix("two") - matrix("three")).max() > 1e-2


def test_compare(cli, images, samples):
    aged(images[::-1][:5] // 2, "others.npz")
    run(cli, "compare", samples, "others.npz", *MODEL, out="one")
    run(cli, "pairs", samples, "others.npz", *MODEL, out="all")
    np.testing.assert_allclose(matrix("one"), matrix("all")[:12, 12:], atol=1e-6)
    told = run(cli, "compare", samples, "others.npz", "--paired", *MODEL, out="paired")
    assert (told["pairs"], told["only_in_first"]) == (5, 7)
    pairs = lpipstore.open_run("paired").pairs
    np.testing.assert_allclose(
        pairs.column("distance").to_numpy()[:5], np.diag(matrix("one")), atol=1e-6
    )
    assert pairs.column("name").to_pylist()[:5] == ["0", "1", "2", "3", "4"]


def test_a_table_names_images(cli, samples):
    with open("pairs.csv", "w") as file:
        file.write("a,b\nsamples.npz#3,samples.npz#5\nfiles/003.png,samples.npz#5\n")
        file.write("samples.npz#0,samples.npz#12\nsamples.npz#x,none.npz#0\n")
    run(cli, "pairs", samples, *MODEL, out="all")
    run(cli, "score", "pairs.csv", *MODEL, out="one")
    rows = lpipstore.open_run("one").pairs.to_pylist()
    expected = matrix("all")[3, 5]
    assert [row["distance"] for row in rows[:2]] == pytest.approx([expected] * 2, abs=1e-6)
    errors = lpipstore.open_run("one").images
    told = dict(zip(errors["path"].to_pylist(), errors["error"].to_pylist(), strict=True))
    named = {os.path.basename(path): reason for path, reason in told.items() if reason}
    assert set(named) == {"samples.npz#12", "samples.npz#x", "none.npz#0"}
    assert "0 to 11" in named["samples.npz#12"]


def test_each_file_is_a_group(cli, images, samples):
    aged(images[:4] // 3, "others.npz")
    told = run(cli, "pairs", samples, "others.npz", "--group-by", "folder", *MODEL, out="one")
    assert told["pairs"] == 66 + 6
    groups = lpipstore.open_run("one").groups.to_pylist()
    assert [group["group"] for group in groups] == ["samples.npz", "others.npz"]


def test_again_under_other_heads_and_updated(cli, images, samples):
    run(cli, "pairs", samples, *MODEL, out="one")
    run(cli, "pairs", "--from", "one/manifest.json", "--store", "empty", out="again")
    assert np.array_equal(matrix("one"), matrix("again"))
    random = np.random.default_rng(0)
    save_head(make_head([random.random(count) for count in CHANNELS], "own"), "own.pth")
    run(cli, "rescore", "one", "--heads", "own.pth", out="scored")
    run(cli, "pairs", samples, *MODEL, "--heads", "own.pth", out="fresh")
    [*runs] = [path for path in ("scored", "scored/own") if os.path.isfile(f"{path}/summary.json")]
    np.testing.assert_allclose(matrix(runs[0]), matrix("fresh"), atol=1e-5)
    aged(np.concatenate([images, images[:3] // 2]))
    told = run(cli, "pairs", samples, "--update", "one", "--weights", "random", out="updated")
    assert (told["update"]["added"], told["update"]["changed"]) == (3, 0)
    run(cli, "pairs", samples, *MODEL, out="all")
    np.testing.assert_allclose(matrix("updated"), matrix("all"), atol=1e-7)


def test_what_a_broken_file_has_is_scored(cli, images, samples):
    content = Path(samples).read_bytes()
    Path("short.npz").write_bytes(content[: len(content) // 2])
    np.save("objects.npy", np.array([{}], object))
    outcome = cli("pairs", "files", "short.npz", "objects.npy", *MODEL, "--out", "one", "--json")
    assert outcome.code == 0
    told = json.loads(outcome.out)
    assert (told["images"], told["failed"]) == (17, 8)
    assert "short.npz#5 is left out: the file ends after 5 of 12 images" in outcome.err
    assert "objects.npy is left out: an array of Python objects" in outcome.err


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(tmp_path, monkeypatch, files_of, save):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    aged(random.integers(0, 256, (150, 32, 32, 3), np.uint8), save=save)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def attempt(batches, name):
        command = [sys.executable, "-c", ATTEMPT, str(batches), "pairs", "samples.npz", *MODEL]
        command += ["--store", f"{name}-store", "--out", name]
        done = subprocess.run(command, check=False, capture_output=True, env=environment)
        return done.returncode, done.stderr.decode()

    assert attempt(1000, "whole")[0] == 0
    for _ in range(3):
        assert attempt(1, "killed")[0] == -signal.SIGKILL
    code, err = attempt(1000, "killed")
    assert code == 0, err
    assert files_of(tmp_path / "whole") == files_of(tmp_path / "killed")
    assert summary_of("whole") == summary_of("killed")
    assert 3 * 4 <= lpipstore.open_run("killed").summary["hits"] < 150
