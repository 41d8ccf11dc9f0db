"""A table of what people get wrong: each ends with one clear message and the right exit code."""

import json
import os
import shutil

import pytest

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0", "--size", "32")

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
    ("pairs P M --out OUT --device-memory lots", 2, "'lots' is no size: write 500MB, 20GB, 4GiB"),
    ("pairs P M --out OUT --device-memory 8GB", 2, "--device-memory 8GB is for a GPU, and this"),
    ("pairs P M --out OUT --store-limit 4parsecs", 2, "'4parsecs' is no size: write 500MB, 20GB,"),
    ("pairs P M --out OUT --store-limit=-1GB", 2, "'-1GB' is no size: write 500MB, 20GB, 4GiB"),
    ("pairs P M --out OUT --store-limit 1e400", 2, "'1e400' is no size: write 500MB, 20GB, 4GiB"),
    ("pairs P M --out OUT --row-dtype int3", 2, "unknown --row-dtype 'int3': choose uint16,"),
    ("pairs P M --out OUT --device tpu", 2, "unknown device 'tpu'; use auto, cpu, cuda"),
    ("pairs P M --out OUT --device cuda:77", 2, "device 'cuda:77' is not there: torch sees 0"),
    ("pairs P M --out OUT --device cuda:0,1", 2, "device 'cuda:0' is not there: torch sees 0"),
    ("pairs P M --out OUT --device cuda:all", 2, "device 'cuda:0' is not there: torch sees 0"),
    ("pairs P M --out OUT --device cpu,1", 2, "unknown device 'cpu,1'; use auto, cpu"),
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
def test_it_ends_with_one_message(check_message, command, code, words):
    check_message(command, code, words)


def test_strange_names_are_no_trouble(world, cli):
    """Spaces, newlines, bytes that are no text, names that differ in case, folders in a circle."""
    folder, whole = world / "strange names", world / "P"
    folder.mkdir()
    names = [b"a b.png", b"a\nb.png", b"\xff\xfe.png", b"A B.png", b"--out.png", "ü.png".encode()]
    for name in names:
        shutil.copy(whole / "001.png", os.path.join(os.fsencode(folder), name))
    (folder / "circle").symlink_to(folder)
    outcome = cli("pairs", folder, whole, *MODEL, "--out", "OUT", "--json")
    assert outcome.code == 0, outcome.err
    summary = json.loads(outcome.out)
    assert (summary["images"], summary["unique"], summary["failed"]) == (9, 3, 0)
    assert cli("export", "OUT", "--format", "csv").code == 0
    header = (world / "OUT" / "export.csv").read_text(encoding="utf-8")
    assert "a b.png" in header
    assert "A B.png" in header
