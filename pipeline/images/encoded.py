"""Read images for others to decode: the bytes of their files, in order, a few ahead."""

from collections import deque
from collections.abc import Generator, Sequence
from itertools import count

import torch

from ..sources.source import ImageData, ImageError
from ..sources.sources import Sources
from .data import prepared_pixels, read_unchanged
from .preparation import Preparation
from .read_ahead import ReadAhead, Reading


def read_images(
    images: Sequence[tuple[str, bytes]], sources: Sources, how: Preparation, ahead: int
) -> Generator[ImageData | str, None, None]:
    """Read images without decoding their files.

    Parameters
    ----------
    images, sources, how
        As for `lpipstore.pipeline.images.loader.decode_images`.
    ahead
        How many images to read ahead from archives and networks, where that is quicker.

    Yields
    ------
    ImageData or str
        The bytes of a file, or pixels, scaled, where a source holds pixels; or the reason why
        there is no image. In the order given.
    """

    def read(index: int) -> ImageData:
        data = read_unchanged(sources, *images[index])
        return data if isinstance(data, bytes) else torch.from_numpy(prepared_pixels(data, how))

    def result(index: int, reading: Reading | None) -> ImageData | str:
        try:
            return read(index) if reading is None else reading.result()
        except ImageError as error:
            return str(error)

    begun: deque[Reading | None] = deque()
    with ReadAhead(sources, read) as reader:
        done = count()
        for index, (name, _) in enumerate(images):
            begun.append(reader.begin(name, index))
            if len(begun) > ahead:
                yield result(next(done), begun.popleft())
        while begun:
            yield result(next(done), begun.popleft())
