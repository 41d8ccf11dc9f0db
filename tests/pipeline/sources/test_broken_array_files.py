"""Files of arrays that are damaged, cut short or not what they say."""

import os
import tracemalloc
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpipstore.pipeline.sources.source import ImageError
from tests.pipeline.sources.arrays import (
    UNIT,
    colours,
    header,
    random_bytes,
    read_all,
    refusal,
    source_of,
    write,
)


def test_not_what_the_name_says(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"")
    assert "empty" in refusal(path)
    path.write_bytes(b"no array at all")
    assert "neither" in refusal(path)
    path.write_bytes(b"PK no zip at all")
    assert "not a zip file" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"x")
    assert "without NumPy arrays" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", b"not an array")
    assert "broken header" in refusal(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("arr_0.npy", b"0" * 1000)
    assert "savez" in refusal(path)
    np.save(path.with_suffix(".npy"), colours())
    os.rename(path.with_suffix(".npy"), path)
    assert len(read_all(source_of(path))) == 5


def test_an_encrypted_zip(tmp_path):
    path = write(tmp_path / "a.npz", colours())
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\x01\x02")
    data[place + 8] |= 1
    path.write_bytes(data)
    assert "encrypted" in refusal(path)


@pytest.mark.parametrize(
    "text",
    [
        header((2, 6, 7, 3), version=b"\x03\x00"),
        header((2, 6, 7, 3), version=b"\x09\x00"),
        header((-2, 6, 7, 3)),
        header("(" * 300),
        header((2, 6, 7, 3), descr="'nonsense'"),
        header((2.5, 6, 7, 3)),
        header("'" + "x" * 20_000 + "'"),
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}",
        b"\x93NUMPY\x01\x00",
        header((2, 6, 7, 3))[:30],
    ],
)
def test_broken_headers(tmp_path, text):
    path = tmp_path / "a.npy"
    path.write_bytes(text)
    assert "\n" not in refusal(path)


@given(data=st.data())
def test_damaged_files_give_images_or_reasons(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    write(path, colours(), pack=data.draw(st.booleans()))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[: cut if data.draw(st.booleans()) else None])
    source = source_of(path, UNIT)
    try:
        listing = source.list()
    except ImageError:
        return
    for member in listing.members[:10]:
        with suppress(ImageError):
            assert source.read(member).shape[2] == 3
    source.close()


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_a_file_cut_short_has_the_images_before_its_end(tmp_path, kind):
    images = colours(50)
    path = write(tmp_path / f"a.{kind}", images)
    path.write_bytes(path.read_bytes()[: len(images.tobytes()) // 2])
    source = source_of(path)
    listing = source.list()
    count = len(listing.members)
    assert 20 <= count < 25
    for member in listing.members:
        np.testing.assert_array_equal(source.read(member).numpy(), images[int(member)])
    assert [name for name, _ in listing.unreadable] == [f"{path}#{k}" for k in range(count, 50)]
    assert all(f"ends after {count} of 50" in reason for _, reason in listing.unreadable)
    with pytest.raises(ImageError, match="ends after"):
        source.read(str(count))


def test_a_compressed_file_cut_short(tmp_path):
    images = colours(50)
    path = write(tmp_path / "a.npz", images, pack=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = source_of(path)
    good, bad = [], []
    for member in source.list().members:
        try:
            np.testing.assert_array_equal(source.read(member).numpy(), images[int(member)])
            good.append(int(member))
        except ImageError as error:
            assert "end before it" in str(error)
            bad.append(int(member))
    assert good == list(range(len(good)))
    assert 20 <= len(good) < 30
    assert bad == list(range(len(good), 50))
    np.testing.assert_array_equal(source.read("0").numpy(), images[0])


@pytest.mark.parametrize("cut", [0, 30])
def test_compressed_data_that_end_before_the_array(tmp_path, cut):
    images = colours(10)
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", header((12, 6, 7, 3)) + images.tobytes())
        archive.writestr("other.txt", random_bytes(100))
    content = bytearray(path.read_bytes())
    if cut:  # without the list of members, what follows is taken for the array's data
        content[18:22] = bytes(4)
        content = content[:-cut]
    path.write_bytes(content)
    source = source_of(path)
    np.testing.assert_array_equal(source.read("9").numpy(), images[9])
    for member in ("10", "11", "10"):
        with pytest.raises(ImageError, match="end"):
            source.read(member)


@pytest.mark.parametrize("order", "CF")
def test_compressed_data_that_are_are_damaged(tmp_path, order):
    """Deflate would go on with wrong pixels."""
    images = np.array(colours(50) // 64, order=order)
    path = write(tmp_path / "a.npz", images, pack=True)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes([0xFF]) * 200
    path.write_bytes(data)
    source = source_of(path)
    for member in ("49", "10"):
        with pytest.raises(ImageError, match="checksum"):
            source.read(member)


def test_the_end_of_a_file_in_fortran_order(tmp_path):
    path = write(tmp_path / "a.npy", np.asfortranarray(colours()))
    path.write_bytes(path.read_bytes()[:-1])
    assert "Fortran" in refusal(path)
    path = write(tmp_path / "b.npy", colours(1))
    path.write_bytes(path.read_bytes()[:-1])
    assert "before the first image" in refusal(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("cut", [False, True])
def test_a_trillion_images_that_are_not_there(tmp_path, method, cut):
    path = tmp_path / "bomb.npz"
    images = colours(20)
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("arr_0.npy", header((10**12, 6, 7, 3)) + images.tobytes())
    if cut:
        path.write_bytes(path.read_bytes()[:-60])
    tracemalloc.start()
    source = source_of(path)
    listing = source.list()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
    np.testing.assert_array_equal(source.read("19").numpy(), images[19])
    (unreadable,) = listing.unreadable
    assert unreadable[0] == str(path)
    assert "of 1,000,000,000,000 images" in unreadable[1]


def test_zeros_that_were_compressed_a_thousandfold(tmp_path):
    path = write(tmp_path / "a.npz", np.zeros((4000, 64, 64, 3), np.uint8), pack=True)
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    source = source_of(path)
    assert len(source.list().members) == 4000
    assert not source.read("3999").any()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6
