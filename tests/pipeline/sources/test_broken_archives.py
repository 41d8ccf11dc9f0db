"""Zip and tar files that are broken: what can be read is, and what is lost is named."""

import io
import lzma
import os
import random
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest

from lpipstore.pipeline.sources.source import ImageError
from lpipstore.pipeline.sources.sources import Sources
from tests.pipeline.sources.archives import (
    FILES,
    blob,
    lost,
    make,
    read_all,
    tar,
    zipped,
)


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
