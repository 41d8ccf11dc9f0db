"""Zip and tar files as sources: every image of them, and a name for everything that is lost."""

import io
import lzma
import os
import pickle
import random
import shutil
import struct
import subprocess
import tarfile
import tracemalloc
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lpipstore.pipeline.images.decode import content_hash
from lpipstore.pipeline.images.survey import survey
from lpipstore.pipeline.sources.source import ImageError
from lpipstore.pipeline.sources.sources import Sources

KINDS = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}
ARCHIVES = [".zip", *KINDS]


def blob(seed: int, size: int = 3000) -> bytes:
    """Bytes that nothing can compress, as those of an image file."""
    return random.Random(seed).randbytes(size)


FILES = {f"{folder}{n:02}.png": blob(n, 700 + n) for n, folder in enumerate(["", "b/", "a/"] * 4)}


def tar(path: Path, files, mode="w", form=tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, mode, format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def zipped(path: Path, files, method=zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make(path: Path, files=FILES) -> Path:
    if path.suffix == ".zip":
        return zipped(path, files)
    return tar(path, files, next(mode for end, mode in KINDS.items() if path.name.endswith(end)))


def read_all(path: Path) -> dict[str, bytes]:
    """Find, check that nothing is lost, and read by member."""
    sources = Sources()
    found = sources.find([path])
    assert found.unreadable == []
    return {
        member: sources.read(name) for name, member in zip(found.names, found.within, strict=True)
    }


def lost(path: Path) -> dict[str, str]:
    """What a search says is lost, by the name behind the archive's."""
    return {
        name.removeprefix(str(path)).removeprefix("#"): reason
        for name, reason in Sources().find([path]).unreadable
    }


class Table:
    """A file table that remembers everything, in memory."""

    def __init__(self):
        self.known = {}

    def recall_files(self, files):
        return [self.known.get(file) for file in files]

    def remember_files(self, entries):
        self.known.update(entries)


# ---- what is in them


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


# ---- what is broken


def cut(path: Path, length: int) -> Path:
    os.truncate(path, length)
    return path


@pytest.mark.parametrize("where", ["data", "header", "boundary", "end mark"])
def test_a_truncated_tar(tmp_path, where):
    archive = tar(tmp_path / "a.tar", FILES)
    with tarfile.open(archive) as file:
        members = file.getmembers()
        end = file.offset
    fifth = members[5]
    cut(
        archive,
        {
            "data": fifth.offset_data + fifth.size - 1,
            "header": fifth.offset + 100,
            "boundary": fifth.offset,
            "end mark": end,
        }[where],
    )
    count = 12 if where == "end mark" else 5
    sources = Sources()
    found = sources.find([archive])
    assert found.within == list(FILES)[:count]
    assert [sources.read(name) for name in found.names] == list(FILES.values())[:count]
    reasons = lost(archive)
    assert list(reasons) == [""]
    assert reasons[""].startswith("truncated")
    assert f"the {count} images before that are read" in reasons[""]
    assert (fifth.name in reasons[""]) == (where == "data")


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.xz"])
def test_a_truncated_compressed_tar(tmp_path, suffix):
    files = {f"{n}.png": blob(n, 300_000) for n in range(9)}
    archive = make(tmp_path / f"a{suffix}", files)
    cut(archive, archive.stat().st_size // 2)
    sources = Sources()
    found = sources.find([archive])
    count = len(found.names)
    assert 0 < count < 9 and found.within == list(files)[:count]
    assert [sources.read(name) for name in found.names] == list(files.values())[:count]
    assert "truncated: the compressed stream ends early" in lost(archive)[""]


def test_a_compressed_tar_without_its_last_bytes(tmp_path):
    archive = make(tmp_path / "a.tar.gz")
    cut(archive, archive.stat().st_size - 4)
    assert Sources().find([archive]).within == list(FILES)
    assert "images in it may be wrong" in lost(archive)[""]


def test_a_flipped_bit_in_a_compressed_tar_is_seen(tmp_path):
    archive = make(tmp_path / "a.tar.gz", {"a.png": blob(1, 200_000)})
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    assert "CRC" in lost(archive)[""] or "damaged" in lost(archive)[""]


def test_a_damaged_header_in_a_tar_ends_it_with_a_word(tmp_path):
    archive = tar(tmp_path / "a.tar", FILES)
    with tarfile.open(archive) as file:
        place = file.getmembers()[4].offset
    data = bytearray(archive.read_bytes())
    data[place : place + 8] = b"damaged!"
    archive.write_bytes(data)
    assert Sources().find([archive]).within == list(FILES)[:4]
    assert lost(archive)[""].startswith(f"damaged: there is no header at byte {place:,}")


@pytest.mark.parametrize("size", [b"\xff" * 12, b"\x80" + b"\xff" * 11, b"77777777777\0"])
def test_sizes_in_a_tar_that_cannot_be(tmp_path, size):
    archive = tar(tmp_path / "a.tar", {"a.png": b"1", "b.png": b"2"})
    data = bytearray(archive.read_bytes())
    data[1024 + 124 : 1024 + 136] = size
    data[1024 + 148 : 1024 + 156] = b" " * 8
    data[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(data[1024:1536])
    archive.write_bytes(data)
    assert Sources().find([archive]).within == ["a.png"]
    assert list(lost(archive)) == [""]


def test_a_zip_without_its_directory_gives_what_is_at_its_beginning(tmp_path):
    archive = zipped(tmp_path / "a.zip", FILES)
    with zipfile.ZipFile(archive) as file:
        fifth = file.infolist()[5]
    cut(archive, fifth.header_offset + 200)
    sources = Sources()
    found = sources.find([archive])
    assert found.within == list(FILES)[:5]
    assert [sources.read(name) for name in found.names] == list(FILES.values())[:5]
    assert list(lost(archive)) == [""]
    assert lost(archive)[""].startswith("truncated: the directory at its end is missing; 5 members")


def test_a_zip_from_a_pipe_without_its_directory(tmp_path):
    class Pipe(io.RawIOBase):
        def __init__(self):
            self.data = bytearray()

        def writable(self):
            return True

        def write(self, data):
            self.data += data
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w") as file:
        file.writestr("a.png", b"1")
    (tmp_path / "a.zip").write_bytes(pipe.data)
    assert read_all(tmp_path / "a.zip") == {"a.png": b"1"}
    (tmp_path / "a.zip").write_bytes(pipe.data[:-10])
    assert "does not say where it ends" in lost(tmp_path / "a.zip")[""]


def test_a_damaged_directory_of_a_zip(tmp_path):
    archive = zipped(tmp_path / "a.zip", FILES)
    data = bytearray(archive.read_bytes())
    place = -1
    for _ in range(8):
        place = data.index(b"PK\x01\x02", place + 1)
    data[place : place + 4] = b"oops"
    archive.write_bytes(data)
    assert Sources().find([archive]).within == list(FILES)[:7]
    assert lost(archive) == {"": "its directory is damaged: 5 of 12 entries are lost"}


def test_images_in_a_zip_that_are_damaged(tmp_path):
    archive = zipped(tmp_path / "a.zip", FILES)
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as file:
        wrong, torn, moved = file.infolist()[2:5]
    data[wrong.header_offset + 300] ^= 1
    data[torn.header_offset + 36 : torn.header_offset + 46] = b"\xff" * 10
    data[moved.header_offset : moved.header_offset + 4] = b"oops"
    archive.write_bytes(data)
    sources = Sources()
    for info, reason in ((wrong, "checksum|damaged"), (torn, "damaged"), (moved, "not where")):
        with pytest.raises(ImageError, match=reason):
            sources.read(f"{archive}#{info.filename}")
    assert sources.read(f"{archive}#{list(FILES)[9]}") == FILES[list(FILES)[9]]


def patched(archive: Path, **fields: int) -> Path:
    """Change fields of the first entry of the directory of a zip, by their offsets in it."""
    places = {"flags": (8, "<H"), "crc": (16, "<L"), "stored": (20, "<L"), "size": (24, "<L")}
    data = bytearray(archive.read_bytes())
    start = data.index(b"PK\x01\x02")
    for name, value in fields.items():
        place, form = places[name]
        struct.pack_into(form, data, start + place, value)
    archive.write_bytes(data)
    return archive


def test_an_encrypted_image_is_named_and_the_others_are_read(tmp_path):
    archive = patched(zipped(tmp_path / "a.zip", FILES), flags=1)
    assert len(Sources().find([archive]).names) == 11
    assert lost(archive) == {"00.png": "encrypted: unpack it with its password first"}


def test_an_encrypted_zip_is_one_message(tmp_path):
    archive = patched(zipped(tmp_path / "a.zip", {"a.png": b"1"}), flags=1)
    assert lost(archive) == {"": "its 1 images are encrypted: unpack it with its password first"}


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        (1000, "contradict each other"),
        (100_000, "longer than the 100,000 bytes that the archive declares"),
        (60_000_000, "checksum"),
        (600_000_000, "an image has at most 536,870,912"),
        (0xFFFFFFFE, "an image has at most 536,870,912"),
    ],
)
def test_bombs(tmp_path, declared, reason):
    archive = zipped(tmp_path / "a.zip", {"a.png": bytes(50_000_000)})
    with pytest.raises(ImageError, match=reason):
        Sources().read(f"{patched(archive, size=declared)}#a.png")


def test_a_bomb_is_not_unpacked_beyond_what_it_declares(tmp_path):
    archive = patched(zipped(tmp_path / "a.zip", {"a.png": bytes(200_000_000)}), size=300_000)
    sources = Sources()
    sources.find([archive])
    tracemalloc.start()
    with pytest.raises(ImageError, match="bomb"):
        sources.read(f"{archive}#a.png")
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_sizes_in_a_zip_that_contradict_each_other(tmp_path):
    archive = zipped(tmp_path / "a.zip", FILES, zipfile.ZIP_STORED)
    with pytest.raises(ImageError, match="contradict"):
        Sources().read(f"{patched(archive, stored=0xFFFFFFF0)}#00.png")


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_no_byte_that_is_wrong_makes_more_than_an_error(tmp_path, suffix):
    """Flip and cut bytes at random: errors of ours, and never an image that is another."""
    archive = make(tmp_path / f"a{suffix}", {f"{n}.png": blob(n, 300) for n in range(4)})
    data, draw = archive.read_bytes(), random.Random(3)
    for _ in range(300):
        broken = bytearray(data[: draw.choice([len(data), draw.randrange(len(data))])])
        for _ in range(draw.randrange(6)):
            if broken:
                broken[draw.randrange(len(broken))] = draw.randrange(256)
        archive.write_bytes(broken)
        sources = Sources()
        found = sources.find([archive])
        for name in found.names:
            try:
                image = sources.read(name)
            except ImageError:
                continue
            if suffix == ".zip" and not found.unreadable:
                assert zlib.crc32(image) in [zlib.crc32(blob(n, 300)) for n in range(4)]


def test_a_stream_of_zeros_is_no_archive(tmp_path):
    (tmp_path / "a.tar.xz").write_bytes(lzma.compress(bytes(1 << 20)))
    found = Sources().find([tmp_path / "a.tar.xz"])
    assert found.names == []
    assert found.unreadable == [(str(tmp_path / "a.tar.xz"), "there are no images in it")]


def test_the_folder_of_a_member_outlives_its_archive(tmp_path):
    from lpipstore.pipeline.sources.names import folder_of

    gone = str(tmp_path / "gone.tar")
    assert folder_of(f"{gone}#a.png") == gone
    assert folder_of(f"{gone}#cats/a.png") == f"{gone}#cats"
    assert folder_of(str(tmp_path / "a#b.png")) == str(tmp_path)
