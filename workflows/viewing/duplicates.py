"""Groups of near-duplicates, with the image of each that is worth keeping; nothing is deleted."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError, setting
from ...pipeline.analysis.groups import LINKAGES, group_pairs, keepers
from ...pipeline.common.text import printable
from ...pipeline.images.data import prepared_pixels
from ...pipeline.images.preparation import Preparation
from ...pipeline.images.survey import ImageRecord
from ...pipeline.sources.source import ImageError
from ...pipeline.sources.sources import Given, Sources
from ..session.collection import check_choice
from ..session.screen import Lines, Screen
from ..session.settings import Settings, source_options
from .close import CloseImages, close_pairs_of
from .outputs import check_outputs, lay_out, write_result

KEEP = ("largest", "sharpest", "first")
_SHOWN = 20  # groups in the lines for people
_SIDE = 256  # pixels of the images whose sharpness is compared


@dataclass(frozen=True)
class Group:
    """Images that look alike.

    Attributes
    ----------
    paths
        The images, the one to keep first.
    distances
        LPIPS distance of each to the first; None where it is not below the threshold.
    sizes
        (width, height) of each.
    bytes
        Bytes of each file.
    """

    paths: list[str]
    distances: list[float | None]
    sizes: list[tuple[int, int]]
    bytes: list[int]


@dataclass(frozen=True)
class Duplicates:
    """Near-duplicates of a collection of `images` images."""

    title: ClassVar[str] = "Near-duplicates"
    images: int
    below: float
    reason: str
    linkage: str
    keep: str
    groups: list[Group]
    failed: int

    @property
    def spare(self) -> int:
        """Number of images that could go if one of each group stays."""
        return sum(len(group.paths) - 1 for group in self.groups)

    def entries(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        groups = [
            [
                {"path": printable(path), "keep": place == 0, "distance": distance}
                for place, (path, distance) in enumerate(
                    zip(group.paths, group.distances, strict=True)
                )
            ]
            for group in self.groups
        ]
        return {
            "images": self.images,
            "below": self.below,
            "reason": self.reason,
            "linkage": self.linkage,
            "keep": self.keep,
            "spare": self.spare,
            "failed": self.failed,
            "groups": groups,
        }

    def lines(self) -> Lines:
        """Return the first groups as lines for people."""
        shown = [
            (
                f"group {number}",
                ", ".join(
                    printable(path) + ("" if place == 0 else _apart(distance))
                    for place, (path, distance) in enumerate(
                        zip(group.paths, group.distances, strict=True)
                    )
                ),
            )
            for number, group in enumerate(self.groups[:_SHOWN], 1)
        ]
        more = len(self.groups) - len(shown)
        rest = [("", f"and {more:,} more groups: {setting('out')} writes all")] if more else []
        return [
            ("images", f"{self.images:,}"),
            ("failed", f"{self.failed:,}"),
            ("below", f"{self.below:g}: {self.reason}"),
            ("groups", f"{len(self.groups):,}, with {self.spare:,} images besides one of each"),
            *shown,
            *rest,
        ]

    def table(self) -> pa.Table:
        """Return group, path, keep, distance, width, height and bytes of each image of a group.

        The distance is that to the image to keep; null where it is not below the threshold.
        """
        lines = [
            {
                "group": number,
                "path": printable(path),
                "keep": place == 0,
                "distance": group.distances[place],
                "width": group.sizes[place][0],
                "height": group.sizes[place][1],
                "bytes": group.bytes[place],
            }
            for number, group in enumerate(self.groups)
            for place, path in enumerate(group.paths)
        ]
        return pa.Table.from_pylist(lines, _SCHEMA)


_SCHEMA = pa.schema(
    {
        "group": pa.int64(),
        "path": pa.string(),
        "keep": pa.bool_(),
        "distance": pa.float32(),
        "width": pa.int32(),
        "height": pa.int32(),
        "bytes": pa.int64(),
    }
)


def _apart(distance: float | None) -> str:
    return " (by way of others)" if distance is None else f" ({distance:.3f})"


def find_duplicates(
    given: Sequence[Given],
    settings: Settings,
    screen: Screen,
    *,
    below: float | None = None,
    linkage: str = "single",
    keep: str = "largest",
    out: Path | None = None,
    link: Path | None = None,
) -> Duplicates:
    """Find groups of near-duplicates; nothing is deleted or moved.

    Parameters
    ----------
    given
        A finished run of all pairs or of ``below``, or images.
    below
        Images closer than this are near-duplicates; None takes what the distances suggest.
    linkage
        "single": chains of close images are one group; "complete": all images of a group are close
        to one another.
    keep
        Which image of a group comes first: the "largest" (most pixels, then most bytes), the
        "sharpest" (largest variance of the Laplacian at 256 px), or the "first" in order.
    out
        A .csv, .json or .parquet file to write the groups to.
    link
        A new folder in which each group gets a folder with links to its images.

    Raises
    ------
    LpipstoreError
        A choice is wrong, the run or the images cannot be used, or a result cannot be written.
    """
    check_choice("linkage", linkage, LINKAGES)
    check_choice("keep", keep, KEEP)
    check_outputs(out, link)
    close = close_pairs_of(given, below, settings, screen)
    groups = group_pairs(close.left, close.right, close.distances, len(close.images), linkage)
    chosen: dict[str, Any] = {**close.choices}
    sources = Sources(source_options(replace(settings, **chosen)))
    for one in given:
        if not isinstance(one, str | os.PathLike):
            sources.add(one)
    rank = _rank(close.images, groups, keep, sources)
    found = Duplicates(
        len(close.images),
        close.below,
        close.reason,
        linkage,
        keep,
        _groups(close, groups, keepers(groups, rank)),
        close.failed,
    )
    try:
        if out is not None:
            write_result(found, out)
        if link is not None:
            _link(found, link, sources, screen)
    finally:
        sources.close()
    return found


def _rank(
    images: Sequence[ImageRecord],
    groups: Sequence[NDArray[np.int64]],
    keep: str,
    sources: Sources,
) -> NDArray[np.float64]:
    """Return a number for each image: of a group, the one with the largest is kept."""
    rank = np.zeros(len(images))
    if keep == "largest":
        order = sorted(
            range(len(images)),
            key=lambda n: (images[n].width * images[n].height, images[n].bytes, -n),
        )
        rank[order] = np.arange(len(images))
    elif keep == "sharpest":
        for number in {int(n) for group in groups for n in group}:
            rank[number] = _sharpness(images[number].path, sources)
    return rank


def _sharpness(name: str, sources: Sources) -> float:
    try:
        pixels = prepared_pixels(sources.read(name), Preparation((_SIDE, _SIDE)))
    except ImageError as error:
        raise LpipstoreError(
            f"{printable(name)} cannot be read, so that nobody can tell how sharp it is: {error}; "
            f"{setting('keep', 'largest')} needs no pixels"
        ) from error
    from scipy.ndimage import laplace

    grey = np.asarray(pixels, np.float64).mean(2)
    return float(laplace(grey).var())


def _groups(
    close: CloseImages, groups: Sequence[NDArray[np.int64]], first: Sequence[int]
) -> list[Group]:
    pairs = zip(close.left.tolist(), close.right.tolist(), strict=True)
    known = dict(zip(pairs, close.distances.tolist(), strict=True))
    found = []
    for members, kept in zip(groups, first, strict=True):
        order = [kept, *(int(n) for n in members if n != kept)]
        distances = [0.0, *(known.get((min(kept, n), max(kept, n))) for n in order[1:])]
        records = [close.images[n] for n in order]
        found.append(
            Group(
                [record.path for record in records],
                distances,
                [(record.width, record.height) for record in records],
                [record.bytes for record in records],
            )
        )
    return found


def _link(found: Duplicates, folder: Path, sources: Sources, screen: Screen) -> None:
    """Lay out a folder for each group."""
    width = len(str(len(found.groups)))
    for number, group in enumerate(found.groups, 1):
        labels = ["keep", *(f"{position:04}" for position in range(1, len(group.paths)))]
        named = dict(zip(labels, group.paths, strict=True))
        lay_out(named, folder / f"{number:0{width}}", sources, screen)
