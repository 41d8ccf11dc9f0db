"""The Python face of scoring all pairs: images in, a matrix out."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..cache.errors import LpipstoreError, UsageError
from ..cache.store import FeatureStore
from ..pipeline.arrays import ArrayLike, ValueRange, array_content, common_size, pixels_of
from ..pipeline.backbones import load_backbone
from ..pipeline.features import Extractor, Features, choose_device
from ..pipeline.heads import column_weights, load_head
from ..pipeline.loading import Decoded, decode_arrays
from ..pipeline.progress import Stopwatch
from ..pipeline.schedule import plan_matrix, score_matrix
from .collection import STAGES, Collection, find_collection, make_collection
from .console import Screen
from .settings import Settings, parse_bytes, parse_size

PathLike = str | os.PathLike[str]


class MatrixInMemory:
    """A matrix in memory, with the face of `lpipstore.pipeline.results.MatrixFile`."""

    def __init__(self, count: int, tile: int) -> None:
        self.array = np.full((count, count), np.nan, np.float32)
        self.tile = tile

    def done(self, row: int, column: int) -> bool:
        """Nothing is there when a matrix in memory is begun."""
        return False

    def write(self, row: int, column: int, distances: NDArray[np.float32]) -> None:
        """Put one tile and its mirror in place."""
        top, left = row * self.tile, column * self.tile
        height, width = distances.shape
        self.array[top : top + height, left : left + width] = distances
        self.array[left : left + width, top : top + height] = distances.T


def distance_matrix(
    images: PathLike | torch.Tensor | Sequence[PathLike | ArrayLike],
    *,
    store: PathLike | FeatureStore | None = None,
    backbone: str = "alex",
    version: str = "0.1",
    heads: str | None = None,
    weights: str = "imagenet",
    taps: Sequence[str] = (),
    size: str | int = "auto",
    value_range: ValueRange | None = None,
    row_dtype: str = "uint16",
    memory: str = "4GB",
    device: str = "auto",
) -> NDArray[np.float32]:
    """Compute the LPIPS distances of all pairs of images, each through the backbone once.

    Parameters
    ----------
    images
        A folder or a glob pattern, a list of files, a tensor [N, 3, height, width], or a list of
        tensors [3, height, width] or arrays [height, width, 3].
    store
        A `FeatureStore` or the folder of one, where rows are kept for the next time; None keeps
        them only as long as this call takes.
    backbone, version, heads, weights, taps
        As for ``lpipstore pairs``: "alex", "vgg", "squeeze" or "torchvision:NAME" with `taps`;
        LPIPS version "0.1" or "0.0"; heads None (those of the lpips package), "none" (the
        unweighted baseline) or a file; weights "imagenet", "random" or a file.
    size
        "auto" (the images' own size; files of several sizes are scaled to 224×224), "native", or
        a number of pixels or "HEIGHTxWIDTH".
    value_range
        (lowest, highest) possible value of floating-point images, such as (0, 1) or (-1, 1); has
        to be given for them. uint8 images go from 0 to 255.
    row_dtype, memory, device
        As for ``lpipstore pairs``.

    Returns
    -------
    ndarray of shape (N, N), float32
        Symmetric, 0 on the diagonal and for identical images.

    Raises
    ------
    UsageError
        Also a ValueError: an argument that cannot be, with the values that came.
    LpipstoreError
        There are no images, or an image cannot be read (nothing is left out in silence).

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
        taps=",".join(taps),
        lpips_version=version,
        heads=heads,
        weights=weights,
        size=str(size),
        row_dtype=row_dtype,
        memory=memory,
        device=device,
    )
    with ExitStack() as stack:
        if not isinstance(store, FeatureStore):
            folder = store or stack.enter_context(tempfile.TemporaryDirectory(prefix="lpipstore-"))
            store = stack.enter_context(FeatureStore(Path(folder)))
        if isinstance(images, str | os.PathLike):
            images = [images]
        files = [isinstance(image, str | os.PathLike) for image in images]
        if not files:
            raise UsageError("an empty list of images came")
        if any(files) and not all(files):
            raise UsageError("give either files or images in memory, not both in one list")
        if all(files):
            features, contents = _from_files(images, store, settings)  # type: ignore[arg-type]
        else:
            features, contents = _from_memory(images, store, settings, value_range)  # type: ignore[arg-type]
        extractor = features.extractor
        head = load_head(heads, backbone, extractor.backbone.channels, version)
        row_bytes = extractor.layout.length * np.dtype(extractor.spec.dtype).itemsize
        plan = plan_matrix(len(contents), row_bytes, parse_bytes(memory))
        matrix = MatrixInMemory(len(contents), plan.tile)
        score_matrix(features, contents, column_weights(head, extractor.layout), plan, matrix)
        return matrix.array


def _from_files(
    sources: Sequence[PathLike], store: FeatureStore, settings: Settings
) -> tuple[Features, list[bytes]]:
    clock, screen = Stopwatch(*STAGES), Screen(quiet=True)
    records = find_collection(sources, store, settings, clock, screen)
    collection: Collection = make_collection(records, store, settings, clock, screen)
    collection.extract()
    for record in collection.records:
        if record.error:
            raise LpipstoreError(f"{record.path}: {record.error}")
    return collection.features, collection.contents()


def _from_memory(
    images: Sequence[ArrayLike],
    store: FeatureStore,
    settings: Settings,
    value_range: ValueRange | None,
) -> tuple[Features, list[bytes]]:
    wanted = parse_size(settings.size)
    contents = [array_content(image, value_range) for image in images]
    pixels = {
        content: pixels_of(image, value_range, wanted)
        for content, image in zip(contents, images, strict=True)
    }
    backbone = load_backbone(
        settings.backbone,
        version=settings.lpips_version,
        weights=settings.weights,
        taps=settings.tap_names,
        table=store,
    )
    extractor = Extractor(
        backbone,
        common_size(list(pixels.values())),
        row_dtype=settings.row_dtype,
        device=choose_device(settings.device),
    )

    def decode(which: Sequence[bytes], batch: int) -> Iterator[Decoded]:
        return decode_arrays(pixels, which, batch)

    features = Features(extractor, store, decode)
    features.ensure(contents)
    return features, contents
