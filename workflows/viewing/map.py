"""Where two images differ: their spatial LPIPS map, with the contribution of each tap."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError, UsageError, setting
from ...pipeline.common.atomic import replacing
from ...pipeline.common.text import printable
from ...pipeline.distances.maps import map_of_rows
from ...pipeline.images.data import prepared_pixels, read_unchanged
from ...pipeline.images.survey import ImageRecord
from ...pipeline.sources.arrays import to_uint8
from ...pipeline.sources.names import is_there, is_url, split_given
from ...pipeline.sources.source import ImageError
from ..scoring.pairlist import survey_list
from ..session.collection import Collection, check_new
from ..session.given import pairs_of
from ..session.screen import Lines, Screen
from ..session.session import Session, make_collection, open_session
from ..session.settings import Settings, source_options
from .figure import FORMATS, draw_map


@dataclass(frozen=True, eq=False)
class SpatialMap:
    """Where two images differ, and by how much.

    Attributes
    ----------
    first, second
        The names of the images.
    distance
        Their LPIPS distance: the sum of `taps`.
    taps
        The contribution of each tap, by the name of its layer, from the first to the last.
    map
        float32 [height, width]: the distance at each pixel. Its mean is `distance` but for what
        interpolation changes, as in ``lpips`` with ``spatial=True``.
    first_pixels, second_pixels
        uint8 [height, width, 3]: the images as they were compared.
    metric
        The metric in a few words, such as "LPIPS (squeeze)".
    """

    title: ClassVar[str] = "Spatial map"
    first: str
    second: str
    distance: float
    taps: dict[str, float]
    map: NDArray[np.float32] = field(repr=False)
    first_pixels: NDArray[np.uint8] = field(repr=False)
    second_pixels: NDArray[np.uint8] = field(repr=False)
    metric: str = "LPIPS"

    def entries(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        height, width = self.map.shape
        return {
            "first": printable(self.first),
            "second": printable(self.second),
            "metric": self.metric,
            "distance": self.distance,
            "taps": self.taps,
            "size": [height, width],
            "largest": float(self.map.max()),
        }

    def lines(self) -> Lines:
        """Return distance and taps as lines for people."""
        height, width = self.map.shape
        total = sum(map(abs, self.taps.values())) or 1.0
        return [
            ("images", f"{printable(self.first)}, {printable(self.second)}"),
            ("distance", f"{self.distance:.6f} ({self.metric}, {width}×{height} pixels)"),
            *((name, f"{d:.6f} ({abs(d) / total:.0%})") for name, d in self.taps.items()),
            ("largest", f"{self.map.max():.4f} at one pixel"),
        ]

    def save(
        self,
        path: str | Path,
        overlay: bool = False,
        scale: float | None = None,
    ) -> None:
        """Draw the images, the map with its scale, and the taps into a .png, .pdf or .svg file.

        Parameters
        ----------
        overlay
            Lay the map over the first image, which shows in grey where there is no difference.
        scale
            Value at the end of the colour scale; the same for several maps makes them comparable.
            None takes the largest of this map.

        Raises
        ------
        UsageError
            The file has another ending, or the scale is not more than 0.
        LpipstoreError
            It cannot be written.
        """
        target = Path(path)
        check_figure(target, scale)
        try:
            with replacing(target) as file:
                draw_map(self, file, target.suffix[1:].lower(), overlay=overlay, scale=scale)
        except OSError as error:
            raise LpipstoreError(
                f"cannot write {printable(str(target))}: {error.strerror or error}"
            ) from error


def check_figure(out: Path, scale: float | None) -> None:
    """Raise `UsageError` if a figure is of no known format, or its scale is none."""
    if out.suffix.lower() not in FORMATS:
        raise UsageError(f"{setting('out', printable(str(out)))} must end in {', '.join(FORMATS)}")
    if scale is not None and not 0 < scale < np.inf:
        raise UsageError(f"{setting('scale', scale)} must be more than 0")


def map_images(first: Any, second: Any, settings: Settings, screen: Screen) -> SpatialMap:  # noqa: ANN401
    """Compute the spatial map of two images.

    Parameters
    ----------
    first, second
        Each a name as sources name images (a path, a URL, ``shard.tar#cat.jpg``), an array
        [height, width, 3], a tensor [3, height, width] or a Pillow image.

    Raises
    ------
    UsageError
        A setting is wrong, or there is no such image.
    LpipstoreError
        An image cannot be used.
    """
    pair, held = pairs_of([(first, second)], source_options(settings).value_range)
    for path in pair.paths:
        if not (is_url(path) or split_given(path) or is_there(path)):
            raise UsageError(f"no such image: {printable(path)}")
    with open_session(settings, screen) as session:
        session.sources.add(held)
        records = survey_list(pair.paths, session)
        _need_all(records)
        collection = make_collection(records, session)
        head = collection.head(settings)
        ends = [int(pair.left[0]), int(pair.right[0])]
        with collection.pinned("map"):
            collection.extract()
            _need_all(collection.records)
            first, second = (collection.records[n] for n in ends)
            contents = collection.contents()
            rows = torch.from_numpy(collection.features.rows([contents[n] for n in ends]))
        extractor = collection.features.extractor
        found = map_of_rows(rows, extractor.layout, extractor.spec.dtype, head, extractor.size)
        taps = dict(zip(extractor.backbone.taps, found.taps, strict=True))
        return SpatialMap(
            first.path,
            second.path,
            found.distance,
            taps,
            found.map.numpy(),
            _pixels(first, collection, session),
            _pixels(second, collection, session),
            _metric(collection, settings),
        )


def map_files(
    first: str,
    second: str,
    out: Path,
    settings: Settings,
    screen: Screen,
    *,
    overlay: bool = False,
    scale: float | None = None,
) -> SpatialMap:
    """Draw the spatial map of two images, named as sources name them, into a new file.

    The parameters are those of `map_images` and `SpatialMap.save`.

    Raises
    ------
    LpipstoreError
        As they do; or the file exists.
    """
    check_figure(out, scale)
    check_new("out", out)
    found = map_images(first, second, settings, screen)
    found.save(out, overlay, scale)
    return found


def _need_all(records: list[ImageRecord]) -> None:
    for record in records:
        if record.error:
            raise LpipstoreError(f"{printable(record.path)}: {record.error}")


def _pixels(record: ImageRecord, collection: Collection, session: Session) -> NDArray[np.uint8]:
    """Return an image as it was compared."""
    assert record.content is not None
    try:
        data = read_unchanged(session.sources, record.path, record.content)
        pixels = prepared_pixels(data, collection.features.extractor.preparation)
    except ImageError as error:
        raise LpipstoreError(f"{printable(record.path)}: {error.message}") from error
    return np.asarray(to_uint8(torch.from_numpy(np.array(pixels))).numpy())


def _metric(collection: Collection, settings: Settings) -> str:
    backbone = collection.features.extractor.backbone
    name = "LPIPS" if settings.heads != "none" else "baseline"
    own = "" if settings.heads in (None, "none", "stock") else ", own head"
    untrained = "" if backbone.trained else ", untrained"
    return f"{name} {backbone.version} ({backbone.name}{own}{untrained})"
