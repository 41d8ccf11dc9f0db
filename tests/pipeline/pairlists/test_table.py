"""Tables of pairs: what people and their tools write, and what they get wrong."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lpipstore.cache.errors import UsageError
from lpipstore.pipeline.pairlists.table import COLUMN_NAMES, read_pairs


def listed(pairs):
    """The pairs as paths."""
    return [(pairs.paths[i], pairs.paths[j]) for i, j in zip(pairs.left, pairs.right, strict=True)]


@pytest.fixture
def table(tmp_path):
    """A function that writes a table and returns its path."""

    def write(content, name="pairs.csv"):
        path = tmp_path / name
        if isinstance(content, dict):
            pq.write_table(pa.table(content), path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_a_list_in_its_order_with_its_other_columns(table, tmp_path):
    pairs = read_pairs(table("path_a,path_b,judge,who\nx.png,y.png,0.5,Ann\ny.png,x.png,1,\n"))
    x, y = (str(tmp_path / name) for name in ("x.png", "y.png"))
    assert pairs.paths == [x, y]
    assert pairs.left.tolist() == [0, 1]
    assert pairs.right.tolist() == [1, 0]
    assert pairs.extra.to_pydict() == {"judge": [0.5, 1.0], "who": ["Ann", ""]}


def test_files_are_numbered_as_the_lines_name_them(table):
    pairs = read_pairs(table("a,b\nz,m\nm,c\nb,z\n"))
    assert [os.path.basename(path) for path in pairs.paths] == ["z", "m", "c", "b"]


@pytest.mark.parametrize("names", COLUMN_NAMES)
def test_columns_that_say_what_they_are(table, names):
    first, second = names
    path = table(f"number,{second.upper()},{first}\n1,y.png,x.png\n")
    assert [os.path.basename(p) for p in listed(read_pairs(path))[0]] == ["x.png", "y.png"]


def test_else_the_first_two_columns(table):
    pairs = read_pairs(table("reference,distorted,jnd\n001,002,3\n"))
    assert [os.path.basename(p) for p in listed(pairs)[0]] == ["001", "002"]  # no numbers
    assert pairs.extra.column_names == ["jnd"]


def test_columns_can_be_named_and_the_folder_too(table, tmp_path):
    path = table("id,was,is\n7,a.png,b.png\n")
    pairs = read_pairs(path, ["is", "was"], tmp_path / "images")
    assert listed(pairs) == [(f"{tmp_path}/images/b.png", f"{tmp_path}/images/a.png")]
    assert pairs.extra.column_names == ["id"]


def test_paths_of_all_kinds(table, tmp_path):
    names = ["with space.png", 'comma,quote".png', "new\nline.png", "ünï.png", "./x/../x.png"]
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    lines = "".join(f"{name},/elsewhere/x.png\r\n" for name in quoted)
    pairs = read_pairs(table(b"\xef\xbb\xbfpath_a,path_b\r\n" + lines.encode()))  # a BOM before
    assert [path for path, _ in listed(pairs)] == [str(tmp_path / "") + f"/{n}" for n in names]
    assert {path for _, path in listed(pairs)} == {"/elsewhere/x.png"}


def test_names_that_are_no_utf8(table):
    pairs = read_pairs(table(b"a,b,note\ncaf\xe9.png,x.png,\xe9\n"))
    assert os.fsencode(pairs.paths[0]).endswith(b"/caf\xe9.png")
    assert pairs.extra["note"].to_pylist() == [b"\xe9"]
    names = pa.array([b"caf\xe9.png"], pa.binary())
    pairs = read_pairs(table({"a": names, "b": names}, "pairs.parquet"))
    assert os.fsencode(pairs.paths[0]).endswith(b"/caf\xe9.png")


def test_two_names_of_one_file_are_one_file(table):
    pairs = read_pairs(table("a,b\nx.png,./x.png\nsub/../x.png,y.png\n"))
    assert len(pairs.paths) == 2
    assert pairs.left.tolist() == pairs.right.tolist()[:1] * 2 == [0, 0]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int8(), pa.string())]
)
def test_parquet_of_any_text(table, kind):
    left = pa.array(["x.png", None, "y.png"], pa.string()).cast(kind)
    right = pa.array(["y.png", "y.png", "y.png"])
    pairs = read_pairs(table({"n": [1, 2, 3], "path_i": left, "path_j": right}, "p.parquet"))
    assert [os.path.basename(p) for p, _ in listed(pairs)] == ["x.png", "", "y.png"]
    assert pairs.extra.to_pydict() == {"n": [1, 2, 3]}


def test_tab_separated(table):
    pairs = read_pairs(table("a\tb\nx,1.png\ty.png\n", "pairs.tsv"))
    assert os.path.basename(pairs.paths[0]) == "x,1.png"


def test_a_million_pairs_are_numbered(table):
    numbers = np.random.default_rng(0).integers(0, 1000, (1_000_000, 2))
    names = pa.array([f"{n}.png" for n in range(1000)])
    left, right = (names.take(pa.array(side)) for side in numbers.T)
    pairs = read_pairs(table({"a": left, "b": right}, "p.parquet"))
    number = np.array([int(os.path.basename(path)[:-4]) for path in pairs.paths])
    assert np.array_equal(number[pairs.left], numbers[:, 0])
    assert np.array_equal(number[pairs.right], numbers[:, 1])


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("", "p.csv", "cannot be read as a table"),
        ("path_a,path_b\n", "p.csv", "lists no pairs"),
        ("only\nx.png\n", "p.csv", "two columns"),
        ("same,same\nx.png,y.png\n", "p.csv", "two columns"),
        ("a,b\nx.png,y.png\nx.png\n", "p.csv", "cannot be read as a table"),
        (b"\xff\xfe,\xe9\nx.png,y.png\n", "p.csv", "cannot be read as a table"),
        (b"PAR1 and nothing more", "p.parquet", "cannot be read as a table"),
        ({"a": [1, 2], "b": ["x", "y"]}, "p.parquet", "int64 where paths should be"),
        ({"a": [], "b": []}, "p.parquet", "lists no pairs"),
        ("a,b\nx.png,y.png\n", "p.txt", "must be a table that ends in"),
    ],
)
def test_tables_that_are_none(table, content, name, message):
    with pytest.raises(UsageError, match=message) as caught:
        read_pairs(table(content, name))
    assert name in str(caught.value)


@pytest.mark.parametrize("columns", [["a"], ["a", "a"], ["a", "z"], ["a", "b", "c"], ["", "b"]])
def test_columns_that_are_not_there(table, columns):
    with pytest.raises(UsageError, match="has the columns a, b, c"):
        read_pairs(table("a,b,c\nx,y,z\n"), columns)


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read_pairs(tmp_path / "nowhere.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UsageError, match="folder.csv cannot be read"):
        read_pairs(tmp_path / "folder.csv")


def test_a_table_without_column_names(table, pictures):
    content = "".join(f"{pictures}/00{n}.png,{pictures}/00{n + 1}.png\n" for n in range(3))
    with pytest.raises(UsageError, match="names two files and not its columns"):
        read_pairs(table(content))
