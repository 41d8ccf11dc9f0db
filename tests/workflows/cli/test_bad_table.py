"""A table of what people get wrong: each ends with one clear message and the right exit code."""

import json
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


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run of P, and of one with a damaged manifest."""
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


# command (M: the model), exit code, words of the message
TABLE = [
    # images and options
    ("pairs nowhere M --out OUT", 2, "no such file or folder: nowhere"),
    ("pairs empty M --out OUT", 1, "no images in empty: looked for files ending"),
    ("pairs texts M --out OUT", 1, "no images in texts: looked for files ending"),
    ("pairs P/000.png M --out OUT", 1, "pairs need at least two images, and 1 can"),
    ("pairs zero M --out OUT", 1, "none of 1 files can be used as an image,"),
    ("pairs text-png M --out OUT", 1, "none of 1 files can be used as an image,"),
    ("pairs torn M --out OUT", 1, "torn/a.png: broken image: image file is truncated"),
    ("pairs bomb M --out OUT", 1, "none of 1 files can be used as an image,"),
    ("pairs loop M --out OUT", 1, "none of 1 files can be used as an image,"),
    ("pairs dangling M --out OUT", 1, "none of 1 files can be used as an image,"),
    ("pairs fifo M --out OUT", 1, "none of 1 files can be used as an image,"),
    ("pairs 'nothing*.png' M --out OUT", 2, "no image matches the pattern nothing*.png"),
    ("pairs '' M --out OUT", 2, "no such file or folder:"),
    ("pairs M --out OUT", 2, "pairs needs images: give a folder, files or"),
    ("pairs P M", 2, "Missing option '--out'"),
    ("pairs P M --out OUT --size 0", 2, "unknown --size '0': write auto, native, 224"),
    ("pairs P M --out OUT --size=-3", 2, "unknown --size '-3': write auto, native,"),
    ("pairs P M --out OUT --size huge", 2, "unknown --size 'huge': write auto, native,"),
    ("pairs P M --out OUT --size 64x", 2, "unknown --size '64x': write auto, native,"),
    ("pairs P M --out OUT --size 16", 2, "Images of 16x16 pixels (width x height) are"),
    ("pairs P M --out OUT --size 8x900", 2, "Images of 900x8 pixels (width x height) are"),
    ("pairs P M --out OUT --memory lots", 2, "'lots' is no size: write 500MB, 20GB, 4GiB"),
    ("pairs P M --out OUT --memory 0", 2, "'0' is no size: it must be more than 0"),
    ("pairs P M --out OUT --memory 10kB", 2, "--memory is too small for rows of 0.0495"),
    ("pairs P M --out OUT --store-limit 4parsecs", 2, "'4parsecs' is no size: write 500MB, 20GB,"),
    ("pairs P M --out OUT --store-limit=-1GB", 2, "'-1GB' is no size: write 500MB, 20GB, 4GiB"),
    ("pairs P M --out OUT --store-limit 1e400", 2, "'1e400' is no size: write 500MB, 20GB, 4GiB"),
    ("pairs P M --out OUT --row-dtype int3", 2, "unknown --row-dtype 'int3': choose uint16,"),
    ("pairs P M --out OUT --device tpu", 2, "unknown device 'tpu'; use auto, cpu, cuda"),
    ("pairs P M --out OUT --device cuda:77", 2, "device 'cuda:77' is not there: torch sees 0"),
    ("pairs P M --out OUT --trunk-dtype float8", 2, "unknown --trunk-dtype 'float8': choose"),
    ("pairs P M --out OUT --lpips-version 0.2", 2, "There is no LPIPS version '0.2': choose 0.1"),
    ("pairs P M --out OUT --precision sloppy", 2, "unknown --precision 'sloppy': choose exact,"),
    ("pairs P M --out OUT --workers -1", 2, "--workers"),
    ("pairs P M --out OUT --workers many", 2, "--workers"),
    ("pairs P M --out OUT --backbone resnet", 2, "Unknown backbone 'resnet': choose alex,"),
    (
        "pairs P M --out OUT --backbone torchvision:resnet18 --heads none",
        2,
        "The backbone torchvision:resnet18 needs",
    ),
    (
        "pairs P M --out OUT --backbone torchvision:resnet18 --taps layer1",
        2,
        "There is no stock head for the backbone",
    ),
    (
        "pairs P M --out OUT --backbone torchvision:resnet18 --taps nowhere --heads none",
        2,
        "The backbone torchvision:resnet18 has no",
    ),
    (
        "pairs P M --out OUT --backbone torchvision:nonet --taps layer1 --heads none",
        2,
        "torchvision has no classification model",
    ),
    ("pairs P M --out OUT --taps features.1", 2, "The backbone squeeze has its own taps; name"),
    ("pairs P M --out OUT --bakcbone alex", 2, "Possible options: --backbone"),
    ("pairs P M --out OUT --below nan", 2, "--below takes a distance such as 0.1, not"),
    ("pairs P M --out OUT --below -1", 2, "--below takes a distance such as 0.1, not -1.0"),
    ("pairs P M --out OUT --below near", 2, "Invalid value for '--below'"),
    ("pairs P M --out OUT --top-k 0", 2, "--top-k takes a number from 1 on, not 0"),
    (
        "pairs P M --out OUT --top-k 3 --precision fast",
        2,
        "--below and --top-k are exact: leave out",
    ),
    ("pairs P M --out OUT --group-by colour", 2, "unknown --group-by 'colour': choose folder"),
    (
        "pairs P M --out OUT --group-by folder --below 0.1",
        2,
        "--group-by and --below and --top-k exclude",
    ),
    ("pairs P M --out OUT --update nowhere", 2, "nowhere is not a run of lpipstore: no"),
    ("pairs P M --out OUT --dry-run --update RUN", 2, "--dry-run does not go with --update: leave"),
    ("pairs P --update no-run M --out OUT", 1, "no-run/manifest.json is damaged: it should"),
    ("pairs P --update RUN --out OUT --size 64", 2, "--size 64 contradicts --update: the run in"),
    ("pairs P --update RUN --out RUN", 2, "--out has to be another folder than the run"),
    ("pairs --from nowhere.json --out OUT", 2, "nowhere.json is not a run of lpipstore: no"),
    ("pairs --from torn-run/manifest.json --out OUT", 1, "torn-run/manifest.json cannot be read:"),
    (
        "pairs --from no-run/manifest.json --out OUT",
        1,
        "no-run/manifest.json is damaged: it should",
    ),
    (
        "pairs --from old-run/manifest.json --out OUT",
        1,
        "old-run/manifest.json is of format 0, and",
    ),
    ("pairs P --from RUN/manifest.json --out OUT", 2, "--from takes the images of its run: leave"),
    ("pairs P M --out OUT --heads nowhere.pth", 2, "No head at 'nowhere.pth'. Choose an"),
    ("pairs P M --out OUT --heads empty", 2, "No head at 'empty/head.pth'. Choose an"),
    ("pairs P M --out OUT --heads garbage.pth", 2, "garbage.pth is not a file of tensors, or is"),
    ("pairs P M --out OUT --heads pickle.pth", 2, "pickle.pth is not a file of tensors, or is"),
    ("pairs P M --out OUT --heads list.pth", 2, "list.pth is not a plain dict of tensors by"),
    ("pairs P M --out OUT --heads alex.pth", 2, "The head alex.pth has channels (64, 192,"),
    ("pairs P M --out OUT --heads short.pth", 2, "The head short.pth has channels (64, 128,"),
    ("pairs P M --out OUT --heads nan.pth", 2, "The head nan.pth holds weights that are not"),
    ("pairs P M --out OUT --weights nowhere.pth", 2, "No weights at 'nowhere.pth'. Choose"),
    ("pairs P M --out OUT --weights garbage.pth", 2, "garbage.pth is not a file of tensors, or is"),
    ("pairs P M --out OUT --weights good.pth", 2, "good.pth does not fit the backbone squeeze:"),
    ("pairs P M --out OUT --weights pickle.pth", 2, "pickle.pth is not a file of tensors, or is"),
    ("pairs P M --out file", 2, "file is a file: choose a new folder for --out"),
    ("pairs P M --out file/OUT", 1, "cannot write results to file/OUT: Not a"),
    ("pairs P M --out other-files", 2, "other-files is not empty and holds no run"),
    ("pairs P M --out torn-run", 1, "torn-run/manifest.json cannot be read:"),
    ("pairs P M --out no-run", 1, "no-run/manifest.json is damaged: it should"),
    ("pairs P M --heads none --out RUN", 2, "RUN holds a different run (head_digest:"),
    ("pairs P M --out OUT --store file-store", 1, "not a folder"),
    ("pairs P M --out OUT --store file-store/S", 1, "not a folder"),
    ("pairs P M --out OUT --store other-files", 1, "other things than a feature store"),
    # lists
    ("score nowhere.csv --images P M --out OUT", 2, "nowhere.csv cannot be read: No such file or"),
    ("score empty.csv --images P M --out OUT", 2, "empty.csv cannot be read as a table: Empty"),
    ("score header.csv --images P M --out OUT", 2, "header.csv lists no pairs: it has column"),
    ("score one.csv --images P M --out OUT", 2, "one.csv needs two columns of paths with a"),
    ("score ragged.csv --images P M --out OUT", 2, "ragged.csv cannot be read as a table: CSV"),
    ("score gone.csv --images P M --out OUT", 1, "none of 2 files can be used as an image,"),
    ("score holes.csv --images P M --out OUT", 1, "no pair of the list can be scored: at least"),
    ("score binary.csv --images P M --out OUT", 2, "binary.csv cannot be read as a table: CSV"),
    (
        "score garbage.parquet --images P M --out OUT",
        2,
        "garbage.parquet cannot be read as a table:",
    ),
    ("score numbers.parquet --images P M --out OUT", 2, "numbers.parquet (--columns A,B chooses)"),
    ("score pairs.xlsx --images P M --out OUT", 2, "pairs.xlsx must be a table that ends in"),
    ("score P --images P M --out OUT", 2, "P must be a table that ends in .csv, .tsv,"),
    (
        "score good.csv --images P M --out OUT --columns a,c",
        2,
        "--columns a,c: no single column c; good.csv",
    ),
    (
        "score good.csv --images P M --out OUT --columns a",
        2,
        "--columns a: two are needed; good.csv has",
    ),
    (
        "score good.csv --images P M --out OUT --columns a,a",
        2,
        "--columns a,a: two are needed; good.csv has",
    ),
    ("score good.csv --images nowhere M --out OUT", 2, "--images nowhere is not a folder"),
    ("score good.csv --images file M --out OUT", 2, "--images file is not a folder"),
    # two folders
    ("compare P nowhere M --out OUT", 2, "no such file or folder: nowhere"),
    ("compare P empty M --out OUT", 1, "no images in empty: looked for files ending"),
    ("compare P strangers --paired M --out OUT", 1, "no two images have the same name: P has 3"),
    ("compare P file --paired M --out OUT", 2, "file is not a folder: compare --paired"),
    ("compare P P --keep-statistics M --out OUT", 2, "--keep-statistics is for lists: give"),
    # finished runs
    ("rescore nowhere --heads none --out OUT", 2, "nowhere is not a run of lpipstore: no"),
    ("rescore other-files --heads none --out OUT", 2, "other-files is not a run of lpipstore: no"),
    ("rescore torn-run --heads none --out OUT", 1, "torn-run/manifest.json cannot be read:"),
    ("rescore RUN --out OUT", 2, "--heads"),
    ("rescore RUN --heads alex.pth --out OUT", 2, "The head alex.pth has channels (64, 192,"),
    ("rescore RUN --heads nowhere.pth --out OUT", 2, "No head at 'nowhere.pth'. Choose an"),
    ("rescore RUN --heads none --out RUN", 2, "RUN holds a different run (head_digest:"),
    ("rescore RUN --heads none --out other-files", 2, "other-files is not empty and holds no run"),
    # exports
    ("export nowhere --format csv", 2, "nowhere is not a run of lpipstore: no"),
    ("export RUN --format doc", 2, "unknown --format 'doc': choose csv,"),
    ("export RUN --out nowhere/a.csv", 1, "cannot write nowhere/a.csv: No such file or"),
    ("export nowhere", 2, "nowhere is not a run of lpipstore: no"),
    ("export RUN --out a.doc", 2, "choose a --format: csv, parquet, npz"),
    ("export other-files --format csv", 2, "other-files is not a run of lpipstore: no"),
    # judgements
    ("train nowhere.csv --images P M --out OUT", 2, "no judgements at nowhere.csv: no such file"),
    ("train nojudge.csv --images P M --out OUT", 2, "nojudge.csv has the columns ref, p0, p1;"),
    ("train judge2.csv --images P M --out OUT", 2, "line 2 of judge2.csv: judge is 1.5, and a"),
    ("train judgex.csv --images P M --out OUT", 2, "the column judge of judgex.csv holds what"),
    ("train lost.csv --images P M --out OUT", 2, "images are missing: P/nowhere.png, named by"),
    ("train votes.csv --images P M --out OUT", 2, "line 2 of votes.csv has -4 votes: more than"),
    ("train bapps --images P M --out OUT", 2, "no judgements in bapps: looked for folders"),
    (
        "train judged.csv --images P M --out OUT --held-out 1.5",
        2,
        "--held-out 1.5 must lie in [0, 1)",
    ),
    (
        "train judged.csv --images P M --out OUT --loss hinge",
        2,
        "unknown --loss 'hinge': choose bce, rank",
    ),
    (
        "train judged.csv --images P M --out OUT --schedule never",
        2,
        "unknown --schedule 'never': choose",
    ),
    (
        "train judged.csv --images P M --out OUT --augment blur",
        2,
        "unknown --augment 'blur': choose flip,",
    ),
    ("train judged.csv --images P M --out OUT --dropout 2", 2, "--dropout 2 must lie in [0, 1)"),
    (
        "train judged.csv --images P M --out OUT --learning-rate=-1",
        2,
        "--learning-rate -1 must be more than 0",
    ),
    ("train judgements.csv --images P M --out OUT", 2, "judgements.csv has no judgements: column"),
    ("train empty.csv --images P M --out OUT", 2, "empty.csv cannot be read as a table: Empty CSV"),
    ("train judgeless.csv --images P M --out OUT", 2, "line 2 of judgeless.csv: judge is nan, and"),
    ("train refless.csv --images P M --out OUT", 2, "line 2 of refless.csv lacks the path of an"),
    ("train votesx.csv --images P M --out OUT", 2, "the column votes of votesx.csv holds what is"),
    ("train two.csv --images P M --out OUT", 2, "two.csv has the columns ref, p0, p1, judge, jud"),
    ("train long.csv --images P M --out OUT", 2, "long.csv cannot be read as a table: CSV parse"),
    ("train folder.csv --images P M --out OUT", 1, "P/../P: cannot be read: not a regular file"),
    ("train broken.csv --images P M --out OUT", 1, "no judgement can be used, as images of each"),
    ("train same.csv --images P M --out OUT", 2, "training needs judgements of triplets (ref,"),
    ("train numbered.parquet --images P M --out OUT", 2, "numbered.parquet holds int64 where path"),
    ("train pairs.xlsx --images P M --out OUT", 2, "pairs.xlsx must be a table that ends in .csv"),
    ("train empty M --out OUT", 2, "no judgements in empty: looked for folders with ref, p0, p1"),
    ("train set-none M --out OUT", 2, "cnn is an empty set: no .npy files in judge"),
    ("train set-pair M --out OUT", 2, "judge/000.npy does not hold one number as .npy"),
    ("train set-above M --out OUT", 2, "judge/000.npy: judge is 1.2, and a share of votes lies in"),
    ("train set-nan M --out OUT", 2, "judge/000.npy: judge is nan, and a share of votes lies in"),
    ("train set-words M --out OUT", 2, "judge/000.npy does not hold one number as .npy"),
    ("train set-pickle M --out OUT", 2, "judge/000.npy does not hold one number as .npy"),
    (
        "train set-torn M --out OUT",
        2,
        "images are missing: set-torn/2afc/train/cnn/p1 has none for",
    ),
    (
        "train set-same M --out OUT",
        2,
        "set-same has no split 'train', but val: choose with --split",
    ),
    (
        "train set-whole M --out OUT --split test",
        2,
        "set-whole has no split 'test', but train: cho",
    ),
    (
        "train set-whole M --out OUT --held-out-from set-whole",
        2,
        "set-whole has no split 'val', but",
    ),
    (
        "train judged.csv --images P M --out OUT --held-out-from nowhere",
        2,
        "no judgements at nowhere",
    ),
    ("train judged.csv --images P M --out OUT --held-out 0.99", 2, "no judgement is left to learn"),
    (
        "train judged.csv --images P M --out OUT --held-out nan",
        2,
        "--held-out nan must lie in [0, 1)",
    ),
    ("train judged.csv --images P M --out OUT --clip nan", 2, "--clip nan must be more than 0"),
    (
        "train judged.csv --images P M --out OUT --learning-rate inf",
        2,
        "inf must be more than 0 and finite",
    ),
    (
        "train judged.csv --images P M --out OUT --seed 99999999999999999999",
        2,
        "value for '--seed'",
    ),
    ("train judged.csv --images P M --out OUT --epochs 0", 2, "Invalid value for '--epochs'"),
    (
        "train judged.csv --images P M --out OUT --independent",
        2,
        "--independent is about --augment",
    ),
    (
        "train judged.csv --images P M --out OUT --tune-trunk --trunk-dtype float8",
        2,
        "unknown --trunk-dtype 'float8': choose",
    ),
    (
        "train judged.csv --images P M --out file",
        2,
        "file is a file: choose a new folder for --out",
    ),
    ("train judged.csv --images P M --out other-files", 2, "other-files is not empty and holds no"),
    (
        "train judged.csv --images P M --out RUN",
        2,
        "RUN holds a different run (command: 'pairs' th",
    ),
    # evaluation
    ("evaluate judgements.csv --images P M", 2, "judgements.csv has no judgements: column names"),
    ("evaluate same2.csv --images P M", 2, "line 2 of same2.csv: same is 2, and a share of votes"),
    (
        "evaluate broken.csv --images P M",
        1,
        "no judgement can be used, as images of each are broken",
    ),
    ("evaluate set-whole M", 2, "set-whole has no split 'val', but train: choose with --split"),
    (
        "evaluate set-torn M --split train",
        2,
        "images are missing: set-torn/2afc/train/cnn/p1 has no",
    ),
    ("evaluate P M", 2, "no judgements in P: looked for folders with ref, p0, p1"),
    ("evaluate judged.csv --images nowhere M", 2, "--images nowhere is not a folder"),
    ("evaluate judged.csv --images P M --metrics ,", 2, "nothing to evaluate: name --heads or"),
    (
        "evaluate judged.csv --images P M --heads P",
        2,
        "No head at 'P/head.pth'. Choose an existing",
    ),
    (
        "evaluate judged.csv --images P M --heads list.pth",
        2,
        "list.pth is not a plain dict of tensors",
    ),
    (
        "evaluate judged.csv --images P M --out scores.csv",
        2,
        "--out scores.csv must end in .parquet",
    ),
    (
        "evaluate judged.csv --images P M --metrics L2 --out file/scores.parquet",
        1,
        "cannot write file/scores.parquet: ",
    ),
    ("evaluate nowhere.csv --images P M", 2, "no judgements at nowhere.csv: no such file"),
    ("evaluate judge2.csv --images P M", 2, "line 2 of judge2.csv: judge is 1.5, and a"),
    (
        "evaluate judged.csv --images P M --heads nowhere.pth",
        2,
        "No head at 'nowhere.pth'. Choose an",
    ),
    (
        "evaluate judged.csv --images P M --heads alex.pth",
        2,
        "The head alex.pth has channels (64, 192,",
    ),
    (
        "evaluate judged.csv --images P M --metrics beauty",
        2,
        "unknown --metrics 'beauty': choose L2,",
    ),
    ("evaluate bapps M", 2, "no judgements in bapps: looked for folders"),
    # extraction
    ("extract nowhere M", 2, "no such file or folder: nowhere"),
    ("extract empty M", 1, "no images in empty: looked for files ending"),
    # stores
    ("store info --store nowhere", 2, "no store at nowhere: extract or pairs makes"),
    ("store verify --store nowhere", 2, "no store at nowhere: extract or pairs makes"),
    ("store evict --to lots --store nowhere", 2, "'lots' is no size: write 500MB, 20GB, 4GiB"),
    ("store evict --to 1GB --store other-files", 1, "other things than a feature store"),
    ("store evict", 2, "--to"),
    ("store clear --store file-store", 1, "not a folder"),
    # commands
    ("pears P", 2, "pears"),
    # stores
    ("store burn", 2, "burn"),
    ("demo --out file", 2, "file is not a new or empty folder: choose"),
    ("demo --out other-files", 2, "other-files is not a new or empty folder:"),
]


@pytest.mark.parametrize(("command", "code", "words"), TABLE, ids=[row[0] for row in TABLE])
def test_it_ends_with_one_message(world, cli, finished, command, code, words):
    if "RUN" in command:
        shutil.copytree(finished, world / "RUN")
    outcome = cli(*shlex.split(re.sub(r"\bM\b", MODEL, command)))
    message = " ".join(outcome.err.split())
    assert outcome.code == code, message
    assert words in message
    assert outcome.out == ""
    assert sum(line.lower().startswith("error: ") for line in outcome.err.splitlines()) <= 1
    assert not (world / "OUT" / "summary.json").exists()
    assert (world / "other-files" / "thesis.tex").read_text() == "precious"


def test_strange_names_are_no_trouble(world, cli):
    """Spaces, newlines, bytes that are no text, names that differ in case, folders in a circle."""
    folder, whole = world / "strange names", world / "P"
    folder.mkdir()
    names = [b"a b.png", b"a\nb.png", b"\xff\xfe.png", b"A B.png", b"--out.png", "ü.png".encode()]
    for name in names:
        shutil.copy(whole / "001.png", os.path.join(os.fsencode(folder), name))
    (folder / "circle").symlink_to(folder)
    outcome = cli("pairs", folder, whole, *MODEL.split(), "--out", "OUT", "--json")
    assert outcome.code == 0, outcome.err
    summary = json.loads(outcome.out)
    assert (summary["images"], summary["unique"], summary["failed"]) == (9, 3, 0)
    assert cli("export", "OUT", "--format", "csv").code == 0
    header = (world / "OUT" / "export.csv").read_text(encoding="utf-8")
    assert "a b.png" in header
    assert "A B.png" in header
