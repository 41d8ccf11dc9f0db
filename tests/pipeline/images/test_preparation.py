"""How images come to one size and to the colours of a screen."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from lpipstore.cache.errors import UsageError
from lpipstore.pipeline.images.decode import decode, read_header
from lpipstore.pipeline.images.preparation import FITS, ICC, Preparation
from lpipstore.pipeline.sources.source import ImageError


def encoded(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


@pytest.fixture
def wide() -> Image.Image:
    """Sixty pixels wide and twenty high: red, green and blue squares."""
    image = Image.new("RGB", (60, 20))
    for place, colour in enumerate(("red", "lime", "blue")):
        image.paste(colour, (20 * place, 0, 20 * place + 20, 20))
    return image


def test_a_crop_is_the_middle(wide):
    pixels = decode(encoded(wide), Preparation((20, 20), fit="crop"))
    assert pixels.shape == (20, 20, 3)
    assert (pixels == (0, 255, 0)).all()


def test_padding_is_black_and_equal_on_both_sides(wide):
    pixels = decode(encoded(wide), Preparation((60, 60), fit="pad"))
    assert np.array_equal(pixels[20:40], np.asarray(wide))
    assert not pixels[:20].any()
    assert not pixels[40:].any()


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(20, 60), (60, 20), (31, 47), (64, 64), (1, 90)])
def test_arrays_come_to_the_same_pixels_as_files(fit, shape):
    array = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    how = Preparation((48, 32), fit)
    filed = decode(encoded(Image.fromarray(array)), how)
    assert np.array_equal(how.scale_pixels(torch.from_numpy(array)).numpy(), filed)
    real = how.scale_pixels(torch.from_numpy(array / np.float32(127.5) - 1))
    assert real.shape == (48, 32, 3)
    assert -1 <= float(real.min()) <= float(real.max()) <= 1 + 1e-6
    if fit != "crop":  # a crop of float pixels begins at a whole pixel
        assert np.abs((real.numpy() + 1) * 127.5 - filed).max() < 2


@pytest.mark.parametrize("fit", FITS)
def test_an_image_of_the_size_stays_as_it_is(fit, wide):
    assert np.array_equal(decode(encoded(wide), Preparation((20, 60), fit)), np.asarray(wide))


def test_every_preparation_is_known_by_its_recipe():
    every = [Preparation((20, 30), fit, icc) for fit in FITS for icc in ICC]
    recipes = [one.recipe() for one in every]
    assert len({str(recipe) for recipe in recipes}) == len(every)
    for one, recipe in zip(every, recipes, strict=True):
        assert Preparation.of_recipe((20, 30), recipe["resize"], recipe.get("colours")) == one
    assert recipes[0] == {"size": "20x30", "resize": "bilinear, antialiased"}  # as ever


@pytest.mark.parametrize("choice", [{"fit": "squeeze"}, {"icc": "maybe"}])
def test_unknown_choices_are_named(choice):
    with pytest.raises(UsageError, match="unknown .* choose"):
        Preparation((8, 8), **choice)


def linear_profile() -> bytes:
    """A profile with the primaries of sRGB whose curves are straight lines: no gamma."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = int.from_bytes(profile[128:132])
    for tag in range(tags):
        entry = 132 + 12 * tag
        name, place = profile[entry : entry + 4], int.from_bytes(profile[entry + 4 : entry + 8])
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            profile[place : place + 12] = b"curv" + bytes(8)  # a curve of no points is a line
        if name == b"desc":
            size = int.from_bytes(profile[entry + 8 : entry + 12])
            text = profile[place : place + size]
            profile[place : place + size] = text.replace(
                "sRGB".encode("utf-16-be"), b"\0P\0l\0a\0i"
            )
    return bytes(profile)


def test_profiles_are_converted_if_that_is_asked():
    grey = Image.new("RGB", (8, 8), (55, 55, 55))
    data = encoded(grey, icc_profile=linear_profile())
    assert (decode(data) == 55).all()
    assert (decode(data, Preparation((8, 8))) == 55).all()
    converted = decode(data, Preparation((8, 8), icc="convert"))
    assert np.abs(converted.astype(int) - 128).max() <= 1  # 55/255 in linear light is 128 in sRGB


@pytest.mark.parametrize("mode", ["RGBA", "P", "L"])
def test_a_profile_of_other_modes(mode):
    image = Image.new("RGB", (8, 8), (55, 55, 55))
    image = image.quantize(2) if mode == "P" else image.convert(mode)
    data = encoded(image, icc_profile=linear_profile())
    converted = decode(data, Preparation((8, 8), icc="convert"))
    assert np.abs(converted.astype(int) - 128).max() <= 1


def test_transparency_outlives_a_conversion():
    data = encoded(Image.new("RGBA", (8, 8), (55, 55, 55, 0)), icc_profile=linear_profile())
    assert (decode(data, Preparation((8, 8), icc="convert")) == 255).all()


def test_srgb_is_no_foreign_profile():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert read_header(encoded(Image.new("RGB", (8, 8)), icc_profile=srgb)).profile == ""
    foreign = read_header(encoded(Image.new("RGB", (8, 8)), icc_profile=linear_profile()))
    assert "sRGB" not in foreign.profile
    assert foreign.profile


def test_a_broken_profile_is_ignored_or_named():
    data = encoded(Image.new("RGB", (8, 8), "red"), icc_profile=b"no profile" * 20)
    assert read_header(data).profile == ""
    assert (decode(data, Preparation((8, 8))) == (255, 0, 0)).all()
    with pytest.raises(ImageError, match="broken colour profile"):
        decode(data, Preparation((8, 8), icc="convert"))
