"""Reading human judgements: tables, folders of BAPPS, and what is wrong with them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lpipstore.cache.errors import UsageError
from lpipstore.pipeline.judgements.table import CHOICES, SAMENESS, read_judgements


@pytest.fixture
def table(pictures):
    def write(lines, header="ref,p0,p1,judge,votes", name="list.csv"):
        path = pictures / name
        path.write_text(header + "\n" + "\n".join(lines) + "\n")
        return path

    return write


def bapps_set(folder, draw, answers, kind=CHOICES):
    roles, answer = (("ref", "p0", "p1"), "judge") if kind == CHOICES else (("p0", "p1"), "same")
    for seed, role in enumerate(roles):
        draw(folder / role, len(answers), seed=seed)
    (folder / answer).mkdir()
    for number, value in enumerate(answers):
        np.save(folder / answer / f"{number:03}.npy", np.array([value], np.float32))
    return folder


def test_a_table_of_triplets(table, pictures):
    path = table(["000.png,001.png,002.png,0.25,4", "./001.png,000.png,002.png,1,3"])
    found = read_judgements([path])[CHOICES]
    assert found.paths == [str(pictures / name) for name in ("000.png", "001.png", "002.png")]
    assert found.images.tolist() == [[0, 1, 2], [1, 0, 2]]
    assert found.answers.tolist() == [0.25, 1.0]
    assert found.votes.tolist() == [4, 3]
    assert found.sets == ("list",)


def test_votes_are_optional_and_columns_come_in_any_order(pictures):
    content = {
        "judge": [1, 0],
        "p1": ["002.png"] * 2,
        "p0": ["001.png"] * 2,
        "ref": ["000.png"] * 2,
    }
    pq.write_table(pa.table(content), pictures / "list.parquet")
    found = read_judgements([pictures / "list.parquet"])[CHOICES]
    assert found.votes.tolist() == [1, 1]
    assert [found.paths[n][-7:] for n in found.images[0]] == ["000.png", "001.png", "002.png"]


def test_a_table_of_sameness_and_one_of_triplets_together(table, pictures):
    same = table(["000.png,001.png,0.5"], "p0,p1,same", "same.csv")
    triplets = table(["000.png,001.png,002.png,0,1"])
    found = read_judgements([same, triplets])
    assert found[SAMENESS].images.shape == (1, 2)
    assert found[CHOICES].images.shape == (1, 3)


@pytest.mark.parametrize(
    ("lines", "header", "words"),
    [
        (["000.png,001.png,002.png,1.5,4"], None, "line 2 .* judge is 1.5, .* lies in"),
        (["000.png,001.png,002.png,0.5,4", "000.png,001.png,002.png,,4"], None, "line 3 .*nan"),
        (["000.png,001.png,002.png,0.5,0"], None, "line 2 .* 0 votes"),
        (["000.png,001.png,,0.5,1"], None, "line 2 .* lacks the path"),
        (["000.png,001.png,002.png,left,1"], None, "column judge .* not a number"),
        (["000.png,gone.png,away.png,0.5,1"], None, r"missing: .*gone.png and 1 more"),
        (["000.png,001.png"], "a,b", "columns a, b; judgements need ref, p0, p1, judge"),
        ([], None, "no judgements"),
    ],
)
def test_tables_that_are_wrong(table, lines, header, words):
    path = table(lines, *([] if header is None else [header]))
    with pytest.raises(UsageError, match=words):
        read_judgements([path])


def test_folders_of_bapps(tmp_path, draw):
    for split in ("train", "val"):
        for number, name in enumerate(("cnn", "traditional")):
            answers = [0.0, 1.0, 0.5][: 2 + number]
            bapps_set(tmp_path / "2afc" / split / name, draw, answers)
    bapps_set(tmp_path / "jnd" / "val" / "cnn", draw, [1.0, 0.0], SAMENESS)
    train = read_judgements([tmp_path], split="train")
    assert list(train) == [CHOICES]
    assert train[CHOICES].sets == ("train/cnn", "train/traditional")
    assert train[CHOICES].set_of.tolist() == [0, 0, 1, 1, 1]
    assert train[CHOICES].answers.tolist() == [0, 1, 0, 1, 0.5]
    assert all("/2afc/train/" in path for path in train[CHOICES].paths)
    first = train[CHOICES].images[0]
    assert [train[CHOICES].paths[n].split("/")[-2] for n in first] == ["ref", "p0", "p1"]
    both = read_judgements([tmp_path], split="val")
    assert set(both) == {CHOICES, SAMENESS}
    # a split's own folder, or a set, is taken as it is
    assert len(read_judgements([tmp_path / "2afc" / "val"])[CHOICES]) == 5
    assert len(read_judgements([tmp_path / "2afc" / "val" / "cnn"])[CHOICES]) == 2
    with pytest.raises(UsageError, match="no split 'test', but train, val: choose with split, or"):
        read_judgements([tmp_path], split="test")


def test_the_only_split_is_not_taken_unasked_and_the_message_says_how_to_take_it(tmp_path, draw):
    split = bapps_set(tmp_path / "2afc" / "val" / "cnn", draw, [0.0, 1.0]).parent
    own = f"name a split's own folder, such as {split}"
    with pytest.raises(UsageError) as caught:
        read_judgements([tmp_path])
    assert str(caught.value) == (
        f"{tmp_path} has no split 'train', but val: choose with split=\"val\", or {own}"
    )
    with pytest.raises(UsageError) as caught:  # where nobody can choose the split
        read_judgements([tmp_path], chosen_by=None)
    assert str(caught.value) == f"{tmp_path} has no split 'train', but val: {own}"
    assert len(read_judgements([tmp_path], split="val")[CHOICES]) == 2
    assert len(read_judgements([split])[CHOICES]) == 2


def test_folders_that_are_wrong(tmp_path, draw):
    folder = bapps_set(tmp_path / "2afc" / "train" / "cnn", draw, [0.0, 1.0])
    (folder / "p1" / "001.png").unlink()
    with pytest.raises(UsageError, match=r"cnn/p1 has none for the judgement 001"):
        read_judgements([folder])
    np.save(folder / "judge" / "000.npy", np.array([2.0]))
    draw(folder / "p1", 2)
    with pytest.raises(UsageError, match=r"000.npy: judge is 2, .* \[0, 1\]"):
        read_judgements([folder])
    (folder / "judge" / "000.npy").write_bytes(b"no array")
    with pytest.raises(UsageError, match=r"000.npy does not hold one number"):
        read_judgements([folder])
    for file in (folder / "judge").iterdir():
        file.unlink()
    with pytest.raises(UsageError, match="empty set"):
        read_judgements([folder])
    with pytest.raises(UsageError, match="no judgements in"):
        read_judgements([folder / "ref"])
    with pytest.raises(UsageError, match="no such file or folder"):
        read_judgements([tmp_path / "nowhere"])
