"""Images in .npy and .npz files: layouts, orders, what is refused."""

import io
import os
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from lpipstore.pipeline.images.loader import decode_images
from lpipstore.pipeline.images.preparation import Preparation
from lpipstore.pipeline.images.survey import survey
from lpipstore.pipeline.sources.arrays import pixels_content, take_image
from lpipstore.pipeline.sources.formats import stored_arrays, stored_bytes
from lpipstore.pipeline.sources.kinds.array_files import ArrayFile
from lpipstore.pipeline.sources.source import ImageError, SourceOptions
from lpipstore.pipeline.sources.sources import Sources
from tests.pipeline.sources.arrays import (
    KINDS,
    LAYOUTS,
    UNIT,
    NoTable,
    colours,
    header,
    read_all,
    refusal,
    source_of,
    write,
)


@given(
    layout=st.sampled_from(sorted(LAYOUTS)),
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from(["|u1", "<f2", ">f2", "<f4", ">f4", "<f8", ">f8"]),
    order=st.sampled_from("CF"),
    shape=st.tuples(st.integers(1, 9), st.integers(5, 8), st.integers(5, 8)),
    block=st.sampled_from([1, 700, 1 << 20]),
    span=st.sampled_from([1, 100, 1 << 16]),
    numbers=st.lists(st.integers(0, 8), max_size=6),
)
def test_every_layout_dtype_and_order(
    tmp_path_factory, layout, kind, dtype, order, shape, block, span, numbers
):
    assume(layout != "grey" or shape[0] != 3)  # it may be one image
    original = colours(*shape)
    array = LAYOUTS[layout](original)
    if dtype != "|u1":
        array = (array / 255).astype(dtype)
    array = np.array(array, order=order)
    grey = "grey" in layout
    folder = tmp_path_factory.getbasetemp()
    path = folder / f"any.{'npy' if kind == 'npy' else 'npz'}"
    write(path, array, pack=kind == "packed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_arrays, "_BLOCK", block)
        patch.setattr(stored_arrays, "_SPAN", span)
        source = source_of(path, UNIT)
        images = read_all(source)
        for number in numbers:  # in any order
            if number < shape[0]:
                again = source.read(str(number)).numpy()
                np.testing.assert_array_equal(again, images[number])
        source.close()
    assert len(images) == shape[0]
    for image, pixels in zip(images, original, strict=True):
        wanted = np.repeat(pixels[..., :1], 3, axis=2) if grey else pixels
        if dtype == "|u1":
            assert image.dtype == np.uint8
            np.testing.assert_array_equal(image, wanted)
        else:
            native = (wanted / 255).astype(np.dtype(dtype).newbyteorder("="))
            assert image.dtype == np.float32
            np.testing.assert_array_equal(image, take_image(native, (0, 1)).numpy())


@pytest.mark.parametrize("channels", [1, 3])
def test_one_image(tmp_path, channels):
    image = colours(1)[0][..., :channels]
    (found,) = read_all(source_of(write(tmp_path / "one.npy", image)))
    np.testing.assert_array_equal(found, np.broadcast_to(image, (6, 7, 3)))


def test_three_goes_before_one_and_the_last_axis_before_the_second(tmp_path):
    square = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 3), np.uint8)
    np.testing.assert_array_equal(read_all(source_of(write(tmp_path / "a.npy", square))), square)
    flat = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 1), np.uint8)
    assert read_all(source_of(write(tmp_path / "b.npy", flat)))[0].shape == (5, 1, 3)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 6, 7), np.uint8), ("one image or three greyscale", "[1, 3, 6, 7]")),
        (np.zeros((2, 6, 7, 4), np.uint8), ("4 channels", "save 3 channels")),
        (np.zeros((2, 4, 6, 7), np.uint8), ("4 channels", "latents")),
        (np.zeros((6, 7, 4), np.uint8), ("4 channels",)),
        (np.zeros((2, 6, 7, 5), np.uint8), ("[2, 6, 7, 5]", "[N, height, width, 3]")),
        (np.zeros((6, 7), np.uint8), ("[6, 7]", "[height, width, 3]")),
        (np.zeros((), np.uint8), ("[]",)),
        (np.zeros((0, 6, 7, 3), np.uint8), ("empty", "[0, 6, 7, 3]")),
        (np.zeros((2, 0, 7, 3), np.uint8), ("empty",)),
        (np.zeros((2, 6, 7, 3), np.int64), ("uint8", "not int64")),
        (np.zeros((2, 6, 7, 3), bool), ("not bool",)),
        (np.zeros((2, 6, 7, 3), np.int8), ("not int8",)),
        (np.zeros((2, 6, 7, 3), np.complex64), ("not complex64",)),
        (np.zeros((2, 6, 7, 3), np.longdouble), ("not float128",)),
        (np.zeros((2, 6, 7), [("r", "u1"), ("g", "u1")]), ("uint8",)),
        (np.array([{}, "text"], object), ("Python objects", "never loaded")),
        (np.full((2, 6, 7, 3), 0.25, np.float32), ("value_range", "0.25 to 0.25")),
    ],
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_refused(tmp_path, array, words, suffix):
    reason = refusal(write(tmp_path / f"bad.{suffix}", array))
    assert all(word in reason for word in words), reason


def test_values_outside_the_range_are_refused_singly(tmp_path):
    array = np.zeros((3, 6, 7, 3), np.float32)
    array[1, 0, 0, 0] = 2
    array[2, 0, 0, 0] = np.nan
    source = source_of(write(tmp_path / "a.npz", array), UNIT)
    assert source.list().members == ["0", "1", "2"]
    assert float(source.read("0").max()) == -1
    for member in "12":
        with pytest.raises(ImageError, match="value_range"):
            source.read(member)


def test_a_value_range_changes_nothing_for_uint8(tmp_path):
    path = write(tmp_path / "a.npy", colours())
    one, two = source_of(path), source_of(path, UNIT)
    assert one.version("2") == two.version("2")
    assert torch.equal(one.read("2"), two.read("2"))


def test_an_absurd_image_is_a_bomb(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(header((1, 10**6, 10**6, 3)))
    assert "decompression bomb: images of 1000000×1000000" in refusal(path)


def test_the_array_of_several(tmp_path):
    images, labels = colours(), np.arange(5)
    evaluator = write(tmp_path / "a.npz", images, labels)
    np.testing.assert_array_equal(read_all(source_of(evaluator)), images)
    named = write(tmp_path / "b.npz", labels=labels, whatever=images)
    np.testing.assert_array_equal(read_all(source_of(named)), images)
    chosen = write(tmp_path / "c.npz", other=colours(seed=1), samples=images)
    np.testing.assert_array_equal(read_all(source_of(chosen)), images)
    objects = write(tmp_path / "d.npz", images, np.array([{}], object))
    np.testing.assert_array_equal(read_all(source_of(objects)), images)
    assert "(one, two)" in refusal(write(tmp_path / "e.npz", one=images, two=images))
    singles = refusal(write(tmp_path / "f.npz", images[0], images[1]))
    assert "(arr_0, arr_1)" in singles
    assert "one array [N, height, width, 3]" in singles
    none = refusal(write(tmp_path / "g.npz", a=labels, b=np.zeros((2, 2), np.uint8)))
    assert "a: " in none
    assert "b: " in none


def test_reads_behind_the_position_begin_at_a_mark(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_bytes, "_MARK_EVERY", 2000)
    images = colours(400)
    source = source_of(write(tmp_path / "a.npz", images, pack=True))
    for number in [399, *np.random.default_rng(0).integers(0, 400, 200).tolist()]:
        np.testing.assert_array_equal(source.read(str(number)).numpy(), images[number])
    assert source.sequential


@pytest.mark.parametrize("member", ["5", "-1", "01", "1_0", "", "x", "1.0", "٣", "9" * 30])
def test_no_such_image(tmp_path, member):
    source = source_of(write(tmp_path / "a.npz", colours()))
    with pytest.raises(ImageError, match="0 to 4"):
        source.read(member)


def test_versions(tmp_path):
    path = write(tmp_path / "a.npy", colours() / 255)
    unit, signed = source_of(path, UNIT), source_of(path, SourceOptions(value_range=(-1.0, 1.0)))
    versions = {source.version(member).path for source in (unit, signed) for member in "01"}
    assert len(versions) == 4
    assert unit.version("0").size == path.stat().st_size
    before = unit.version("0")
    write(path, colours(6) / 255)
    assert unit.version("0") == before  # what is open stays the same
    unit.close()
    assert unit.version("0") != before
    gone = source_of(tmp_path / "none.npz")
    assert not gone.sequential
    with pytest.raises(OSError, match="No such file"):
        gone.version("0")
    with pytest.raises(ImageError, match="No such file"):
        gone.read("0")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.npy")
    assert "not a regular file" in refusal(tmp_path / "a.npy")


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    path = write(tmp_path / "a.npy", colours(5000))
    source = source_of(path)
    source.list()
    os.truncate(path, 10_000)
    with pytest.raises(ImageError, match="ends in the middle"):
        source.read("4999")
    assert source.read("1").shape == (6, 7, 3)


def test_a_folder_of_that_name_is_a_folder(tmp_path):
    (tmp_path / "a.npz").mkdir()
    assert not ArrayFile.takes(str(tmp_path / "a.npz"))
    assert ArrayFile.takes("there/is/none.NPY")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("workers", [0, 2])
def test_the_whole_way(tmp_path, kind, order, workers):
    images = colours(300)
    path = tmp_path / f"a.{'npy' if kind == 'npy' else 'npz'}"
    write(path, np.array(images, order=order), pack=kind == "packed")
    sources = pickle.loads(pickle.dumps(Sources()))
    found = sources.find([path])
    assert found.names[17] == f"{path}#17"
    assert found.within[17] == "17"
    copy = pickle.loads(pickle.dumps(sources))
    records = survey(found.names, copy, NoTable())
    assert [r.content for r in records] == [pixels_content(torch.from_numpy(i)) for i in images]
    assert {(r.width, r.height, r.bytes) for r in records} == {(7, 6, 126)}
    listed = [(r.path, r.content) for r in records]
    batches = list(decode_images(listed, copy, Preparation((6, 7)), 16, workers))
    np.testing.assert_array_equal(np.concatenate([b.pixels.numpy() for b in batches]), images)
    for each in (sources, copy):
        each.close()


@pytest.mark.parametrize("kind", KINDS)
def test_threads_share_a_source(tmp_path, kind):
    images = colours(200)
    path = tmp_path / f"a.{'npy' if kind == 'npy' else 'npz'}"
    source = source_of(write(path, images, pack=kind == "packed"))
    numbers = np.random.default_rng(1).integers(0, 200, 1000).tolist()
    with ThreadPoolExecutor(8) as pool:
        for number, found in zip(numbers, pool.map(source.read, map(str, numbers)), strict=True):
            np.testing.assert_array_equal(found.numpy(), images[number])
    source.close()
    assert source.read("3").shape == (6, 7, 3)  # it opens again


def test_an_array_in_a_zip_that_was_written_as_a_stream(tmp_path):
    """Such a zip has the sizes of its members behind them."""

    class Pipe(io.RawIOBase):
        def __init__(self):
            self.data = b""

        def writable(self):
            return True

        def write(self, data):
            self.data += bytes(data)
            return len(data)

    images, pipe = colours(50), Pipe()
    with zipfile.ZipFile(pipe, "w") as archive:
        archive.writestr("arr_0.npy", header(images.shape) + images.tobytes())
        archive.writestr("arr_1.npy", header((50,)) + bytes(50))
    path = tmp_path / "a.npz"
    path.write_bytes(pipe.data)
    np.testing.assert_array_equal(read_all(source_of(path)), images)
    path.write_bytes(pipe.data[:4000])
    assert len(source_of(path).list().members) > 20
