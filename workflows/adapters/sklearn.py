"""LPIPS as a transformer of scikit-learn: ``lpipstore.sklearn``."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from ...cache.errors import LpipstoreError, UsageError, setting
from ...cache.store import FeatureStore
from ...pipeline.common.budget import too_little
from ...pipeline.common.text import printable
from ...pipeline.embeddings.vectors import (
    Embedding,
    WholeRows,
    fit_projection,
    grids_to_project,
    need_nonnegative,
    read_vectors,
)
from ...pipeline.features.pooled import PooledRows
from ...pipeline.images.survey import ImageRecord
from ...pipeline.sources.arrays import ValueRange
from ...pipeline.sources.kinds.memory import MemoryImages
from ..session.collection import Collection
from ..session.keywords import Options, settings_of
from ..session.logged import LoggedScreen
from ..session.session import Session, make_collection, open_session
from ..session.settings import parse_bytes

__all__ = ["LPIPSEmbedding"]


class LPIPSEmbedding(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turn images into vectors whose squared Euclidean distances are LPIPS.

    So that every estimator that works on Euclidean distances, such as `KMeans` and
    `NearestNeighbors`, works on LPIPS. `X` is a sequence with an image for each sample: an array
    [N, height, width, 3], a tensor [N, 3, height, width], or a list, Series or column of paths,
    arrays or Pillow images. Arrays are uint8, or floating point with a `value_range`.

    Parameters
    ----------
    n_components
        Project onto so many directions, those in which the images of `fit` differ most. Squared
        distances are then lower bounds of LPIPS. None keeps rows whole: D numbers, such as 31,872
        with alex at 64 pixels.
    backbone
        "alex", "vgg" or "squeeze".
    version
        LPIPS version, "0.1" or "0.0".
    weights
        "imagenet", "random" or a file: the weights of the trunk.
    heads
        None (those of the lpips package), "none" (the unweighted baseline) or a file. Its weights
        must not be negative.
    size
        "auto" (the own size of the images of `fit`; of several sizes 224×224), "native", a number
        of pixels, or (height, width). `transform` scales to the size of `fit`.
    value_range
        (lowest, highest) possible value of floating-point images.
    store
        Folder of a feature store, in which no image goes through the trunk twice; None keeps rows
        only during a call.
    memory
        For rows, such as "4GB".
    device
        "auto", "cpu", "cuda" or "cuda:N".
    workers
        Threads that decode; None is one for each core, 8 at most.

    Attributes
    ----------
    size_ : tuple of int
        (height, width) to which images are scaled.
    head_digest_, weights_digest_ : str
        What the vectors depend on besides the images.
    embedding_ : Embedding
        Turns stored rows into vectors; see `lpipstore.pipeline.embeddings.vectors`.

    Examples
    --------
    >>> import numpy as np
    >>> from lpipstore.sklearn import LPIPSEmbedding
    >>> pictures = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    >>> embedding = LPIPSEmbedding(backbone="squeeze", weights="random")
    >>> embedding.fit_transform(pictures).shape
    (5, 24768)
    >>> plane = LPIPSEmbedding(n_components=2, backbone="squeeze", weights="random")
    >>> plane.fit(pictures).transform(pictures).shape
    (5, 2)
    """

    def __init__(
        self,
        n_components: int | None = None,
        *,
        backbone: str = "alex",
        version: str = "0.1",
        weights: str | os.PathLike[str] = "imagenet",
        heads: str | os.PathLike[str] | None = None,
        size: str | int | tuple[int, int] = "auto",
        value_range: ValueRange | None = None,
        store: str | os.PathLike[str] | FeatureStore | None = None,
        memory: str | int = "4GB",
        device: str = "auto",
        workers: int | None = None,
    ) -> None:
        self.n_components = n_components
        self.backbone = backbone
        self.version = version
        self.weights = weights
        self.heads = heads
        self.size = size
        self.value_range = value_range
        self.store = store
        self.memory = memory
        self.device = device
        self.workers = workers

    def fit(self, X: Any, y: object = None) -> Self:  # noqa: ANN401, N803 - as scikit-learn has it
        """Find the size of the images and, with `n_components`, the directions of most variance.

        Raises
        ------
        UsageError
            An argument is invalid, or `X` is no sequence of images; also a ValueError.
        LpipstoreError
            An image cannot be read.
        """
        with self._session(self.size) as session:
            self._fit(self._images(X, session), session)
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:  # noqa: ANN401, N803
        """Return the vectors of images.

        Returns
        -------
        ndarray of shape (N, n_components or D), float32

        Raises
        ------
        UsageError, LpipstoreError
            As for `fit`; or the weights of the trunk have changed since.
        """
        check_is_fitted(self)
        with self._session(self.size_) as session:
            return self._vectors(self._images(X, session))

    def fit_transform(self, X: Any, y: object = None, **_: object) -> NDArray[np.float32]:  # noqa: ANN401, N803
        """Do `fit` and `transform`; each image goes through the trunk once."""
        with self._session(self.size) as session:
            collection = self._images(X, session)
            self._fit(collection, session)
            return self._vectors(collection)

    @property
    def _n_features_out(self) -> int:
        """Numbers in a vector, for `get_feature_names_out`."""
        return int(self.embedding_.width)

    def __sklearn_tags__(self) -> Any:  # noqa: ANN401
        """Say that samples are images, not lines of a table."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.no_validation = True  # there are no features whose number or names could be checked
        return tags

    @contextmanager
    def _session(self, size: Any) -> Iterator[Session]:  # noqa: ANN401
        """Open the store that was chosen, or one that goes when the call ends."""
        chosen: Options = {
            "backbone": self.backbone,
            "version": self.version,
            "weights": self.weights,
            "heads": self.heads,
            "size": size,
            "value_range": self.value_range,
            "memory": self.memory,
            "device": self.device,
            "workers": self.workers,
        }
        with tempfile.TemporaryDirectory(prefix="lpipstore-") as scratch:
            chosen["store"] = Path(scratch) / "store" if self.store is None else self.store
            with (
                LoggedScreen() as screen,
                open_session(settings_of(chosen), screen) as session,
            ):
                yield session

    def _images(self, X: Any, session: Session) -> Collection:  # noqa: ANN401, N803
        """Return the samples as a collection: a record for each, in order."""
        names = _names(X, self.value_range, session)
        records = session.survey(names)
        _need_all(records)
        return make_collection(records, session)

    def _fit(self, collection: Collection, session: Session) -> None:
        extractor, head = collection.features.extractor, collection.head(session.settings)
        need_nonnegative(head)
        embedding: Embedding = WholeRows.of(head, extractor.layout, extractor.spec.dtype)
        if self.n_components is not None:
            dims = self.n_components
            if isinstance(dims, bool) or not isinstance(dims, int | np.integer):
                raise UsageError(f"n_components must be a whole number or None, not {dims!r}")
            pooled = PooledRows(collection.features, grids_to_project(extractor.layout))
            with collection.pinned("LPIPSEmbedding", pooled):
                contents = _complete(collection, pooled)
                memory = parse_bytes(str(self.memory))
                embedding = fit_projection(pooled, contents, head, int(dims), memory)
        self.embedding_ = embedding
        self.size_ = extractor.size
        self.head_digest_ = head.digest
        self.weights_digest_ = extractor.backbone.weights_digest

    def _vectors(self, collection: Collection) -> NDArray[np.float32]:
        extractor, embedding = collection.features.extractor, self.embedding_
        if extractor.backbone.weights_digest != self.weights_digest_:
            raise LpipstoreError(
                f"the weights of the trunk ({printable(extractor.backbone.weights_origin)}) are "
                f"not those that were fitted: fit again, or name them with {setting('weights')}"
            )
        grids = () if embedding.grid is None else (embedding.grid,)
        pooled = PooledRows(collection.features, grids)
        with collection.pinned("LPIPSEmbedding", pooled):
            contents = _complete(collection, pooled)
            found = np.empty((len(contents), embedding.width), np.float32)
            row = extractor.spec.row_bytes + 4 * embedding.width
            few = parse_bytes(str(self.memory)) // row
            if few < 1:
                raise too_little(f"rows of {row / 1e6:.3g} MB", row)
            for start in range(0, len(contents), few):
                some = contents[start : start + few]
                found[start : start + len(some)] = read_vectors(embedding, pooled, some)
        return found


def _complete(collection: Collection, pooled: PooledRows) -> list[bytes]:
    """Compute the rows that the store lacks; return the content hash of each sample."""
    pooled.ensure(collection.contents())
    collection.mark_failures()
    _need_all(collection.records)
    return collection.contents()


def _need_all(records: Sequence[ImageRecord]) -> None:
    for number, record in enumerate(records):
        if record.error:
            raise LpipstoreError(f"sample {number}, {printable(record.path)}: {record.error}")


def _names(X: Any, value_range: ValueRange | None, session: Session) -> list[str]:  # noqa: ANN401, N803
    """Return the name of each sample; images in memory are added to the sources of the session."""
    if isinstance(X, str | os.PathLike):
        raise UsageError(
            f"X is a sequence with an image for each sample, and the path {printable(os.fspath(X))}"
            " came: list the images, as by sorted(Path(folder).iterdir())"
        )
    if hasattr(X, "to_numpy"):  # a pandas or polars column of paths
        X = X.to_numpy()  # noqa: N806
    if isinstance(X, np.ndarray) and X.dtype.kind in "OUT" and X.ndim == 2 and X.shape[1] == 1:
        X = X[:, 0]  # noqa: N806 - a table of one column
    shape = getattr(X, "shape", None)
    of_numbers = isinstance(X, torch.Tensor) or (
        isinstance(X, np.ndarray) and X.dtype.kind not in "OUT"
    )
    if of_numbers and len(X.shape) != 4:
        raise UsageError(
            "X must have the shape [N, height, width, 3] (an array) or [N, 3, height, width] (a "
            f"tensor), and {list(X.shape)} came"
        )
    if not hasattr(X, "__len__") or not hasattr(X, "__getitem__"):
        raise UsageError(f"X must be a sequence of images, not a {type(X).__name__}")
    if len(X) == 0:
        raise UsageError(f"X has 0 samples{f' (shape {list(shape)})' if shape else ''}")
    if of_numbers:
        return session.sources.add(MemoryImages(X, value_range))
    held = [one for one in X if isinstance(one, np.ndarray | torch.Tensor | Image.Image)]
    in_memory = iter(session.sources.add(MemoryImages(held, value_range)))
    names = []
    for number, one in enumerate(X):
        if isinstance(one, str | os.PathLike):
            names.append(os.fspath(one))
        elif isinstance(one, np.ndarray | torch.Tensor | Image.Image):
            names.append(next(in_memory))
        else:
            raise UsageError(
                f"samples are paths, arrays, tensors or Pillow images, and sample {number} is a "
                f"{type(one).__name__}"
            )
    return names
