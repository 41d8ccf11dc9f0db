"""Colour profiles that are embedded in image files (ICC), and their conversion to sRGB."""

import io
from functools import lru_cache
from typing import Any

from PIL import Image, ImageCms

_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # by the profile's colour space


@lru_cache(maxsize=256)
def foreign_profile(profile: bytes) -> str:
    """Return the description of a profile; empty text for sRGB, and for what is no profile."""
    try:
        description = str(ImageCms.getProfileDescription(_open(profile))).strip()
    except ImageCms.PyCMSError:
        return ""
    return "" if "srgb" in description.lower() else description or "without a name"


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert an image by its embedded profile to sRGB; without a profile it stays as it is.

    The conversion is relative colorimetric, as in web browsers. An alpha channel is kept.

    Raises
    ------
    ValueError
        The profile is broken, or is for other colours than the image has.
    """
    profile = image.info.get("icc_profile")
    if not profile:
        return image
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    alpha = image.getchannel("A") if image.mode in ("RGBA", "LA") else None
    try:
        mode, transform = _transform(bytes(profile))
        converted = ImageCms.applyTransform(image.convert(mode), transform)
    except ImageCms.PyCMSError as error:
        raise ValueError(f"broken colour profile: {error}") from error
    assert converted is not None
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


@lru_cache(maxsize=64)
def _transform(profile: bytes) -> tuple[str, Any]:
    opened = _open(profile)
    mode = _MODES.get(opened.profile.xcolor_space)
    if mode is None:
        raise ImageCms.PyCMSError(f"its colours are {opened.profile.xcolor_space.strip()}")
    return mode, ImageCms.buildTransform(
        opened,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.NOCACHE,  # threads share it
    )


def _open(profile: bytes) -> ImageCms.ImageCmsProfile:
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(profile))
    except OSError as error:
        raise ImageCms.PyCMSError(str(error)) from error
