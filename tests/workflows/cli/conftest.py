"""A folder of everything that people get wrong, and what each mistake has to end with."""

import os
import re
import shlex
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from lpipstore.workflows.cli.app import run_command

MODEL = "--backbone squeeze --weights random --workers 0 --size 32"
ALEX = (64, 192, 384, 256, 256)
SQUEEZE = (64, 128, 256, 384, 384, 512, 512)


def _draw(folder):
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(3):
        pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")


def _head(channels, change=None):
    head = {f"lin{n}.model.1.weight": torch.ones(1, c, 1, 1) for n, c in enumerate(channels)}
    head.update(change or {})
    return head


def _tables(world):
    """Write lists of pairs and judgements, all wrong in some way, and a few right ones."""
    good = "a,b\n000.png,001.png\n"
    texts = {
        "good.csv": good,
        "header.csv": "a,b\n",
        "empty.csv": "",
        "one.csv": "a\n000.png\n",
        "ragged.csv": "a,b\n000.png,001.png,002.png,x\n",
        "gone.csv": "a,b\nnowhere.png,neither.png\n",
        "holes.csv": "a,b\n000.png,\n",
        "pairs.xlsx": good,
        "judged.csv": "ref,p0,p1,judge\n000.png,001.png,002.png,1\n",
        "nojudge.csv": "ref,p0,p1\n000.png,001.png,002.png\n",
        "judge2.csv": "ref,p0,p1,judge\n000.png,001.png,002.png,1.5\n",
        "judgex.csv": "ref,p0,p1,judge\n000.png,001.png,002.png,left\n",
        "lost.csv": "ref,p0,p1,judge\n000.png,nowhere.png,002.png,1\n",
        "votes.csv": "ref,p0,p1,judge,votes\n000.png,001.png,002.png,1,-4\n",
        "votesx.csv": "ref,p0,p1,judge,votes\n000.png,001.png,002.png,1,many\n",
        "judgeless.csv": "ref,p0,p1,judge\n000.png,001.png,002.png,\n",
        "refless.csv": "ref,p0,p1,judge\n,001.png,002.png,1\n",
        "judgements.csv": "ref,p0,p1,judge\n",
        "two.csv": "ref,p0,p1,judge,judge\n000.png,001.png,002.png,1,0\n",
        "long.csv": "ref,p0,p1,judge\n000.png,001.png,002.png,1,5,6\n",
        "folder.csv": "ref,p0,p1,judge\n000.png,../P,002.png,1\n",
        "same.csv": "p0,p1,same\n000.png,001.png,1\n",
        "same2.csv": "p0,p1,same\n000.png,001.png,2\n",
        "broken.csv": "ref,p0,p1,judge\n000.png,../text-png/a.png,002.png,1\n",
        "garbage.parquet": "PAR1 and then nothing",
    }
    for name, text in texts.items():
        (world / name).write_text(text)
    (world / "binary.csv").write_bytes(bytes(range(256)))
    pa.parquet.write_table(pa.table({"a": [1, 2], "b": [3, 4]}), world / "numbers.parquet")
    columns = {"ref": [1], "p0": [2], "p1": [3], "judge": [1.0]}
    pa.parquet.write_table(pa.table(columns), world / "numbered.parquet")


def _sets(world):
    """Make folders as those of BAPPS, one for each thing that can be wrong with a set."""
    answers = {
        "none": None,
        "pair": np.array([0, 1], np.float32),
        "above": np.array([1.2], np.float32),
        "nan": np.array([np.nan]),
        "words": np.array(["left"]),
        "pickle": np.array([{"judge": 1}], object),
        "whole": np.array([1], np.float32),
        "torn": np.array([1], np.float32),
    }
    for name, answer in answers.items():
        folder = world / f"set-{name}" / "2afc" / "train" / "cnn"
        for role in ("ref", "p0", "p1"):
            shutil.copytree(world / "P", folder / role)
        (folder / "judge").mkdir()
        if answer is not None:
            np.save(folder / "judge" / "000.npy", answer, allow_pickle=name == "pickle")
    torn = world / "set-torn" / "2afc" / "train" / "cnn"
    (torn / "p1" / "000.png").unlink()
    same = world / "set-same" / "jnd" / "val" / "cnn"
    shutil.copytree(world / "P", same / "p0")
    shutil.copytree(world / "P", same / "p1")
    (same / "same").mkdir()
    np.save(same / "same" / "000.npy", np.array([1], np.float32))


def _heads(world):
    torch.save(_head(ALEX), world / "alex.pth")
    torch.save(_head(SQUEEZE), world / "good.pth")
    torch.save(_head(SQUEEZE[:5]), world / "short.pth")
    nan = {"lin0.model.1.weight": torch.full((1, 64, 1, 1), float("nan"))}
    torch.save(_head(SQUEEZE, nan), world / "nan.pth")
    torch.save({"lin0": [1, 2]}, world / "list.pth")
    torch.save(os.path.join, world / "pickle.pth")
    (world / "garbage.pth").write_bytes(b"not a file of tensors")


def _folders(world, bomb):
    for name in ("empty", "texts", "zero", "text-png", "torn", "bomb", "loop", "dangling", "fifo"):
        (world / name).mkdir()
    (world / "texts" / "readme.txt").write_text("hello")
    (world / "zero" / "a.png").write_bytes(b"")
    (world / "text-png" / "a.png").write_text("hello")
    whole = (world / "P" / "000.png").read_bytes()
    for name, part in (("a.png", 2), ("b.png", 3)):
        (world / "torn" / name).write_bytes(whole[: len(whole) // part])
    (world / "bomb" / "a.png").write_bytes(bomb)
    (world / "loop" / "a.png").symlink_to("a.png")
    (world / "dangling" / "a.png").symlink_to("nowhere.png")
    os.mkfifo(world / "fifo" / "a.png")
    (world / "strangers").mkdir()
    (world / "strangers" / "other.png").write_bytes(whole)
    (world / "file").write_text("in the way")
    (world / "other-files").mkdir()
    (world / "other-files" / "thesis.tex").write_text("precious")
    for name, manifest in (("torn-run", "{torn"), ("no-run", "[]"), ("old-run", '{"format": 0}')):
        (world / name).mkdir()
        (world / name / "manifest.json").write_text(manifest)
    (world / "bapps" / "2afc" / "val" / "set" / "ref").mkdir(parents=True)
    (world / "file-store").write_text("in the way")


@pytest.fixture
def world(tmp_path, bomb, monkeypatch, cli):
    """A folder of everything that can be wrong, which commands are run from."""
    _draw(tmp_path / "P")
    _folders(tmp_path, bomb)
    _tables(tmp_path)
    _sets(tmp_path)
    _heads(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """The folder of a finished run of P."""
    folder = tmp_path_factory.mktemp("finished")
    _draw(folder / "P")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LPIPSTORE_STORE", str(folder / "store"))
        patch.setattr("sys.argv", ["lpipstore", *shlex.split(f"pairs P {MODEL} --out run -q")])
        with pytest.raises(SystemExit) as end:
            run_command()
    assert not end.value.code
    return folder / "run"


@pytest.fixture
def check_message(world, cli, finished_run):
    """A function that runs a command and checks its exit code and its one message."""

    def check(command, code, words):
        if "RUN" in command:
            shutil.copytree(finished_run, world / "RUN")
        outcome = cli(*shlex.split(re.sub(r"\bM\b", MODEL, command)))
        message = " ".join(outcome.err.split())
        assert outcome.code == code, message
        assert words in message
        assert outcome.out == ""
        assert sum(line.lower().startswith("error: ") for line in outcome.err.splitlines()) <= 1
        assert not (world / "OUT" / "summary.json").exists()
        assert (world / "other-files" / "thesis.tex").read_text() == "precious"

    return check
