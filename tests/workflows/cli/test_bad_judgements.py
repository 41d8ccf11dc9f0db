"""What people get wrong about judgements and heads: one clear message, the right exit code."""

import pytest

# command (M: the model), exit code, words of the message
TABLE = [
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
]


@pytest.mark.parametrize(("command", "code", "words"), TABLE, ids=[row[0] for row in TABLE])
def test_it_ends_with_one_message(check_message, command, code, words):
    check_message(command, code, words)
