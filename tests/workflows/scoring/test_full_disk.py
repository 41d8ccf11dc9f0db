"""A disk that fills during a run: a small tmpfs, mounted for the test."""

import json
import os
import subprocess

import pytest

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0", "--size", "64")


@pytest.fixture
def disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=9M", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def matrix_bytes(run):
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted((run / "distances.zarr").rglob("*"))
        if path.is_file()
    }


def test_a_full_disk_under_the_store_ends_with_the_same_bytes(cli, disk, draw, tmp_path):
    draw(tmp_path / "pictures", 40, side=64)  # rows of 9.5 MB: the second batch has no room
    roomy = cli("pairs", tmp_path / "pictures", *MODEL, "--out", tmp_path / "roomy", "--json")
    full = cli(
        *("pairs", tmp_path / "pictures", *MODEL, "--store", disk / "store"),
        *("--store-limit", "1GB", "--out", tmp_path / "full", "--json"),
    )
    assert full.code == 0, full.err
    assert "no space left for the store" in full.err and "goes on" in full.err
    assert matrix_bytes(tmp_path / "full") == matrix_bytes(tmp_path / "roomy")
    assert json.loads(full.out)["mean"] == json.loads(roomy.out)["mean"]

    subprocess.run(["mount", "-o", "remount,size=64M", str(disk)], check=True)
    again = cli(
        *("pairs", tmp_path / "pictures", *MODEL, "--store", disk / "store"),
        *("--store-limit", "1GB", "--out", tmp_path / "again", "--json"),
    )
    summary = json.loads(again.out)
    assert 0 < summary["hits"] < 40  # what had been committed was still there
    assert summary["hits"] + summary["forwards"] == 40
    assert matrix_bytes(tmp_path / "again") == matrix_bytes(tmp_path / "roomy")
    assert cli("store", "verify", "--store", disk / "store").code == 0


def test_a_full_disk_under_the_results_is_said_and_the_command_goes_on_later(
    cli, disk, draw, tmp_path
):
    draw(tmp_path / "pictures", 70, side=16 + 17)
    command = ("pairs", tmp_path / "pictures", *MODEL, "--memory", "60MB")
    assert cli(*command, "--out", tmp_path / "roomy").code == 0
    ballast = disk / "ballast"
    free = os.statvfs(disk)
    ballast.write_bytes(bytes(free.f_bavail * free.f_frsize - 24_000))
    stopped = cli(*command, "--out", disk / "run")
    assert stopped.code == 1
    assert "No space left" in stopped.err and "same command again" in stopped.err
    ballast.unlink()
    assert cli(*command, "--out", disk / "run").code == 0
    assert matrix_bytes(disk / "run") == matrix_bytes(tmp_path / "roomy")
