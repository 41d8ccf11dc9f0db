"""Containers that are broken or mean harm: one message each, and what can be read is scored."""

import io
import json
import os
import struct
import tarfile
import zipfile

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

import lpipstore

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")
COUNT = 8


def _packed(place, paths, mode="w"):
    if place.suffix == ".zip":
        with zipfile.ZipFile(place, "w") as archive:
            for path in paths:
                archive.write(path, path.name)
    else:
        with tarfile.open(place, mode) as archive:
            for path in paths:
                archive.add(path, path.name)
    return place


def truncated_tar(place, paths):
    cut = _packed(place / "a.tar", paths)
    with tarfile.open(cut) as archive:
        offset = archive.getmembers()[5].offset_data
    os.truncate(cut, offset + 10)
    return cut


def truncated_tar_gz(place, paths):
    cut = _packed(place / "a.tar.gz", paths, "w:gz")
    os.truncate(cut, cut.stat().st_size * 2 // 3)
    return cut


def truncated_zip(place, paths):
    cut = _packed(place / "a.zip", paths)
    with zipfile.ZipFile(cut) as archive:
        offset = archive.infolist()[5].header_offset
    os.truncate(cut, offset + 40)
    return cut


def short_video(place, paths):
    clip = place / "a.mkv"
    with av.open(str(clip), "w") as file:
        stream = file.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "bgr0"
        for path in paths:
            pixels = np.asarray(Image.open(path).convert("RGB"))
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        file.mux(stream.encode(None))
    os.truncate(clip, clip.stat().st_size * 2 // 3)
    return clip


def wrong_column(place, paths):
    table = pa.table({"image": [path.name for path in paths], "label": [*range(len(paths))]})
    pa.parquet.write_table(table, place / "a.parquet")
    return place / "a.parquet"


def object_array(place, paths):
    np.savez(place / "a.npz", np.array([{"image": str(path)} for path in paths], object))
    return place / "a.npz"


def _bomb(place, paths, declared):
    """An archive whose last member has 50 MB of zeros, and says that it has `declared` bytes."""
    bomb = _packed(place / "a.zip", paths)
    with zipfile.ZipFile(bomb, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(50_000_000))
    content = bytearray(bomb.read_bytes())
    struct.pack_into("<L", content, content.rindex(b"PK\x01\x02") + 24, declared)
    bomb.write_bytes(content)
    return bomb


def zip_bomb(place, paths):
    return _bomb(place, paths, 3_000_000_000)


def zip_bomb_that_lies(place, paths):
    return _bomb(place, paths, 60_000)


def array_bomb(place, paths):
    """A few bytes that say they are a million images."""
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 64, 64, 3), }"
    data = np.lib.format.magic(1, 0) + struct.pack("<H", len(header)) + header.encode()
    with zipfile.ZipFile(place / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", data)
    return place / "a.npz"


def escaping_names(place, paths, suffix):
    names = ["/absolute.png", "../up.png", "../../../../up.png", "sub/../../x.png", "ok.png"]
    archive = place / f"a{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            for name, path in zip(names, paths, strict=False):
                file.writestr(name, path.read_bytes())
    else:
        with tarfile.open(archive, "w") as file:
            for name, path in zip(names, paths, strict=False):
                info = tarfile.TarInfo(name)
                info.size = path.stat().st_size
                file.addfile(info, io.BytesIO(path.read_bytes()))
            link = tarfile.TarInfo("link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            file.addfile(link)
    return archive


def escaping_tar(place, paths):
    return escaping_names(place, paths, ".tar")


def escaping_zip(place, paths):
    return escaping_names(place, paths, ".zip")


def encrypted_zip(place, paths):
    """The flags alone, as Python encrypts nothing."""
    locked = _packed(place / "a.zip", paths)
    content = bytearray(locked.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(signature)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(signature, at + 1)
    locked.write_bytes(content)
    return locked


def no_zip(place, paths):
    (place / "a.zip").write_bytes(b"<html>404 not found</html>" * 50)
    return place / "a.zip"


def empty_file(place, paths):
    (place / "a.tar").touch()
    return place / "a.tar"


def empty_zip(place, paths):
    return _packed(place / "a.zip", [])


def empty_tar(place, paths):
    return _packed(place / "a.tar", [])


def empty_table(place, paths):
    table = pa.table({"image": pa.array([], pa.binary())})
    pa.parquet.write_table(table, place / "a.parquet")
    return place / "a.parquet"


def list_with_gap(place, paths):
    names = [paths[0], place / "gone.png", paths[1]]
    (place / "list.txt").write_text("".join(f"{name}\n" for name in names))
    return f"@{place / 'list.txt'}"


def list_with_lost_archive(place, paths):
    (place / "list.txt").write_text(f"{place / 'gone.tar'}\n{paths[0]}\n")
    return f"@{place / 'list.txt'}"


def dead_url(place, paths):
    return "http://127.0.0.1:9/a.png"


CASES = (
    (truncated_tar, 5, "a.tar is read in part: truncated in the middle of 005.png; the 5 images"),
    (truncated_tar_gz, 5, "a.tar.gz is read in part: truncated: the compressed stream ends early"),
    (truncated_zip, 5, "a.zip is read in part: truncated: the directory at its end is missing"),
    (short_video, 5, "a.mkv is read in part: ends early, after t=0.4: the file lacks its last"),
    (wrong_column, 0, "a.parquet is left out: no column can hold images"),
    (object_array, 0, "a.npz is left out: an array of Python objects, which is never loaded"),
    (zip_bomb, COUNT, "a.zip#bomb.png is left out: refused as a decompression bomb: it declares"),
    (zip_bomb_that_lies, COUNT, "a.zip#bomb.png is left out: refused as a decompression bomb: it"),
    (array_bomb, 0, "a.npz is left out: the file ends before the first image does"),
    (escaping_tar, 5, "a.tar#link.png is left out: a link to /etc/passwd, which is no image in it"),
    (escaping_zip, 5, None),
    (encrypted_zip, 0, "a.zip is left out: its 8 images are encrypted: unpack it with its"),
    (no_zip, 0, "a.zip is left out: not a zip file"),
    (empty_file, 0, "a.tar is left out: the file is empty"),
    (empty_zip, 0, "a.zip is left out: there are no images in it"),
    (empty_tar, 0, "a.tar is left out: there are no images in it"),
    (empty_table, 0, "a.parquet is left out: there are no images in it"),
    (list_with_gap, 2, "gone.png is left out: cannot be read: No such file or directory"),
    (list_with_lost_archive, 1, "gone.tar is left out: cannot be read: No such file or directory"),
    (dead_url, 0, "a.png is left out: cannot be read: the server cannot be reached"),
)
"""What makes a container, the images of it that can be read, and the one message about it."""


def tree(folder):
    """All files below a folder, but those of the run and the store, with their bytes."""
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if not {"run", "store"} & set(path.relative_to(folder).parts)
    }


NAMES = [case[0].__name__ for case in CASES]


@pytest.fixture
def deep(tmp_path, monkeypatch):
    """A working directory from which some ``..`` lead to folders of the test."""
    folder = tmp_path / "a" / "b" / "c" / "d" / "e"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(("make", "read", "message"), CASES, ids=NAMES)
def test_what_is_broken_is_named_and_the_others_are_scored(
    cli, pictures, tmp_path, deep, make, read, message
):
    broken = make(deep, sorted(pictures.iterdir()))
    before = tree(tmp_path)
    command = ("pairs", pictures, broken, *MODEL, "--out", tmp_path / "run")
    outcome = cli(*command, "--json")
    assert outcome.code == 0, outcome.err
    warnings = [line for line in outcome.err.splitlines() if line.startswith("warning: ")]
    warnings = [line for line in warnings if "the trunk is untrained" not in line]
    wrong = [] if message is None else [message]
    assert len(warnings) == len(wrong), warnings
    assert message is None or message in warnings[0]
    summary = json.loads(outcome.out)
    new = 0 if make in (list_with_gap, list_with_lost_archive) else read
    assert (summary["images"], summary["failed"]) == (COUNT + new, len(wrong))
    run = lpipstore.open_run(tmp_path / "run")
    assert [error is None for error in run.images["error"].to_pylist()].count(False) == len(wrong)
    assert np.isfinite(run.distances[:COUNT, :COUNT].compute()).all()
    assert cli(*command, "--strict").code == len(wrong)
    assert tree(tmp_path) == before
    assert not os.path.lexists("/absolute.png")


@pytest.mark.parametrize(("make", "read", "message"), CASES, ids=NAMES)
def test_alone_it_gives_what_can_be_read(cli, pictures, tmp_path, deep, make, read, message):
    broken = make(deep, sorted(pictures.iterdir()))
    outcome = cli("pairs", broken, *MODEL, "--out", tmp_path / "run", "--json")
    if read > 1:
        assert json.loads(outcome.out)["images"] == read
    else:
        reason = message.partition(": ")[2]
        assert reason in " ".join(outcome.err.split())
        assert not (tmp_path / "run" / "summary.json").exists()
    assert outcome.code == (0 if read > 1 else 1)


def test_a_prefix_that_cannot_be_listed_stops_the_run(cli, s3, pictures, tmp_path, monkeypatch):
    """Nobody knows what a run without it would be a run of; the same command goes on later."""
    place = s3.upload(pictures, "photos")
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        patch.setattr("lpipstore.pipeline.sources.formats.objects._PAUSES", ())
        outcome = cli("pairs", pictures, place, *MODEL, "--out", tmp_path / "run")
    assert outcome.code == 1
    assert f"{place} cannot be listed: the server cannot be reached" in " ".join(
        outcome.err.split()
    )
    assert not (tmp_path / "run").exists()
    assert cli("pairs", pictures, place, *MODEL, "--out", tmp_path / "run").code == 0
