"""The Python interface for scoring all pairs: images in, a matrix out."""

import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..cache.errors import LpipstoreError, UsageError
from ..cache.store import FeatureStore
from ..pipeline.common.progress import Stopwatch
from ..pipeline.common.text import printable
from ..pipeline.distances.heads import column_weights
from ..pipeline.images.arrays import (
    ArrayLike,
    ValueRange,
    common_size,
    take_image,
    take_range,
)
from ..pipeline.images.hf_dataset import DatasetImages, is_dataset
from ..pipeline.images.memory import InMemory
from ..pipeline.images.names import member_name
from ..pipeline.images.source import Source, SourceOptions
from ..pipeline.images.sources import Sources
from ..pipeline.images.survey import ImageRecord
from ..pipeline.matrix.plan import plan_matrix
from ..pipeline.matrix.score import score_matrix
from .session.collection import STAGES, Collection, make_extractor
from .session.screen import Screen
from .session.session import Session, bind, find_collection, make_collection
from .session.settings import Settings, first_limit, parse_bytes, parse_size

if TYPE_CHECKING:
    from datasets import Dataset

PathLike = str | os.PathLike[str]
_GIVEN = "images"  # the name of the source of images that a program gives


class MatrixInMemory:
    """A matrix in memory with the interface of `lpipstore.pipeline.runs.zarr_array.MatrixFile`."""

    def __init__(self, count: int, tile: int) -> None:
        self.array = np.full((count, count), np.nan, np.float32)
        self.tile = tile

    def done(self, row: int, column: int) -> bool:
        """Return False: a matrix in memory starts empty."""
        return False

    def write(self, row: int, column: int, distances: NDArray[np.float32]) -> None:
        """Store one tile and its transpose."""
        top, left = row * self.tile, column * self.tile
        height, width = distances.shape
        self.array[top : top + height, left : left + width] = distances
        self.array[left : left + width, top : top + height] = distances.T


def distance_matrix(
    images: "PathLike | torch.Tensor | Iterable[PathLike | ArrayLike] | Dataset",
    *,
    store: PathLike | FeatureStore | None = None,
    backbone: str = "alex",
    version: str = "0.1",
    heads: str | None = None,
    weights: str = "imagenet",
    taps: str | Sequence[str] = (),
    size: str | int = "auto",
    value_range: ValueRange | None = None,
    image_column: str | None = None,
    row_dtype: str = "uint16",
    memory: str | int = "4GB",
    device: str = "auto",
    progress: bool = False,
) -> NDArray[np.float32]:
    """Compute the LPIPS distances of all pairs; each image goes through the backbone once.

    Parameters
    ----------
    images
        A folder or a glob pattern, a list of files, a tensor [N, 3, height, width], or a list of
        tensors [3, height, width] or arrays [height, width, 3], or a `datasets.Dataset`.
    store
        A `FeatureStore` or its folder (``~`` is your home), where rows are kept for later calls
        within the store's limit; None keeps them only during this call.
    backbone, version, heads, weights, taps
        As for ``lpipstore pairs``: "alex", "vgg", "squeeze" or "torchvision:NAME" with `taps`;
        LPIPS version "0.1" or "0.0"; heads None (those of the lpips package), "none" (the
        unweighted baseline) or a file; weights "imagenet", "random" or a file.
    size
        "auto" (the images' own size; files of several sizes are scaled to 224×224), "native", or
        a number of pixels or "HEIGHTxWIDTH".
    value_range
        (lowest, highest) possible value of floating-point images, such as (0, 1) or (-1, 1);
        required for them. uint8 images range from 0 to 255.
    image_column
        The column of a table or dataset that holds images; None takes the only one.
    row_dtype, memory, device
        As for ``lpipstore pairs``.
    progress
        Show progress on stderr: bars in a terminal, otherwise occasional lines.

    Returns
    -------
    ndarray of shape (N, N), float32
        Symmetric, 0 on the diagonal and for identical images.

    Raises
    ------
    UsageError
        An argument is invalid; the message shows the value received. Also a ValueError.
    LpipstoreError
        There are no images, or an image cannot be read (none is left out silently).

    Examples
    --------
    >>> import lpipstore, torch
    >>> pictures = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> d = lpipstore.distance_matrix(pictures, value_range=(0, 1), weights="random")
    >>> d.shape, bool((d == d.T).all()), d.diagonal().tolist()
    ((3, 3), True, [0.0, 0.0, 0.0])
    """
    settings = Settings(
        backbone=backbone,
        taps=taps if isinstance(taps, str) else ",".join(taps),
        lpips_version=version,
        heads=heads,
        weights=weights,
        size=str(size),
        row_dtype=row_dtype,
        memory=str(memory),
        device=device,
    )
    dataset = DatasetImages(images, image_column) if is_dataset(images) else None
    items: Any = [images] if isinstance(images, str | os.PathLike) else images
    listed = [] if dataset else list(items)
    files = [image for image in listed if isinstance(image, str | os.PathLike)]
    if not listed and dataset is None:
        raise UsageError("an empty list of images came")
    if 0 < len(files) < len(listed):
        raise UsageError("give either files or images in memory, not both in one list")
    with ExitStack() as stack:
        if not isinstance(store, FeatureStore):
            scratch = tempfile.TemporaryDirectory(prefix="lpipstore-")
            path = Path(stack.enter_context(scratch) if store is None else store).expanduser()
            opened = FeatureStore(path, first_limit=lambda: first_limit(path))
            store = stack.enter_context(opened)
        screen = stack.enter_context(Screen(quiet=not progress))
        sources = stack.enter_context(closing(Sources(SourceOptions(image_column=image_column))))
        session = Session(store, settings, Stopwatch(*STAGES), screen, sources)
        if dataset is not None:
            collection = _collect_source(dataset, session)
        elif files:
            collection = _collect_files(files, session)
        else:
            collection = _collect_arrays(listed, take_range(value_range), session)
        return _score(collection, session)


def _score(collection: Collection, session: Session) -> NDArray[np.float32]:
    features, report = collection.features, session.screen.report
    limit = parse_bytes(session.settings.memory)
    head = collection.head(session.settings)
    plan = plan_matrix(len(collection.good), collection.row_bytes(), limit)
    with collection.pinned("distance_matrix"):
        collection.extract()
        for record in collection.records:
            if record.error:
                raise LpipstoreError(f"{printable(record.path)}: {record.error}")
        contents = collection.contents()
        matrix = MatrixInMemory(len(contents), plan.tile)
        weights = column_weights(head, features.extractor.layout)
        score_matrix(features, contents, None, weights, plan, matrix, report)
    return matrix.array


def _collect_files(sources: Sequence[PathLike], session: Session) -> Collection:
    return _collect(find_collection(sources, session), session)


def _collect_source(source: Source, session: Session) -> Collection:
    session.sources.add(_GIVEN, source)
    names = [member_name(_GIVEN, member) for member in source.list().members]
    if not names:
        raise LpipstoreError("the dataset has no rows")
    return _collect(session.survey(names), session)


def _collect(records: list[ImageRecord], session: Session) -> Collection:
    for record in records:
        if record.error:
            raise LpipstoreError(f"{printable(record.path)}: {record.error}")
    return make_collection(records, session)


def _collect_arrays(
    images: Sequence[object], value_range: ValueRange | None, session: Session
) -> Collection:
    taken = [take_image(image, value_range) for image in images]
    wanted = parse_size(session.settings.size)
    session.sources.add(_GIVEN, InMemory(taken))
    extractor = make_extractor(wanted or common_size(taken), session.store, session.settings)
    names = [member_name(_GIVEN, str(number)) for number in range(len(taken))]
    return bind(session.survey(names), extractor, session)
