"""What is given as images: lists of names, standard input, braces, folders of archives."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from lpipstore.cache.errors import UsageError
from lpipstore.pipeline.images.survey import survey
from lpipstore.pipeline.sources.lists import braces, expand, read_names
from lpipstore.pipeline.sources.sources import Sources


class NoTable:
    """A file table that knows nothing."""

    def recall_files(self, files):
        return [None] * len(files)

    def remember_files(self, entries):
        pass


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory of the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pipe(monkeypatch):
    """Set what comes on standard input."""

    def give(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return give


def shard(name: str, *members: str) -> None:
    with tarfile.open(name, "w") as archive:
        for member in members:
            info = tarfile.TarInfo(member)
            info.size = len(member)
            archive.addfile(info, io.BytesIO(member.encode()))


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")


# ---- lists of names


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"a.png\nb.png\n", ["a.png", "b.png"]),
        (b"a.png\r\n\r\n \nb.png", ["a.png", "b.png"]),
        (b"\xef\xbb\xbfa.png\n", ["a.png"]),
        (b" a .png \n#b.png\n*.png\n", [" a .png ", "#b.png", "*.png"]),
        (b"a\nb.png\0c\r\0", ["a\nb.png", "c\r"]),
        (b"caf\xe9.png\n", [os.fsdecode(b"caf\xe9.png")]),
        (b"a\x85b.png\x0b\n", [os.fsdecode(b"a\x85b.png\x0b")]),
        (b"", []),
        (b"\n\n", []),
    ],
)
def test_names_in_a_list(data, names):
    assert read_names(data) == names


def test_a_list_names_sources_of_every_kind(here):
    touch("a.png", "folder/b.png", "odd[1].png", "c.bin")
    shard("s.tar", "x.png", "y.png", "z.png")
    Path("lists").mkdir()
    names = ["s.tar#y.png", "a.png", "folder", "odd[1].png", "", "c.bin", "s.tar", "a.png"]
    Path("lists/all.txt").write_text("\n".join(names))
    found = Sources().find(["@lists/all.txt"])
    assert found.names == [
        "s.tar#y.png",
        "a.png",
        "folder/b.png",
        "odd[1].png",
        "c.bin",
        "s.tar#x.png",
        "s.tar#z.png",
    ]
    assert found.within[:3] == ["y.png", "a.png", "b.png"]
    assert found.unreadable == []


def test_what_a_list_names_and_is_not_there_is_a_failure_by_name(here):
    touch("a.png")
    shard("s.tar", "x.png")
    Path("l.txt").write_text("gone.png\ns.tar#gone.png\na.png\ngone.tar\ngone.zip#a.png\n")
    sources = Sources()
    found = sources.find(["@l.txt"])
    assert found.names == ["gone.png", "s.tar#gone.png", "a.png", "gone.zip#a.png"]
    assert found.unreadable == [("gone.tar", "cannot be read: No such file or directory")]
    errors = [record.error for record in survey(found.names, sources, NoTable())]
    missing = "cannot be read: No such file or directory"
    assert errors[:2] == [missing, "there is no such image in the archive"]
    assert errors[3] == missing


@pytest.mark.parametrize("data", [b"a.png\n\nb.png\n", b"a.png\0b.png\0"])
def test_a_list_on_standard_input(here, pipe, data):
    touch("a.png", "b.png", "-")
    pipe(data)
    assert Sources().find(["-"]).names == ["a.png", "b.png"]
    assert Sources().find(["./-"]).names == ["./-"]


def test_standard_input_is_read_once(here, pipe):
    touch("a.png")
    pipe(b"a.png")
    sources = Sources()
    sources.find(["-"])
    with pytest.raises(UsageError, match="read once"):
        sources.find(["-"])


def test_standard_input_that_is_closed(here, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="closed"):
        Sources().find(["-"])


def test_a_file_whose_name_begins_like_a_list(here):
    touch("@list.txt", "@eaDir/a.png")
    assert Sources().find(["./@list.txt"]).names == ["./@list.txt"]
    for name in ("@list.txt", "@eaDir"):
        with pytest.raises(UsageError, match=rf"{name[1:]} cannot be read.*\./{name}"):
            Sources().find([name])
    Path("list.txt").write_text("@list.txt")
    assert Sources().find(["@list.txt"]).names == ["@list.txt"]


@pytest.mark.parametrize("given", ["@nowhere", "@.", "@"])
def test_a_list_that_cannot_be_read(here, given):
    with pytest.raises(UsageError, match="the list .*cannot be read"):
        Sources().find([given])


# ---- braces


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_braces_as_in_bash():
    for text in (
        "shard-{000..012}.tar",
        "{a,b}.tar",
        "x{1..3}y{a..c}z",
        "{a,b{1..2},}c",
        "{3..1}",
        "{1..10..4}",
        "{10..1..-4}",
        "{-02..2}",
        "{08..11}",
        "{0..3..0}",
        "a{b}c",
        "a{b}{c,d}",
        "a{b",
        "a{b,c",
        "a{1..b}",
        "}a{",
        "{{a,b}}",
        "{a,b}}",
        "{,}x",
        "{{1..2},{a..b}}",
    ):
        done = subprocess.run(
            ["bash", "-c", f"printf '%s\\n' {text}"], check=True, capture_output=True, text=True
        )
        assert braces(text) == done.stdout.removesuffix("\n").split("\n"), text


def test_too_many_names_are_refused():
    with pytest.raises(UsageError, match="more than 1,000,000"):
        braces("{0..999999999999}")
    with pytest.raises(UsageError, match="more than 1,000,000"):
        braces("{0..1999}{0..1999}")


def test_every_missing_shard_is_named(here):
    shard("s-000.tar", "a.png")
    shard("s-002.tar", "b.png")
    found = Sources().find(["s-{000..003}.tar"])
    assert found.names == ["s-000.tar#a.png", "s-002.tar#b.png"]
    assert [name for name, _ in found.unreadable] == ["s-001.tar", "s-003.tar"]


def test_shards_of_which_none_exists_are_an_error(here):
    with pytest.raises(UsageError, match=r"none of the 13 files of s-\{000..012\}.tar .*s-000.tar"):
        Sources().find(["s-{000..012}.tar"])


def test_braces_of_urls_folders_and_patterns(here):
    touch("a/1.png", "b/2.png", "c/3.jpg")
    assert Sources().find(["{a,b}"]).names == ["a/1.png", "b/2.png"]
    assert Sources().find(["{b,a}/*.png"]).names == ["b/2.png", "a/1.png"]
    assert Sources().find(["{b,c}/*.png"]).names == ["b/2.png", "c/*.png"]  # fails by its name
    urls = ["s3://bucket/s-0.tar", "s3://bucket/s-1.tar"]
    assert expand("s3://bucket/s-{0..1}.tar", lambda _: False) == urls


def test_a_name_with_braces_is_a_name_first(here):
    touch("{a,b}.png")
    assert Sources().find(["{a,b}.png"]).names == ["{a,b}.png"]


# ---- members, folders and patterns of archives


def test_single_images_of_archives(here):
    shard("s.tar", "a#1.png", "b.png")
    assert Sources().find(["s.tar#b.png", "s.tar#a#1.png"]).names == [
        "s.tar#b.png",
        "s.tar#a#1.png",
    ]
    with pytest.raises(UsageError, match=r"no such file or folder: gone.tar#b.png"):
        Sources().find(["gone.tar#b.png"])


def test_a_folder_without_images_gives_its_archives(here):
    shard_of = Path("shards/sub")
    shard_of.mkdir(parents=True)
    shard("shards/1.tar", "a.png")
    shard("shards/0.tar", "a.png")
    shard("shards/sub/2.tar", "b.png")
    shard("shards/.hidden.tar", "c.png")
    touch("shards/readme.txt")
    found = Sources().find(["shards/"])
    assert found.names == ["shards/0.tar#a.png", "shards/1.tar#a.png", "shards/sub/2.tar#b.png"]
    assert found.within == ["0.tar#a.png", "1.tar#a.png", "sub/2.tar#b.png"]
    assert Sources().find(["shards/*"]).names == found.names[2:]  # of files, images only
    assert Sources().find(["shards/*.tar"]).names == found.names[:2]
    touch("shards/picture.png")
    assert Sources().find(["shards"]).names == ["shards/picture.png"]


def test_a_pattern_without_suffix_gives_archives_where_there_is_nothing_else(here):
    Path("shards").mkdir()
    shard("shards/1.tar", "a.png")
    touch("shards/readme.txt")
    assert Sources().find(["shards/*"]).names == ["shards/1.tar#a.png"]


def test_an_archive_by_two_names_is_listed_once(here):
    shard("s.tar", "a.png")
    assert Sources().find(["s.tar", "./s.tar", here / "s.tar"]).names == ["s.tar#a.png"]
    assert Sources().find([here / "s.tar", "s.tar#a.png"]).names == [f"{here}/s.tar#a.png"]
