"""Zip and tar files as sources: every image of them, in every order."""

import os
import pickle
import random
import shutil
import struct
import subprocess
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lpipstore.pipeline.images.decode import content_hash
from lpipstore.pipeline.images.survey import survey
from lpipstore.pipeline.sources.source import ImageError
from lpipstore.pipeline.sources.sources import Sources
from tests.pipeline.sources.archives import (
    ARCHIVES,
    FILES,
    Table,
    blob,
    lost,
    make,
    read_all,
    tar,
    zipped,
)


@pytest.mark.parametrize("suffix", ARCHIVES)
def test_images_come_in_order_of_storage(tmp_path, suffix):
    archive = make(tmp_path / f"a{suffix}")
    sources = Sources()
    found = sources.find([archive])
    assert found.within == list(FILES)
    assert found.names == [f"{archive}#{name}" for name in FILES]
    assert [sources.read(name) for name in found.names] == list(FILES.values())
    assert sources.sequential(found.names[0]) == (suffix not in (".zip", ".tar"))
    sources.close()
    assert sources.read(found.names[3]) == FILES[found.within[3]]


@pytest.mark.parametrize("suffix", ARCHIVES)
def test_any_order_and_many_threads_read_the_same(tmp_path, suffix):
    archive = make(tmp_path / f"a{suffix}")
    sources = Sources()
    order = random.Random(1).choices(list(FILES), k=120)
    with ThreadPoolExecutor(6) as pool:
        read = list(pool.map(lambda name: sources.read(f"{archive}#{name}"), order))
    assert read == [FILES[name] for name in order]


@pytest.mark.parametrize("suffix", ARCHIVES)
def test_a_copy_opens_its_own_files(tmp_path, suffix):
    archive = make(tmp_path / f"a{suffix}")
    sources = Sources()
    names = sources.find([archive]).names
    sources.read(names[0])
    copy = pickle.loads(pickle.dumps(sources))
    sources.close()
    assert [copy.read(name) for name in names] == list(FILES.values())


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_a_closed_source_lets_go_of_its_file(tmp_path, suffix):
    archive = make(tmp_path / f"a{suffix}")

    def is_open():
        links = (Path("/proc/self/fd") / fd for fd in os.listdir("/proc/self/fd"))
        return any(os.path.realpath(link) == str(archive.resolve()) for link in links)

    sources = Sources()
    sources.read(f"{archive}#00.png")
    assert is_open()
    sources.close()
    assert not is_open()


def test_of_many_archives_few_stay_open(tmp_path):
    names = [f"{tar(tmp_path / f'{n:03}.tar', {'a.png': blob(n)})}#a.png" for n in range(200)]
    sources = Sources()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        assert [sources.read(name) for name in names] == [blob(n) for n in range(200)]
        assert len(os.listdir("/proc/self/fd")) < before + 80
    sources.close()


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_only_images_are_taken_and_nothing_hidden(tmp_path, suffix):
    names = ["a.png", "a.json", ".b.png", ".c/d.png", "__MACOSX/._a.png", "x/E.JPG", "f.tar"]
    assert list(read_all(make(tmp_path / f"a{suffix}", dict.fromkeys(names, b"x")))) == [
        "a.png",
        "x/E.JPG",
    ]


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_names_that_lead_out_are_only_names(tmp_path, suffix, monkeypatch):
    work = tmp_path / "work" / "here"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    (tmp_path / "work" / "x.png").write_bytes(b"outside")
    names = [
        "/etc/a.png",
        "../x.png",
        "sub/../../x.png",
        "sub/../../../../b.png",
        "a#1.png",
        "#.png",
    ]
    files = {name: blob(n) for n, name in enumerate(names)}
    make(Path(f"a{suffix}"), files)
    before = sorted(tmp_path.rglob("*"))
    assert read_all(Path(f"a{suffix}")) == files
    assert Sources().find([f"a{suffix}", "../x.png"]).names[-1] == "../x.png"
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "work" / "x.png").read_bytes() == b"outside"


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_a_point_at_the_start_of_a_name_is_left_out(tmp_path, suffix):
    archive = make(tmp_path / f"a{suffix}", {"./b/a.png": b"x"})
    assert list(read_all(archive)) == ["b/a.png"]
    assert Sources().read(f"{archive}#./b/a.png") == b"x"


def test_names_of_any_bytes(tmp_path):
    odd = os.fsdecode(b"caf\xe9 \n.png")
    archive = tar(tmp_path / "a.tar", {odd: b"1", "日本.png": b"2"})
    assert read_all(archive) == {odd: b"1", "日本.png": b"2"}
    assert Sources().read(f"{archive}#caf\\xe9 \\n.png") == b"1"  # as tables of runs have it


def test_names_in_a_zip_that_are_not_what_they_claim(tmp_path):
    archive = zipped(tmp_path / "a.zip", {"aaaa.png": b"1", "bbbb.png": b"2", "cccc.png": b"3"})
    data = archive.read_bytes().replace(b"aaaa", b"caf\x82").replace(b"bbbb", "éé".encode())
    at = data.index(b"PK\x01\x02", data.index(b"cccc.png"))
    third = data.index(b"PK\x01\x02", data.index("éé".encode(), at))
    data = bytearray(data.replace(b"cccc", b"\xe9\xe9\xe9\xe9"))
    data[third + 8 : third + 10] = struct.pack("<H", 1 << 11)  # claims to be UTF-8
    archive.write_bytes(data)
    assert read_all(archive) == {
        "café.png": b"1",
        "éé.png": b"2",
        os.fsdecode(b"\xe9\xe9\xe9\xe9.png"): b"3",
    }


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_of_two_members_of_one_name_the_later_is_taken(tmp_path, suffix):
    class Twice(dict):
        def items(self):
            return [("a.png", b"old"), ("b.png", b"b"), ("a.png", b"new")]

    with pytest.warns(UserWarning) if suffix == ".zip" else open(os.devnull):
        archive = make(tmp_path / f"a{suffix}", Twice())
    sources = Sources()
    found = sources.find([archive])
    assert found.within == ["b.png", "a.png"]
    assert sources.read(f"{archive}#a.png") == b"new"
    assert "same name" in lost(archive)["a.png"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_methods_of_zip(tmp_path, method):
    assert read_all(zipped(tmp_path / "a.zip", FILES | {"0.png": b""}, method))["0.png"] == b""


def test_a_method_that_cannot_be_read_is_named(tmp_path):
    archive = zipped(tmp_path / "a.zip", {"a.png": b"1"}, zipfile.ZIP_LZMA)
    with pytest.raises(ImageError, match="method 14"):
        Sources().read(f"{archive}#a.png")


def test_a_zip_behind_another_program_and_with_a_comment(tmp_path):
    archive = zipped(tmp_path / "a.zip", FILES)
    with zipfile.ZipFile(archive, "a") as file:
        file.comment = b"PK\x05\x06 is what the end begins with" * 9
    archive.write_bytes(blob(1) + archive.read_bytes())
    assert read_all(archive) == FILES


def test_a_large_zip(tmp_path):
    """More members than 16 bits count, and an entry that says all sizes with 64 bits."""
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for number in range(65_540):
            file.writestr(f"{number}.png", b"")
        with file.open("last.png", "w", force_zip64=True) as member:
            member.write(b"last")
    found = Sources().find([archive])
    assert len(found.names) == 65_541
    assert Sources().read(found.names[-1]) == b"last"


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_of_every_kind_of_tar(tmp_path, form):
    length = 45 if form == tarfile.USTAR_FORMAT else 150
    files = {f"{'d' * length}/{'e' * length}/{n}.png": blob(n) for n in range(3)}
    assert read_all(tar(tmp_path / "a.tar", files, form=form)) == files


def test_a_tar_by_gnu_tar(tmp_path):
    if not shutil.which("tar"):
        pytest.skip("there is no tar")
    folder = tmp_path / "folder"
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    for options in ("-cf", "-czf"):
        subprocess.run(["tar", options, tmp_path / "a.tar", "-C", folder, "."], check=True)
        assert read_all(tmp_path / "a.tar") == FILES  # by what is in it, not by its suffix


def test_links_to_images_are_followed_within_the_archive(tmp_path):
    archive = tar(tmp_path / "a.tar.gz", {"b/a.png": b"1", "c.png": b"2"}, "w:gz")
    path = tmp_path / "b.tar.gz"
    with tarfile.open(archive) as old, tarfile.open(path, "w:gz") as new:
        for name, kind, target in (
            ("first.png", tarfile.SYMTYPE, "b/a.png"),
            ("b/soft.png", tarfile.SYMTYPE, "../c.png"),
            ("hard.png", tarfile.LNKTYPE, "b/a.png"),
            ("chain.png", tarfile.SYMTYPE, "hard.png"),
            ("out.png", tarfile.SYMTYPE, "/etc/passwd"),
            ("loop.png", tarfile.SYMTYPE, "loop.png"),
            ("pipe.png", tarfile.FIFOTYPE, ""),
            ("folder.png", tarfile.DIRTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            new.addfile(info)
        for member in old:
            new.addfile(member, old.extractfile(member))
    sources = Sources()
    found = sources.find([path])
    assert {m: sources.read(n) for n, m in zip(found.names, found.within, strict=True)} == {
        "b/a.png": b"1",
        "first.png": b"1",
        "hard.png": b"1",
        "chain.png": b"1",
        "c.png": b"2",
        "b/soft.png": b"2",
    }
    assert lost(path) == {
        "out.png": "a link to /etc/passwd, which is no image in it",
        "loop.png": "a link to loop.png, which is no image in it",
        "pipe.png": "neither a regular file nor a link to one",
    }


def test_links_in_a_zip_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        info = zipfile.ZipInfo("a.png")
        info.external_attr, info.create_system = 0o120777 << 16, 3
        file.writestr(info, "/etc/passwd")
    assert "symbolic link" in lost(tmp_path / "a.zip")["a.png"]


def test_a_file_with_holes_is_named_and_the_next_one_is_read(tmp_path):
    if not shutil.which("tar"):
        pytest.skip("there is no tar")
    with open(tmp_path / "holes.png", "wb") as file:
        for place in range(40):
            file.seek(place * 100_000)
            file.write(b"x" * 5000)
    (tmp_path / "next.png").write_bytes(b"next")
    for form in ("gnu", "posix"):
        command = ["tar", "-C", tmp_path, "-S", f"--format={form}", "-cf", tmp_path / "a.tar"]
        subprocess.run([*command, "holes.png", "next.png"], check=True)
        found = Sources().find([tmp_path / "a.tar"])
        assert Sources().read(f"{tmp_path}/a.tar#next.png") == b"next"
        if found.unreadable:  # file systems without holes make none in the archive
            assert list(lost(tmp_path / "a.tar")) == ["holes.png"]


# ---- what changes, and what does not


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_members_that_are_known_are_not_read_again(tmp_path, pictures, suffix, monkeypatch):
    files = {path.name: path.read_bytes() for path in sorted(pictures.iterdir())}
    archive = make(tmp_path / f"a{suffix}", files)
    os.utime(archive, (1e9, 1e9))
    table = Table()
    names = Sources().find([archive]).names
    first = survey(names, Sources(), table)
    assert [r.content for r in first] == [content_hash(data) for data in files.values()]
    assert [r.bytes for r in first] == [len(data) for data in files.values()]
    with monkeypatch.context() as patch:
        patch.setattr(Sources, "read", lambda *_: pytest.fail("a known image was read"))
        assert survey(names, Sources(), table) == first
    make(archive, {**files, "000.png": files["001.png"]})
    assert survey(names, Sources(), table)[0].content == first[1].content


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_an_archive_that_is_replaced_in_between(tmp_path, suffix):
    archive = make(tmp_path / f"a{suffix}")
    sources = Sources()
    names = sources.find([archive]).names
    make(tmp_path / f"b{suffix}", {name: data[::-1] for name, data in FILES.items()})
    (tmp_path / f"b{suffix}").replace(archive)
    assert sources.read(names[0]) == FILES["00.png"]  # the old one is open
    sources.close()
    with pytest.raises(ImageError, match="changed during the run"):
        sources.read(names[0])


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_members_and_archives_that_are_not_there(tmp_path, suffix):
    archive = make(tmp_path / f"a{suffix}")
    gone = tmp_path / f"gone{suffix}"
    names = [f"{archive}#none.png", f"{archive}#00.png", f"{gone}#00.png"]
    (tmp_path / f"e{suffix}").touch()
    (tmp_path / f"n{suffix}").write_bytes(b"none of them" * 99)
    broken = [f"{tmp_path}/{letter}{suffix}#00.png" for letter in "en"]
    records = survey([*names, *broken], Sources(), Table())
    errors = [record.error or "" for record in records]
    assert "no such image" in errors[0]
    assert "not an image" in errors[1]
    assert "No such file" in errors[2]
    assert errors[3] == "the file is empty"
    assert errors[4].startswith("not a ")


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_a_pipe_of_the_name_of_an_archive_is_not_waited_for(tmp_path, suffix):
    os.mkfifo(tmp_path / f"a{suffix}")
    assert lost(tmp_path / f"a{suffix}") == {"": "cannot be read: not a regular file"}


def test_a_folder_of_the_name_of_an_archive_is_a_folder(tmp_path):
    (tmp_path / "a.tar").mkdir()
    (tmp_path / "a.tar" / "a.png").touch()
    assert Sources().find([tmp_path / "a.tar"]).names == [str(tmp_path / "a.tar" / "a.png")]
