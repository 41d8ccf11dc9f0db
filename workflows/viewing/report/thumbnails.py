"""Small pictures of images, on sheets of WebP that each stand in the page once."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ....pipeline.images.data import thumbnail_pixels
from ....pipeline.images.loader import decode_images
from ....pipeline.images.preparation import Preparation
from ....pipeline.images.survey import ImageRecord
from ....pipeline.sources.arrays import to_uint8
from ....pipeline.sources.sources import Sources
from ...session.screen import Screen
from .numbers import packed

LARGE = 224  # pixels of pictures that are shown side by side
_SIDES = ((300, LARGE), (1000, 128))  # (most images, pixels)
_SMALL = 96
_SHEET = 2048  # pixels of a sheet at most: phones decode no larger ones quickly
_QUALITY = 78
_BATCH = 16


@dataclass(frozen=True)
class Sheets:
    """Pictures of some images of the page.

    Attributes
    ----------
    side
        Pixels of the square tile that each picture has; it lies at its top left.
    columns
        Tiles in a row of a sheet; a sheet has as many rows at most.
    numbers
        The numbers of the images, in the order of the tiles.
    widths, heights
        Of each picture, in pixels; 0 for an image that cannot be shown.
    uris
        Data URIs of the sheets.
    reasons
        Why an image cannot be shown, by number.
    """

    side: int
    columns: int
    numbers: list[int]
    widths: list[int]
    heights: list[int]
    uris: list[str]
    reasons: dict[int, str]

    def payload(self) -> dict[str, object]:
        """Return what the script needs to find a picture on its sheet."""
        return {
            "side": self.side,
            "columns": self.columns,
            "sheets": len(self.uris),
            "numbers": packed(self.numbers),
            "widths": packed(self.widths),
            "heights": packed(self.heights),
        }


def side_of(count: int) -> int:
    """Return how many pixels the pictures of `count` images have."""
    return next((side for most, side in _SIDES if count <= most), _SMALL)


def make_sheets(
    every: Sequence[ImageRecord],
    numbers: Sequence[int],
    side: int,
    sources: Sources,
    icc: str,
    screen: Screen,
) -> Sheets:
    """Decode images and lay them out on sheets.

    Parameters
    ----------
    every
        All images of the page by their numbers.
    numbers
        Those to lay out, in this order; one that is gone, broken or has changed is left empty.
    side
        Pixels of the longer side of a picture; less if all images are smaller.
    sources, icc, screen
        As for `pictures`.
    """
    records = [every[number] for number in numbers]
    side = min(side, max((max(r.width, r.height) for r in records), default=0)) or side
    columns = _SHEET // side
    per_sheet = columns * columns
    sizes, reasons = [(0, 0)] * len(records), dict[int, str]()
    uris: list[str] = []
    tiles: list[NDArray[np.uint8] | None] = []
    for place, picture in enumerate(pictures(records, side, sources, icc, screen)):
        if isinstance(picture, str):
            reasons[numbers[place]] = picture
            tiles.append(None)
        else:
            sizes[place] = picture.shape[1], picture.shape[0]
            tiles.append(picture)
        if len(tiles) == per_sheet or place == len(records) - 1:
            uris.append(_sheet(tiles, side, columns))
            tiles = []
    widths, heights = [w for w, _ in sizes], [h for _, h in sizes]
    return Sheets(side, columns, list(numbers), widths, heights, uris, reasons)


def pictures(
    records: Sequence[ImageRecord], side: int, sources: Sources, icc: str, screen: Screen
) -> Iterator[NDArray[np.uint8] | str]:
    """Yield a small picture of each image in order, or the reason why there is none.

    Parameters
    ----------
    records
        The images. Their content is checked: one that has changed since has no picture.
    side
        Pixels of the longer side of a picture.
    sources
        Opens the images.
    icc
        As for `lpipstore.pipeline.images.preparation.Preparation`.
    screen
        Takes the progress.
    """
    known = [n for n, record in enumerate(records) if record.content and record.width]
    images = [(records[n].path, records[n].content or b"") for n in known]
    how = Preparation((side, side), "pad", icc)
    decoded = decode_images(images, sources, how, _BATCH, prepare=thumbnail_pixels)
    made: dict[int, NDArray[np.uint8] | str] = {
        n: records[n].error or "it was never read" for n in {*range(len(records))} - {*known}
    }
    done, following = 0, 0
    for batch in decoded:
        tiles = to_uint8(batch.pixels).numpy()
        for place, tile in zip(batch.indices, tiles, strict=True):
            made[known[place]] = _unpadded(tile, records[known[place]], side)
        made |= {known[place]: reason for place, reason in batch.failures.items()}
        done += len(batch.indices) + len(batch.failures)
        screen.report("pictures", done, len(images))
        while following in made:
            yield made.pop(following)
            following += 1
    while following in made:  # those at the end that were never read
        yield made.pop(following)
        following += 1


def webp(pixels: NDArray[np.uint8]) -> str:
    """Return pixels [height, width, 3] as the data URI of a WebP."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=_QUALITY, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _unpadded(tile: NDArray[np.uint8], record: ImageRecord, side: int) -> NDArray[np.uint8]:
    """Return a picture without the bars that `Preparation` put around it."""
    scale = side / max(record.width, record.height)
    width, height = (max(1, round(edge * scale)) for edge in (record.width, record.height))
    top, left = (side - height) // 2, (side - width) // 2
    return tile[top : top + height, left : left + width]


def _sheet(tiles: Sequence[NDArray[np.uint8] | None], side: int, columns: int) -> str:
    """Lay out tiles, row by row; return a data URI."""
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * side, min(columns, len(tiles)) * side, 3), 128, np.uint8)
    for place, tile in enumerate(tiles):
        if tile is not None:
            top, left = place // columns * side, place % columns * side
            sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return webp(sheet)
