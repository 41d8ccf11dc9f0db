"""Small pictures of images, on sheets of WebP that each stand in the page once."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
    records: Sequence[ImageRecord],
    numbers: Sequence[int],
    side: int,
    sources: Sources,
    icc: str,
    screen: Screen,
) -> Sheets:
    """Decode images and lay them out on sheets.

    Parameters
    ----------
    records
        The images; one that is gone, broken or has changed since is left empty.
    numbers
        The number of each on the page.
    side
        Pixels of the longer side of a picture; less if all images are smaller.
    icc
        As for `Preparation`.
    """
    side = min(side, max((max(r.width, r.height) for r in records), default=0)) or side
    columns = _SHEET // side
    sizes = [_size_of(record, side) for record in records]
    named = [n for n, record in enumerate(records) if record.content is not None and sizes[n][0]]
    reasons = {
        numbers[n]: record.error or "it was never read"
        for n, record in enumerate(records)
        if record.content is None or not sizes[n][0]
    }
    tiles: dict[int, NDArray[np.uint8]] = {}
    uris: list[str] = []
    per_sheet = columns * columns
    images = [(records[n].path, records[n].content or b"") for n in named]
    how = Preparation((side, side), "pad", icc)
    done = 0
    for batch in decode_images(images, sources, how, _BATCH):
        pixels = to_uint8(batch.pixels).numpy()
        for place, picture in zip(batch.indices, pixels, strict=True):
            tiles[named[place]] = _unpadded(picture, sizes[named[place]])
        for place, reason in batch.failures.items():
            reasons[numbers[named[place]]] = reason
        done += len(batch.indices) + len(batch.failures)
        screen.report("pictures", done, len(images))
        reached = named[done - 1] + 1 if done else 0
        while reached - len(uris) * per_sheet >= per_sheet:
            uris.append(_sheet(tiles, len(uris) * per_sheet, per_sheet, side, columns))
    while len(uris) * per_sheet < len(records):
        start = len(uris) * per_sheet
        count = min(per_sheet, len(records) - start)
        uris.append(_sheet(tiles, start, count, side, columns))
    shown = [sizes[n] if numbers[n] not in reasons else (0, 0) for n in range(len(records))]
    widths, heights = [w for w, _ in shown], [h for _, h in shown]
    return Sheets(side, columns, list(numbers), widths, heights, uris, reasons)


def _size_of(record: ImageRecord, side: int) -> tuple[int, int]:
    """Return (width, height) of the picture of an image; (0, 0) if its own size is unknown."""
    longer = max(record.width, record.height)
    if not longer:
        return 0, 0
    scale = side / longer
    return max(1, round(record.width * scale)), max(1, round(record.height * scale))


def _unpadded(tile: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a picture without the bars that `Preparation` put around it."""
    width, height = size
    top, left = (tile.shape[0] - height) // 2, (tile.shape[1] - width) // 2
    return tile[top : top + height, left : left + width]


def _sheet(
    tiles: dict[int, NDArray[np.uint8]], start: int, count: int, side: int, columns: int
) -> str:
    """Lay out the tiles from `start` on and take them out of memory; return a data URI."""
    rows = -(-count // columns)
    sheet = np.full((rows * side, min(columns, count) * side, 3), 128, np.uint8)
    for place in range(count):
        tile = tiles.pop(start + place, None)
        if tile is not None:
            top, left = place // columns * side, place % columns * side
            sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "WEBP", quality=_QUALITY, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
