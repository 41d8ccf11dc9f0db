"""Archives and lists in every command: the same pictures are the same rows, wherever they lie."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

import lpipstore

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")
MODES = {".tar": "w", ".tar.gz": "w:gz"}

KILLED = """
import os, signal, sys
from lpipstore.pipeline.sources.sources import Sources
from lpipstore.workflows.cli import app
read, left = Sources.read, int(sys.argv.pop(1))
def counted(self, name):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, name)
Sources.read = counted
app.main()
"""
"""The command line, killed before it reads one image more than the number it is given."""


def pack(folder: Path, archive: Path, names=None) -> Path:
    """Pack the files of a folder, by default all, as an archive of the suffix."""
    paths = [folder / name for name in names or sorted(os.listdir(folder))]
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in paths:
                file.write(path, path.relative_to(folder))
        return archive
    with tarfile.open(archive, MODES["." + archive.name.partition(".")[2]]) as file:
        for path in paths:
            file.add(path, path.relative_to(folder))
    return archive


@pytest.fixture
def packed(pictures, tmp_path):
    """The pictures as a tar, a compressed tar and a zip."""
    return {suffix: pack(pictures, tmp_path / f"a{suffix}") for suffix in (*MODES, ".zip")}


@pytest.fixture
def done(cli):
    """The function that runs a command which has to succeed, and returns its summary."""

    def run(*command):
        outcome = cli(*command, "--json")
        assert outcome.code == 0, outcome.err
        return json.loads(outcome.out)

    return run


def distances(run):
    return lpipstore.open_run(run).distances.compute()


# ---- pairs


def test_a_picture_in_an_archive_is_the_row_of_the_file(done, pictures, packed, tmp_path):
    folder = done("pairs", pictures, *MODEL, "--out", tmp_path / "folder")
    assert folder["forwards"] == 8
    for suffix, archive in packed.items():
        run = tmp_path / f"run{suffix}"
        summary = done("pairs", archive, *MODEL, "--out", run)
        assert (summary["forwards"], summary["hits"]) == (0, 8)
        assert np.array_equal(distances(run), distances(tmp_path / "folder"))
        paths = lpipstore.open_run(run).images.column("path").to_pylist()
        assert paths == [f"{archive}#{number:03}.png" for number in range(8)]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_an_archive_alone_gives_what_the_folder_gives(done, pictures, packed, tmp_path, workers):
    model = (*MODEL[:-1], workers)
    done("pairs", pictures, *model, "--out", tmp_path / "folder", "--store", tmp_path / "s")
    for suffix, archive in packed.items():
        run, store = tmp_path / f"run{suffix}", tmp_path / f"store{suffix}"
        assert done("pairs", archive, *model, "--out", run, "--store", store)["forwards"] == 8
        assert np.array_equal(distances(run), distances(tmp_path / "folder"))


def test_sources_are_mixed(done, pictures, tmp_path, draw):
    draw(tmp_path / "folder", 3, seed=1)
    zipped = pack(draw(tmp_path / "z", 2, seed=2)[0].parent, tmp_path / "a.zip")
    packed = pack(draw(tmp_path / "t", 2, seed=3)[0].parent, tmp_path / "b.tar.gz")
    for number in range(3):
        names = [f"{n:03}.png" for n in range(2 * number, 2 * number + 2)]
        pack(pictures, tmp_path / f"shard-{number:03}.tar", names)
    shards = tmp_path / "shard-{000..002}.tar"
    sources = (tmp_path / "folder", zipped, packed, shards)
    summary = done("pairs", *sources, *MODEL, "--out", tmp_path / "run")
    assert (summary["images"], summary["failed"], summary["forwards"]) == (13, 0, 13)
    paths = lpipstore.open_run(tmp_path / "run").images.column("path").to_pylist()
    assert paths[-1] == f"{tmp_path}/shard-002.tar#005.png"


def test_broken_archives_are_one_message_each(cli, pictures, packed, tmp_path):
    os.truncate(packed[".tar"], 9000)
    os.truncate(packed[".tar.gz"], packed[".tar.gz"].stat().st_size - 100)
    packed[".zip"].write_bytes(b"none")
    missing = tmp_path / "s-{0..1}.tar"
    pack(pictures, tmp_path / "s-1.tar")
    command = ("pairs", *packed.values(), missing, *MODEL, "--out", tmp_path / "run")
    outcome = cli(*command, "--json")
    assert outcome.code == 0
    lines = outcome.err.splitlines()
    for archive in (*packed.values(), tmp_path / "s-0.tar"):
        assert sum(f"{archive} is " in line for line in lines) == 1
    summary = json.loads(outcome.out)
    assert summary["failed"] == 4
    assert summary["unique"] == 8
    assert cli(*command, "--strict").code == 1


def test_nothing_but_broken_archives(cli, tmp_path):
    (tmp_path / "a.tar").write_bytes(b"none of them" * 99)
    outcome = cli("pairs", tmp_path / "a.tar", *MODEL, "--out", tmp_path / "run")
    assert outcome.code == 1
    assert f"{tmp_path}/a.tar: not a tar file" in outcome.err


def test_a_list_is_piped_for_the_plan_and_for_the_run(
    done, pictures, packed, tmp_path, monkeypatch
):
    names = [str(pictures / "000.png"), f"{packed['.tar.gz']}#001.png", f"{packed['.zip']}#002.png"]
    command = ("pairs", "-", *MODEL, "--out", tmp_path / "run")

    def piped(*more):
        data = io.BytesIO("\0".join(names).encode())
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(data))
        return done(*command, *more)

    assert piped("--dry-run")["images"] == 3
    assert piped()["forwards"] == 3
    assert piped()["forwards"] == 0
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join([*names, "gone.png"]))
    summary = done("pairs", f"@{listed}", *MODEL, "--out", tmp_path / "listed")
    assert (summary["images"], summary["failed"], summary["forwards"]) == (3, 1, 0)
    assert np.array_equal(distances(tmp_path / "listed"), distances(tmp_path / "run"))


def test_folders_within_an_archive_are_groups(done, pictures, tmp_path):
    for name in ("000", "001", "002"):
        (pictures / "sub").mkdir(exist_ok=True)
        (pictures / f"{name}.png").rename(pictures / "sub" / f"{name}.png")
    archive = pack(pictures, tmp_path / "a.tar")
    run = tmp_path / "run"
    summary = done("pairs", archive, "--group-by", "folder", *MODEL, "--out", run)
    assert summary["pairs"] == 3 + 10
    groups = lpipstore.open_run(run).groups
    assert sorted(groups.column("group").to_pylist()) == [str(archive), f"{archive}#sub"]
    assert sorted(groups.column("images").to_pylist()) == [3, 5]
    done("rescore", run, "--heads", "none", "--out", tmp_path / "again")
    assert lpipstore.open_run(tmp_path / "again").groups.column("group") == groups.column("group")


def test_a_folder_of_shards(done, pictures, tmp_path):
    (tmp_path / "shards").mkdir()
    pack(pictures, tmp_path / "shards" / "0.tar", ["000.png", "001.png"])
    pack(pictures, tmp_path / "shards" / "1.tar.gz", ["002.png"])
    assert done("pairs", tmp_path / "shards", *MODEL, "--out", tmp_path / "run")["images"] == 3


def test_a_folder_with_nothing_says_what_was_looked_for(cli, tmp_path):
    (tmp_path / "empty").mkdir()
    outcome = cli("pairs", tmp_path / "empty", *MODEL, "--out", tmp_path / "run")
    assert outcome.code == 1
    assert "and then for .zip, .tar" in " ".join(outcome.err.split())


# ---- compare


def test_archives_are_compared_by_member(done, cli, pictures, packed, tmp_path, draw):
    draw(tmp_path / "others", 6, seed=4)
    other = pack(tmp_path / "others", tmp_path / "b.zip")
    for first in packed.values():
        run = tmp_path / f"{first.name}-run"
        summary = done("compare", first, other, "--paired", *MODEL, "--out", run)
        assert (summary["pairs"], summary["only_in_first"]) == (6, 2)
        lines = lpipstore.open_run(run).pairs.to_pylist()
        assert (lines[0]["name"], lines[0]["path_j"]) == ("000.png", f"{other}#000.png")
    run = tmp_path / "folders"
    assert done("compare", pictures, other, "--paired", *MODEL, "--out", run)["forwards"] == 0
    again = done("pairs", "--from", run, "--out", tmp_path / "again")
    assert again["pairs"] == 6
    crossed = done("compare", packed[".tar"], other, *MODEL, "--out", tmp_path / "crossed")
    assert crossed["pairs"] == 48


def test_namesakes_in_two_shards_are_not_told_apart(cli, pictures, packed, tmp_path):
    for number in range(2):
        shutil.copy(packed[".tar"], tmp_path / f"s-{number}.tar")
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as file:
        file.write(pictures / "007.png", "007.png")
    shards = tmp_path / "s-{0..1}.tar"
    outcome = cli("compare", shards, packed[".zip"], "--paired", *MODEL, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "are both called 000.png" in " ".join(outcome.err.split())


# ---- lists of pairs, and earlier runs


def test_a_table_names_images_in_archives(done, packed, tmp_path, pictures):
    table = tmp_path / "pairs.csv"
    lines = ["a.tar#007.png,a.tar.gz#000.png", "a.zip#003.png,a.tar#003.png", "a.tar#x.png,a.zip"]
    table.write_text("\n".join(["left,right", *lines, "a.tar.gz#005.png,pictures/001.png"]))
    summary = done("score", table, *MODEL, "--out", tmp_path / "run")
    assert (summary["pairs"], summary["failed_pairs"], summary["unique"]) == (3, 1, 5)
    found = lpipstore.open_run(tmp_path / "run").pairs.column("distance").to_pylist()
    assert found[1] == 0 and found[2] is None and found[0] > 0


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
def test_earlier_runs_name_images_in_archives(done, pictures, tmp_path, suffix, files_of):
    odd = os.fsdecode(b"caf\xe9 \n#1.png")
    (pictures / "000.png").rename(pictures / odd)
    archive = tmp_path / f"a{suffix}"
    if suffix == ".zip":
        (pictures / odd).rename(pictures / "é\n#1.png")
    pack(pictures, archive)
    run, store = tmp_path / "run", ("--store", tmp_path / "s")
    done("pairs", archive, *MODEL, *store, "--out", run)
    again = done("pairs", "--from", run, "--out", tmp_path / "again", "--store", tmp_path / "s2")
    assert (again["images"], again["forwards"]) == (8, 8)
    assert files_of(tmp_path / "again") == files_of(run)
    done("rescore", run, "--heads", "none", "--out", tmp_path / "none", *store)
    rescored = lpipstore.open_run(tmp_path / "none").summary
    assert (rescored["images"], rescored["forwards"]) == (8, 0)


def test_an_update_sees_what_changed_in_an_archive(done, pictures, tmp_path, draw):
    archive = pack(pictures, tmp_path / "a.tar")
    done("pairs", archive, *MODEL, "--out", tmp_path / "run")
    draw(pictures, 1, seed=9)
    (pictures / "007.png").unlink()
    (pictures / "006.png").rename(pictures / "new.png")
    pack(pictures, archive)
    command = ("pairs", archive, "--update", tmp_path / "run", "--weights", "random")
    update = done(*command, "--out", tmp_path / "run2")["update"]
    counts = {kind: update[kind] for kind in ("added", "removed", "changed", "renamed")}
    assert counts == {"added": 0, "removed": 1, "changed": 1, "renamed": 1}


# ---- kills


@pytest.mark.parametrize("suffix", list(MODES))
@pytest.mark.parametrize("reads", [50, 200])
def test_a_run_killed_in_the_middle_of_an_archive_goes_on(
    done, tmp_path, draw, suffix, reads, files_of
):
    """Killed while images are hashed (the first 120 reads), and while they are decoded."""
    archive = pack(draw(tmp_path / "many", 120)[0].parent, tmp_path / f"a{suffix}")
    whole, run = tmp_path / "whole", tmp_path / "run"
    done("pairs", archive, *MODEL, "--store", tmp_path / "s1", "--out", whole)
    command = ["pairs", archive, *MODEL, "--store", tmp_path / "s2", "--out", run]
    child = subprocess.run(
        [sys.executable, "-c", KILLED, str(reads), *map(str, command)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    summary = done(*command)
    assert summary["forwards"] + summary["hits"] == 120
    assert summary["forwards"] > 0
    assert (summary["hits"] > 0) == (reads > 120)
    assert files_of(run) == files_of(whole)
