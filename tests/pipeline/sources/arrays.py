"""Arrays that tests write into files, and what a source reads of them."""

import struct

import numpy as np
import pytest

from lpipstore.pipeline.sources.kinds.array_files import ArrayFile
from lpipstore.pipeline.sources.source import ImageError, SourceOptions

UNIT = SourceOptions(value_range=(0.0, 1.0))


class NoTable:
    """A table of files that knows none."""

    def recall_files(self, files):
        return [None] * len(files)

    def remember_files(self, entries):
        pass


def colours(count=5, height=6, width=7, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def random_bytes(count):
    return np.random.default_rng(2).bytes(count)


def write(path, *arrays, pack=False, **named):
    if path.suffix == ".npy":
        np.save(path, *arrays)
    else:
        (np.savez_compressed if pack else np.savez)(path, *arrays, **named)
    return path


def source_of(path, options=None):
    return ArrayFile(str(path), options or SourceOptions())


def read_all(source):
    listing = source.list()
    assert not listing.unreadable
    return [source.read(member).numpy() for member in listing.members]


def refusal(path, options=None):
    with pytest.raises(ImageError) as error:
        source_of(path, options).list()
    return str(error.value)


def header(shape, descr="'|u1'", fortran=False, version=b"\x01\x00"):
    text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    length = struct.pack("<H" if version[0] == 1 else "<I", len(text))
    return b"\x93NUMPY" + version + length + text


LAYOUTS = {
    "last": lambda a: a,
    "first": lambda a: a.transpose(0, 3, 1, 2),
    "grey": lambda a: a[..., 0],
    "grey last": lambda a: a[..., :1],
    "grey first": lambda a: a[:, None, :, :, 0],
}
KINDS = ("npy", "npz", "packed")
