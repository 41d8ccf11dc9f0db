"""Images in NumPy files: .npy, and .npz as guided-diffusion's evaluator takes them."""

import os
import re
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from ....cache.errors import UsageError
from ..arrays import ValueRange, take_image
from ..formats.open_file import OpenFile
from ..formats.stored_arrays import FortranRows, Rows, StoredArray, arrays_in
from ..names import member_name
from ..source import ImageError, Listing, SourceOptions

if TYPE_CHECKING:
    from ....cache.index import FileIdentity

SUFFIXES = (".npy", ".npz")
PREFERRED = ("arr_0", "images", "samples")
"""Names of the array that is taken from an .npz where several could hold images."""

_MOST_NAMED = 100_000  # images that an array lacks, named one by one
_MOST_PIXELS = 2  # times Pillow's limit: where Pillow itself refuses an image
_FORMS = (
    "[N, height, width, 3], [N, 3, height, width], greyscale [N, height, width], or one image "
    "[height, width, 3]"
)


class ArrayFile:
    """The images of a NumPy file; members are numbers from 0 on.

    Shapes: [N, height, width, 3], [N, 3, height, width] or greyscale [N, height, width],
    [N, height, width, 1], [N, 1, height, width]. Of three axes, [height, width, 3] and
    [height, width, 1] are one image, all others N greyscale ones, but [3, height, width] is
    refused: it may be either. Where an axis could be the channels twice, 3 goes before 1 and the
    last axis before the second.

    Elements are uint8, or floating point with ``options.value_range``, of any byte order, in C or
    Fortran order. Of the arrays of an .npz, the only one that can hold images is taken, or the
    first that has a name in `PREFERRED`. No file is loaded whole, and none is unpickled.
    """

    def __init__(self, place: str, options: SourceOptions) -> None:
        self.place = place
        self.options = options
        self._lock = Lock()
        self._opened: _Opened | None = None

    def __reduce__(self) -> tuple[type["ArrayFile"], tuple[str, SourceOptions]]:
        return type(self), (self.place, self.options)

    @staticmethod
    def takes(place: str) -> bool:
        """Return whether a path ends in .npy or .npz, and is not a folder."""
        return place.lower().endswith(SUFFIXES) and not os.path.isdir(place)

    @property
    def sequential(self) -> bool:
        """Whether the images are compressed or in Fortran order."""
        try:
            images = self._open().images
        except OSError:
            return False
        return not isinstance(images, str) and images.sequential

    def list(self) -> Listing:
        """List the images; those that a file lacks because it was cut short are unreadable."""
        images = self._images()
        listing = Listing([str(number) for number in range(images.whole)])
        missing = images.count - images.whole
        reason = f"the file ends after {images.whole:,} of {images.count:,} images"
        if missing > _MOST_NAMED:
            listing.unreadable.append((self.place, reason))
        else:
            listing.unreadable += [
                (member_name(self.place, str(number)), reason)
                for number in range(images.whole, images.count)
            ]
        return listing

    def version(self, member: str) -> "FileIdentity":
        """Return the file's version, with the member and the value range in place of the path."""
        from ....cache.index import FileIdentity

        opened = self._open()
        path = opened.path + os.fsencode(member)
        return FileIdentity(path, *opened.file.version, opened.file.seen_ns)

    def read(self, member: str) -> torch.Tensor:
        """Return the pixels of an image; see `lpipstore.pipeline.sources.arrays.take_image`."""
        images = self._images()
        number = int(member) if re.fullmatch(r"0|[1-9][0-9]{0,17}", member) else images.count
        if number >= images.count:
            raise ImageError(f"no image has this name: they are 0 to {images.count - 1}")
        if number >= images.whole:
            raise ImageError(f"the file ends after {images.whole:,} of {images.count:,} images")
        try:
            return images.take(number)
        except OSError as error:
            raise ImageError(f"cannot be read: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._opened = None

    def _images(self) -> "_Images":
        try:
            images = self._open().images
        except OSError as error:
            raise ImageError(f"cannot be read: {error.strerror}") from error
        if isinstance(images, str):
            raise ImageError(images)
        return images

    def _open(self) -> "_Opened":
        opened = self._opened
        if opened is None:
            with self._lock:
                opened = self._opened
                if opened is None:
                    opened = self._opened = _open(self.place, self.options.value_range)
        return opened


@dataclass(frozen=True)
class _Opened:
    """A file that is open, and its images or why there are none.

    `path` is that of each image in its version, but for its number.
    """

    file: OpenFile
    path: bytes
    images: "_Images | str"


def _open(place: str, value_range: ValueRange | None) -> _Opened:
    file = OpenFile(place)
    path = os.fsencode(os.path.abspath(place)) + b"\0"
    try:
        images = _images_in(file, value_range)
    except ImageError as error:
        return _Opened(file, path, str(error))
    return _Opened(file, path + os.fsencode(f"{images.value_range}\0"), images)


@dataclass(frozen=True)
class _Form:
    """How an array holds images: `shape` has the number of images first.

    `channels` is the axis of the channels in an image; None if there is none.
    """

    shape: tuple[int, ...]
    channels: int | None


class _Images:
    """The images of an array."""

    def __init__(self, array: StoredArray, form: _Form, value_range: ValueRange | None) -> None:
        self.value_range = value_range if array.dtype.kind == "f" else None
        rows = FortranRows if array.fortran else Rows
        self._rows = rows(replace(array, shape=form.shape))
        self._channels = form.channels
        self.count, self.whole = self._rows.count, self._rows.whole
        self.sequential = self._rows.sequential

    def take(self, number: int) -> torch.Tensor:
        """Return an image as `take_image` does."""
        array = self._rows.read(number)
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        image = torch.from_numpy(array)
        image = image[None] if self._channels is None else image.movedim(self._channels, 0)
        try:
            return take_image(image.expand(3, -1, -1), self.value_range)
        except UsageError as error:
            raise ImageError(str(error)) from error


def _images_in(file: OpenFile, value_range: ValueRange | None) -> _Images:
    array, form = _choose(arrays_in(file))
    images = _Images(array, form, value_range)
    if not images.whole:
        raise ImageError(
            "the file is cut short, and in Fortran order each image lies all over it"
            if array.fortran
            else "the file ends before the first image does"
        )
    if array.dtype.kind == "f" and value_range is None:
        images.take(0)  # raises, and tells the values
    return images


def _choose(arrays: dict[str, StoredArray | str]) -> tuple[StoredArray, _Form]:
    """Return the array that holds the images.

    Raises
    ------
    ImageError
        None can, or there is no telling which.
    """
    fitting: dict[str, tuple[StoredArray, _Form]] = {}
    reasons: dict[str, str] = {}
    for name, array in arrays.items():
        if isinstance(array, str):
            reasons[name] = array
            continue
        try:
            fitting[name] = array, _form_of(array)
        except ImageError as error:
            reasons[name] = str(error)
    if not fitting:
        if len(reasons) == 1:
            raise ImageError(*reasons.values())
        told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise ImageError(f"none of its arrays holds images: {told}")
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    for name in PREFERRED:
        if name in fitting and len(fitting[name][0].shape) == 4:
            return fitting[name]
    raise ImageError(
        f"it has several arrays that can be images ({', '.join(fitting)}): save one alone, or call "
        f"it arr_0; many images belong into one array [N, height, width, 3]"
    )


def _form_of(array: StoredArray) -> _Form:
    """Return how an array holds images; raise `ImageError` if it does not."""
    dtype, shape = array.dtype, array.shape
    if dtype.hasobject:
        raise ImageError(
            "an array of Python objects, which is never loaded: save the images as one array of "
            "uint8"
        )
    if not (dtype == np.uint8 or (dtype.kind == "f" and dtype.itemsize <= 8)):
        raise ImageError(
            f"images in arrays must be uint8, or floating point with value_range, not {dtype}"
        )
    form = _axes(shape)
    if form is None:
        raise ImageError(f"an array of images must be {_FORMS}, not {list(shape)}")
    if min(form.shape) < 1:
        raise ImageError(f"the array is empty: {list(shape)}")
    height, width = (n for axis, n in enumerate(form.shape[1:]) if axis != form.channels)
    if Image.MAX_IMAGE_PIXELS and height * width > _MOST_PIXELS * Image.MAX_IMAGE_PIXELS:
        raise ImageError(f"refused as a decompression bomb: images of {width}×{height} pixels")
    return form


def _axes(shape: tuple[int, ...]) -> _Form | None:
    if len(shape) not in (3, 4):
        return None
    if len(shape) == 4:
        for channels in (3, 1):
            if shape[3] == channels:
                return _Form(shape, 2)
            if shape[1] == channels:
                return _Form(shape, 0)
    elif shape[2] in (1, 3):
        return _Form((1, *shape), 2)
    elif shape[0] == 3:
        raise ImageError(
            f"{list(shape)} may be one image or three greyscale ones: save it as "
            f"{[1, *shape]} or {[*shape, 1]}"
        )
    if 4 in (shape[-1], shape[1]):
        raise ImageError(
            f"images of 4 channels, perhaps with transparency or latents, came ({list(shape)}): "
            "save 3 channels"
        )
    return _Form(shape, None) if len(shape) == 3 else None
