"""Embeddings of a collection or of a finished run, in a file for a vector database or in memory."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError, setting
from ...pipeline.common.budget import too_little
from ...pipeline.common.text import printable
from ...pipeline.distances.heads import Head
from ...pipeline.embeddings.files import check_kind, names_path, open_vectors
from ...pipeline.embeddings.kept import share_kept
from ...pipeline.embeddings.vectors import (
    Embedding,
    Projection,
    WholeRows,
    check_dims,
    fit_projection,
    grids_to_project,
    need_nonnegative,
    read_vectors,
)
from ...pipeline.features.pooled import PooledRows
from ...pipeline.runs.reopen import reopen_kind, reopen_recipe
from ...pipeline.sources.sources import Given
from ..rerun.reproduce import need_same_recipe, settings_of
from ..rerun.rescore import reopen_collection
from ..session.collection import Collection, Counts, check_new
from ..session.manifest import versions
from ..session.preflight import warn_of_forwards
from ..session.screen import Lines, Screen
from ..session.session import Session, find_collection, make_collection, open_session
from ..session.settings import Settings, parse_bytes, show_bytes
from ..session.summary import show_stages
from ..viewing.close import run_among

_STEP_BYTES = 32 << 20  # of vectors that are written at a time: a chunk or a row group
_MOST_ROWS = 4096  # of them
_LARGE = 1_000_000_000


class Embeddings(NamedTuple):
    """Vectors and the names of their images.

    Attributes
    ----------
    vectors
        float32 [N, width]: squared Euclidean distances are LPIPS, or lower bounds of it.
    names
        The path of each image; ``python://images/0`` and so on for images in memory.
    """

    vectors: NDArray[np.float32]
    names: list[str]


@dataclass(frozen=True)
class Exported:
    """Embeddings in a file.

    Attributes
    ----------
    file, names
        The file of vectors, and that of the names of their images; None if the first has them.
    width
        Numbers in a vector.
    of
        Numbers in a row: `width`, unless vectors are projections.
    kept
        Mean squared distance of vectors relative to LPIPS, over sample pairs; None for whole rows.
    bytes
        Of all vectors.
    """

    title: ClassVar[str] = "Embeddings"
    counts: Counts
    file: Path
    names: Path | None
    width: int
    of: int
    kept: float | None
    bytes: int
    seconds: dict[str, float]

    def entries(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            **self.counts.entries(),
            "file": str(self.file),
            "names": None if self.names is None else str(self.names),
            "shape": [self.counts.images, self.width],
            "row": self.of,
            "kept": self.kept,
            "bytes": self.bytes,
            "seconds": self.seconds,
        }

    def lines(self) -> Lines:
        """Return it as lines for people."""
        meaning = "squared Euclidean distances are LPIPS"
        if self.kept is not None:
            meaning = (
                f"squared Euclidean distances are lower bounds of LPIPS: {self.kept:.1%} of it on "
                "average over sample pairs"
            )
        names = "in the column path" if self.names is None else printable(str(self.names))
        return [
            *self.counts.lines(),
            ("vectors", f"{self.counts.images:,} × {self.width:,} of {self.of:,} numbers, float32"),
            ("distances", meaning),
            ("file", f"{printable(str(self.file))} ({show_bytes(self.bytes)})"),
            ("names", names),
            ("seconds", show_stages(self.seconds, "decode", "forward", "read", "write")),
        ]


def export_embeddings(
    given: Sequence[Given],
    out: Path,
    settings: Settings,
    screen: Screen,
    *,
    dims: int | None = None,
) -> Exported:
    """Write the embeddings of images, or of the images of one finished run, to a file.

    Parameters
    ----------
    given
        Images, or the folder of a run, whose backbone, size and head are taken.
    out
        A .npy, .parquet or .zarr file that does not exist.
    dims
        Project rows to so many numbers; None keeps them whole.

    Raises
    ------
    UsageError
        The kind of file is unknown, the file exists, the head has negative weights, or a setting
        contradicts the run.
    LpipstoreError
        No image can be used, or the file cannot be written; nothing is left of it.
    """
    check_kind(out)
    beside = names_path(out)
    for path in (out, beside):
        if path is not None:
            check_new("out", path)

    def check(count: int, width: int) -> None:
        _check_disk(count * width * 4, out, screen)

    with _embedding(given, settings, screen, dims, check) as made:
        step = made.step
        shape = len(made.contents), made.embedding.width
        with open_vectors(out, shape, step, made.about()) as write:
            for start, vectors in made.batches(screen):
                with made.session.clock("write"):
                    write(vectors, made.names[start : start + len(vectors)])
        clock = made.session.clock
        return Exported(
            counts=made.collection.counts(made.hits),
            file=out,
            names=beside,
            width=shape[1],
            of=made.collection.features.extractor.layout.length,
            kept=made.kept,
            bytes=shape[0] * shape[1] * 4,
            seconds={**clock.seconds, "total": clock.total()},
        )


def embeddings_in_memory(
    given: Sequence[Given], settings: Settings, screen: Screen, *, dims: int | None = None
) -> Embeddings:
    """Return the embeddings of images, or of the images of one finished run.

    Raises
    ------
    UsageError
        The vectors do not fit in the memory of the settings, or as for `export_embeddings`.
    LpipstoreError
        No image can be used.
    """
    memory = parse_bytes(settings.memory)

    def check(count: int, width: int) -> None:
        if count * width * 4 > memory:
            raise too_little(
                f"{count:,} vectors of {width:,} numbers",
                count * width * 4,
                f"; {setting('dims', 128)} makes shorter ones",
            )

    with _embedding(given, settings, screen, dims, check) as made:
        found = np.empty((len(made.contents), made.embedding.width), np.float32)
        for start, vectors in made.batches(screen):
            found[start : start + len(vectors)] = vectors
        if made.kept is not None:
            screen.say(f"the vectors keep {made.kept:.1%} of the distances, on average")
        return Embeddings(found, made.names)


@dataclass(frozen=True)
class _Made:
    """An embedding of a collection whose rows are there, ready to be read."""

    collection: Collection
    session: Session
    pooled: PooledRows
    embedding: Embedding
    head: Head
    hits: int
    kept: float | None
    contents: list[bytes]
    names: list[str]

    @property
    def step(self) -> int:
        """Vectors that are written at a time."""
        return max(1, min(_MOST_ROWS, _STEP_BYTES // (4 * self.embedding.width)))

    def batches(self, screen: Screen) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield (number of the first, vectors), `step` vectors at a time but for the last ones."""
        memory, count = parse_bytes(self.session.settings.memory), len(self.contents)
        spec = self.collection.features.extractor.spec
        buffer = np.empty((min(self.step, count), self.embedding.width), np.float32)
        row = spec.row_bytes + 4 * self.embedding.width
        few = max(0, memory - buffer.nbytes) // row
        if few < 1:
            raise too_little(f"rows of {row / 1e6:.3g} MB", buffer.nbytes + row)
        for start in range(0, count, self.step):
            stop = min(start + self.step, count)
            for place in range(start, stop, few):
                some = self.contents[place : min(place + few, stop)]
                here = slice(place - start, place - start + len(some))
                buffer[here] = read_vectors(self.embedding, self.pooled, some)
                screen.report("vectors", place + len(some), count)
            yield start, buffer[: stop - start]

    def about(self) -> dict[str, Any]:
        """Return how the vectors are made: what two files must share to be comparable."""
        projected = isinstance(self.embedding, Projection)
        return {
            **self.collection.features.extractor.spec.recipe,
            "head": printable(self.head.name),
            "head_digest": self.head.digest,
            "distance": "lower bound" if projected else "squared Euclidean",
            "kept": self.kept,
            "versions": versions(),
        }


@contextmanager
def _embedding(
    given: Sequence[Given],
    settings: Settings,
    screen: Screen,
    dims: int | None,
    check: Callable[[int, int], None],
) -> Iterator[_Made]:
    """Compute the rows of images and derive their embedding.

    ``check(count, width)`` refuses more or longer vectors than there is room for: before anything
    is computed.
    """
    with _collection(given, settings, screen) as (collection, session):
        features, head = collection.features, collection.head(session.settings)
        layout, dtype = features.extractor.layout, features.extractor.spec.dtype
        need_nonnegative(head)
        if dims is not None:
            check_dims(dims, layout.length)
        check(len(collection.good), layout.length if dims is None else dims)
        pooled = PooledRows(features, () if dims is None else grids_to_project(layout))
        memory = parse_bytes(session.settings.memory)
        with collection.pinned("embeddings", pooled):
            hits = pooled.ensure(collection.contents())
            collection.mark_failures()
            collection.warn_of_trouble(screen)
            contents = collection.contents()
            if not contents:
                raise LpipstoreError("no image can be used: there is nothing to embed")
            embedding: Embedding = WholeRows.of(head, layout, dtype)
            kept = None
            if dims is not None:
                embedding = fit_projection(pooled, contents, head, dims, memory)
                kept = share_kept(embedding, pooled, contents, head, memory)
            names = [record.path for record in collection.good]
            yield _Made(collection, session, pooled, embedding, head, hits, kept, contents, names)


@contextmanager
def _collection(
    given: Sequence[Given], settings: Settings, screen: Screen
) -> Iterator[tuple[Collection, Session]]:
    """Open the store, and find the images or take those of a run."""
    run = run_among(given)
    if run is None:
        with open_session(settings, screen) as session:
            collection = make_collection(find_collection(given, session), session)
            warn_of_forwards(collection, screen)
            yield collection, session
        return
    reopen_kind(run, "export embeddings")
    recipe = reopen_recipe(run)
    settings = settings_of(run, recipe, settings, "the run")
    with open_session(settings, screen) as session:
        collection = reopen_collection(run, recipe, session)
        need_same_recipe(run, settings, collection)
        yield collection, session


def _check_disk(need: int, out: Path, screen: Screen) -> None:
    """Raise `LpipstoreError` if the disk has no room for the vectors; say so if they are large."""
    folder = out.absolute().parent
    if not folder.is_dir():
        raise LpipstoreError(
            f"cannot write {printable(str(out))}: there is no folder {printable(str(folder))}; "
            f"choose another {setting('out')}"
        )
    free = shutil.disk_usage(folder).free
    if need > free:
        raise LpipstoreError(
            f"the vectors take {show_bytes(need)}, and the disk of {setting('out')} has "
            f"{show_bytes(free)} free: {setting('dims', 128)} makes shorter ones"
        )
    if need >= _LARGE:
        screen.warn(f"the vectors take {show_bytes(need)} on disk")
