"""Finding, naming and decoding images: every colour mode, every kind of broken file."""

import io
import os
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from lpipstore.cache.errors import UsageError
from lpipstore.pipeline.images.decode import content_hash, decode, decode_small, read_header
from lpipstore.pipeline.images.preparation import Preparation
from lpipstore.pipeline.images.survey import survey
from lpipstore.pipeline.sources.source import ImageError
from lpipstore.pipeline.sources.sources import Sources


def size_of(data: bytes) -> tuple[int, int]:
    header = read_header(data)
    return header.width, header.height


class Table:
    """A file table that remembers everything, in memory."""

    def __init__(self):
        self.known = {}

    def recall_files(self, files):
        return [self.known.get(file) for file in files]

    def remember_files(self, entries):
        self.known.update(entries)


def encoded(image, form="PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def gradient(height=6, width=9):
    return np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)


# ---- finding


def touch(folder: Path, *names: str) -> list[str]:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return [str(folder / name) for name in names]


def test_folders_are_searched_in_order_with_subfolders(tmp_path):
    touch(tmp_path, "b/2.png", "b/10.JPG", "a.webp", "c.txt", "b/.hidden.png", ".git/x.png")
    found = Sources().find([tmp_path])
    assert found.names == [str(tmp_path / name) for name in ("a.webp", "b/10.JPG", "b/2.png")]
    assert found.unreadable == []


def test_a_folder_that_may_not_be_read_is_named():
    """The superuser may read everything: be somebody else, in a folder that all may enter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        touch(folder, "a.png", "locked/b.png")
        (folder / "locked").chmod(0)
        before = os.geteuid()
        if before == 0:
            os.seteuid(65534)
        try:
            found = Sources().find([folder])
        finally:
            os.seteuid(before)
            (folder / "locked").chmod(0o755)
        assert found.names == [str(folder / "a.png")]
        assert found.unreadable == [
            (str(folder / "locked"), "folder cannot be read: Permission denied")
        ]


def test_order_does_not_depend_on_the_order_of_creation(tmp_path):
    names = ["z.png", "a.png", "m/k.png", "m/b.png"]
    touch(tmp_path / "one", *names)
    touch(tmp_path / "two", *reversed(names))
    one = [
        os.path.relpath(path, tmp_path / "one") for path in Sources().find([tmp_path / "one"]).names
    ]
    two = [
        os.path.relpath(path, tmp_path / "two") for path in Sources().find([tmp_path / "two"]).names
    ]
    assert one == two


def test_a_file_that_is_named_twice_is_listed_once(tmp_path):
    (path,) = touch(tmp_path, "a.png")
    assert Sources().find([path, tmp_path, str(tmp_path / "*.png")]).names == [path]


def test_a_named_file_needs_no_suffix(tmp_path):
    (path,) = touch(tmp_path, "picture")
    assert Sources().find([path]).names == [path]
    assert Sources().find([tmp_path]).names == []


def test_patterns_are_expanded(tmp_path):
    touch(tmp_path, "x/1.png", "y/2.png", "y/3.jpg")
    found = Sources().find([str(tmp_path / "**" / "*.png")])
    assert [Path(path).name for path in found.names] == ["1.png", "2.png"]


def test_a_pattern_without_suffix_takes_images_only(tmp_path):
    touch(tmp_path, "1.png", "readme.txt", "folder/2.png")
    found = Sources().find([str(tmp_path / "*")])
    assert [Path(path).name for path in found.names] == ["1.png", "2.png"]
    assert len(Sources().find([str(tmp_path / "*.txt")]).names) == 1


def test_a_name_with_brackets_is_a_name_first(tmp_path):
    (path,) = touch(tmp_path, "[1].png")
    assert Sources().find([path]).names == [path]


def test_links_are_followed_but_never_in_a_loop(tmp_path):
    (path,) = touch(tmp_path, "a/1.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert Sources().find([tmp_path]).names == [path]


@pytest.mark.parametrize("source", ["nowhere", "nowhere/*.png"])
def test_a_source_that_is_not_there_is_named(tmp_path, source):
    with pytest.raises(UsageError, match="nowhere"):
        Sources().find([str(tmp_path / source)])


def test_names_of_any_bytes_are_found(tmp_path):
    name = os.fsdecode(b"caf\xe9 \n.png")
    touch(tmp_path, name)
    assert Sources().find([tmp_path]).names == [str(tmp_path / name)]


# ---- naming


def test_survey_names_by_content_and_reads_the_size(tmp_path):
    for name in ("a.png", "copy.png"):
        Image.fromarray(gradient()).save(tmp_path / name)
    records = survey(Sources().find([tmp_path]).names, Sources(), Table())
    data = (tmp_path / "a.png").read_bytes()
    assert [record.content for record in records] == [content_hash(data)] * 2
    assert [(record.width, record.height, record.bytes) for record in records] == [
        (9, 6, len(data))
    ] * 2


def test_known_files_are_not_opened_unless_asked(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(gradient()).save(path)
    table = Table()
    (first,) = survey([str(path)], Sources(), table)
    status = path.stat()
    other = bytes(reversed(path.read_bytes()))  # same size, same inode, same time: not looked at
    path.write_bytes(other)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert survey([str(path)], Sources(), table) == [first]
    (rehashed,) = survey([str(path)], Sources(), table, rehash=True)
    assert rehashed.error is not None


def test_a_changed_file_is_read_again(tmp_path):
    path = tmp_path / "a.png"
    table = Table()
    Image.fromarray(gradient()).save(path)
    (first,) = survey([str(path)], Sources(), table)
    Image.fromarray(gradient(8, 8)).save(path)
    (second,) = survey([str(path)], Sources(), table)
    assert second.content != first.content
    assert (second.width, second.height) == (8, 8)


def test_survey_lists_what_is_wrong_and_goes_on(tmp_path):
    Image.fromarray(gradient()).save(tmp_path / "good.png")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("this is no picture\n")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe.png")
    records = {
        Path(r.path).name: r for r in survey(Sources().find([tmp_path]).names, Sources(), Table())
    }
    assert records["good.png"].error is None
    assert records["empty.png"].error == "the file is empty"
    assert "not an image" in records["text.jpg"].error
    assert "No such file" in records["dangling.png"].error
    assert records["pipe.png"].error == "cannot be read: not a regular file"


# ---- decoding


def test_rgb_comes_out_as_it_went_in():
    assert np.array_equal(decode(encoded(Image.fromarray(gradient()))), gradient())


def test_scaling_is_pillows_antialiased_bilinear():
    image = Image.fromarray(gradient(40, 60))
    expected = np.asarray(image.resize((20, 10), Image.Resampling.BILINEAR))
    assert np.array_equal(decode(encoded(image), Preparation((10, 20))), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    image = Image.fromarray(gradient())
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, exif=exif)
    turn = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90,
    }[orientation]
    shown = decode(data)
    assert np.array_equal(shown, turn(gradient()))
    assert size_of(data) == (shown.shape[1], shown.shape[0])


def behind_the_pixels(data: bytes, *chunks: bytes) -> bytes:
    """A PNG with chunks moved, or put, between its pixels and its end."""
    for chunk in chunks:
        data = data.replace(chunk, b"")
    return data[:-12] + b"".join(chunks) + data[-12:]


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content).to_bytes(4)
    return len(content).to_bytes(4) + kind + content + checksum


@pytest.mark.parametrize("kind", ["eXIf", "text", "packed text", "XMP"])
def test_orientation_behind_the_pixels_of_a_png_is_seen(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    xmp = b'<x tiff:Orientation="6"/>'
    raw = f"\nexif\n{len(exif.tobytes()):8}\n{exif.tobytes().hex()}\n".encode()
    chunk = {
        "eXIf": png_chunk(b"eXIf", exif.tobytes()[6:]),
        "text": png_chunk(b"tEXt", b"Raw profile type exif\0" + raw),
        "packed text": png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw)),
        "XMP": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
    }[kind]
    data = behind_the_pixels(encoded(Image.fromarray(gradient(6, 9))), chunk)
    assert decode(data).shape == (9, 6, 3)
    assert size_of(data) == (6, 9)


def test_a_survey_decodes_no_pixels(monkeypatch):
    comment = png_chunk(b"tEXt", b"date:create\0today")
    images = [encoded(Image.fromarray(gradient(6, 9)), form) for form in ("PNG", "JPEG", "TIFF")]
    images.append(behind_the_pixels(images[0], comment))

    def fail(_):
        raise AssertionError("pixels are decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    assert [size_of(data) for data in images] == [(9, 6)] * 4


def test_greyscale_and_bilevel_become_grey_rgb():
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    assert np.array_equal(decode(encoded(Image.fromarray(grey))), np.dstack([grey] * 3))
    bits = Image.fromarray(grey).convert("1", dither=Image.Dither.NONE)
    assert np.array_equal(decode(encoded(bits))[..., 0], np.where(grey >= 128, 255, 0))


def test_palettes_become_their_colours():
    image = Image.fromarray(gradient()).quantize(16)
    assert np.array_equal(decode(encoded(image)), np.asarray(image.convert("RGB")))


def test_sixteen_bit_grey_is_scaled_not_clipped():
    deep = np.array([[0, 128, 257, 32768, 65535]], np.uint16)
    assert decode(encoded(Image.fromarray(deep)))[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_thirty_two_bit_grey_within_sixteen_bits_is_scaled():
    deep = np.array([[0, 65535]], np.int32)
    assert decode(encoded(Image.fromarray(deep), "TIFF"))[0, :, 0].tolist() == [0, 255]


def test_transparent_pixels_are_laid_over_white():
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (200, 100, 0, 255)
    rgba[0, 1] = (0, 0, 0, 128)
    rgba[1, 1] = (10, 20, 30, 0)  # a hidden colour must stay hidden
    shown = decode(encoded(Image.fromarray(rgba)))
    assert shown[0, 0].tolist() == [200, 100, 0]
    assert shown[0, 1].tolist() == [127, 127, 127]
    assert shown[1, 0].tolist() == shown[1, 1].tolist() == [255, 255, 255]


def test_transparency_of_palettes_and_grey_is_respected():
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 250, 0, 0])
    image.putpixel((1, 0), 1)
    assert decode(encoded(image, transparency=0))[0].tolist() == [[255] * 3, [250, 0, 0]]
    grey = Image.merge("LA", (Image.new("L", (1, 1), 0), Image.new("L", (1, 1), 0)))
    assert decode(encoded(grey))[0, 0].tolist() == [255] * 3


def test_cmyk_becomes_rgb():
    image = Image.new("CMYK", (4, 4), (255, 0, 0, 0))
    assert decode(encoded(image, "TIFF"))[0, 0].tolist() == [0, 255, 255]


def test_the_first_frame_of_an_animation_counts():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data)[0, 0].tolist() == [255, 0, 0]


# ---- broken files


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_truncated_files_are_refused(form):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), form)
    with pytest.raises(ImageError, match="broken|not an image"):
        decode(data[: len(data) // 2])


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "BMP", "GIF"])
def test_a_file_that_is_cut_short_is_said_to_be(form):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), form)
    data = data[: len(data) // 2]
    assert size_of(data) == (64, 64)  # the header is whole
    with pytest.raises(ImageError, match="^broken image: image file is truncated"):
        decode(data)


def test_a_png_that_breaks_before_its_orientation_is_a_broken_image():
    exif = png_chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\0")
    data = behind_the_pixels(encoded(Image.fromarray(gradient(64, 64))), exif)
    torn = bytearray(data)
    pixels = data.index(b"IDAT") + 4
    torn[pixels : pixels + 2] = b"??"
    with pytest.raises(ImageError, match="^broken image: "):
        size_of(bytes(torn))


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_broken_exif_is_said_to_be(form):
    data = encoded(Image.fromarray(gradient()), form, exif=b"Exif\0\0of no known order")
    with pytest.raises(ImageError, match="^broken EXIF header: "):
        size_of(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"plain text, whatever its name\n", "not an image"),
        (b"\xff\xd8\xff\xe0", "not an image|broken"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "not an image",
        ),  # would run a program
        (encoded(Image.new("F", (4, 4)), "TIFF"), "floating-point"),
        (encoded(Image.new("I", (4, 4), 70_000), "TIFF"), "fit neither 8 nor 16 bits"),
    ],
)
def test_what_cannot_be_decoded_says_why(data, message):
    with pytest.raises(ImageError, match=message):
        decode(data)


def test_a_decompression_bomb_is_refused_from_its_header(bomb):
    with pytest.raises(ImageError, match="decompression bomb"):
        size_of(bomb)
    with pytest.raises(ImageError, match="decompression bomb"):
        decode(bomb)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_small_pictures_of_a_jpeg_are_those_of_the_whole(orientation, mode):
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (9, 12, 3), np.uint8))
    image = coarse.resize((1203, 901), Image.Resampling.BICUBIC).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, "JPEG", exif=exif, quality=95)
    how = Preparation((96, 96), "pad")
    whole, small = (np.asarray(one(data, how), int) for one in (decode, decode_small))
    assert small.shape == (96, 96, 3)
    assert ((whole == 0).all((1, 2)) == (small == 0).all((1, 2))).all()  # the same bars
    assert np.abs(whole - small).mean() < 3
    assert not (whole == small).all()  # it was decoded at a reduced size


def test_small_pictures_of_other_formats_are_the_same():
    data = encoded(Image.fromarray(gradient(40, 60)))
    how = Preparation((16, 16), "pad")
    assert (decode(data, how) == decode_small(data, how)).all()


def test_a_torn_jpeg_has_no_small_picture():
    noise = np.random.default_rng(0).integers(0, 256, (640, 640, 3), np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG")
    with pytest.raises(ImageError, match="truncated"):
        decode_small(data[: len(data) // 2], Preparation((16, 16), "pad"))
