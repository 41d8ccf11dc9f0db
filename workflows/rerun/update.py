"""Update a run of all pairs after its collection changed: score only new rows and columns."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError, UsageError, setting
from ...pipeline.common.progress import Stopwatch
from ...pipeline.common.text import printable
from ...pipeline.distances.heads import Head, column_weights
from ...pipeline.features.pooled import PooledRows
from ...pipeline.images.decode import content_hash
from ...pipeline.images.survey import ImageRecord
from ...pipeline.matrix.merge import Pieces, assemble
from ...pipeline.matrix.plan import plan_matrix
from ...pipeline.matrix.score import fast_error, score_matrix
from ...pipeline.matrix.summary import Figures, pair_summary
from ...pipeline.runs.files import DISTANCES, MANIFEST, write_json
from ...pipeline.runs.reopen import reopen_recipe, reopen_records
from ...pipeline.runs.run import FinishedRun, open_run
from ...pipeline.runs.zarr_array import MatrixFile
from ...pipeline.sources.names import absolute
from ...pipeline.sources.sources import Given
from ..scoring.all_pairs import AllPairs, plan_pairs
from ..scoring.job import Heads, run_job
from ..session.collection import STAGES, Collection
from ..session.dryrun import Forecast
from ..session.manifest import head_attributes
from ..session.screen import Lines, Screen
from ..session.session import Session, find_collection, open_session
from ..session.settings import Settings, parse_bytes
from ..session.summary import Results, Summary
from .reproduce import near, need_same_recipe, settings_of, shorten

CHANGES = "changes.json"
_ADDED = ".lpipstore-added"  # temporary folder in the run while it is being written


@dataclass(frozen=True)
class Changes:
    """The differences between a run and a collection, as printable paths.

    A file that is now at another path is `renamed`, as (old path, new path); one more copy of an
    image is `added`.
    """

    added: list[str]
    removed: list[str]
    changed: list[str]
    renamed: list[tuple[str, str]]

    @classmethod
    def between(cls, run: FinishedRun, records: Sequence[ImageRecord]) -> "Changes":
        """Compare the usable images of a run with those of `records`."""
        old = {_place(r.path): r.content for r in reopen_records(run) if not r.error}
        new = {_place(r.path): r.content for r in records if not r.error}
        strangers = [path for path in new if path not in old]
        gone: dict[bytes | None, list[str]] = {}
        for path in reversed([path for path in old if path not in new]):
            gone.setdefault(old[path], []).append(path)
        renamed = [(gone[new[path]].pop(), path) for path in strangers if gone.get(new[path])]
        moved = set(chain.from_iterable(renamed))
        return cls(
            added=[path for path in strangers if path not in moved],
            removed=[path for path in old if path not in new and path not in moved],
            changed=[path for path in new if path in old and old[path] != new[path]],
            renamed=renamed,
        )

    def tell(self, screen: Screen) -> None:
        """Print what changed, with the first few names."""
        shown = {
            "added": [*map(near, self.added)],
            "removed": [*map(near, self.removed)],
            "changed": [*map(near, self.changed)],
            "renamed": [f"{near(was)} → {near(now)}" for was, now in self.renamed],
        }
        for kind, names in shown.items():
            if names:
                screen.say(f"{len(names):,} {kind}: {shorten(names)}")
        if not any(self.__dict__.values()):
            screen.say("no image was added, removed or changed since the run")


def _place(path: str) -> str:
    return printable(absolute(path))


def update_pairs(
    sources: Sequence[Given],
    old: Path,
    out: Path,
    settings: Settings,
    screen: Screen,
) -> Summary | Forecast:
    """Score all pairs of the images in `sources`, taking over distances from the run `old`.

    The old run is only read, and determines the settings. Repeating an interrupted call resumes
    it. Distances are within 1e-7 of those of a fresh run. Returns the summary.

    Raises
    ------
    LpipstoreError
        `old` is not a finished run of all pairs, a setting contradicts it, its weights or head
        have changed, fewer than two images can be used, ``settings.memory`` is too small, the store
        cannot be used, or `out` is the folder of `old`, holds a different run or cannot be written
        to.
    """
    clock = Stopwatch(*STAGES)
    run = open_run(old)
    recipe = reopen_recipe(run)
    if recipe.command != "pairs" or run.distances.ndim != 2 or "side" in run.images.column_names:
        raise UsageError(
            f"{printable(str(old))} is not a run of all pairs, which alone can be updated"
        )
    if out.exists() and out.samefile(old):
        raise UsageError(
            f"{setting('out')} has to be another folder than the run that {setting('update')} names"
        )
    settings = settings_of(run, recipe, settings, setting("update"))
    check = partial(need_same_recipe, run, settings)
    with open_session(settings, screen, clock, check) as session:
        records = find_collection(sources, session)
        return run_job(Update(run), records, out, session)


@dataclass(frozen=True)
class Update(AllPairs):
    """All pairs of a collection, of which a finished run has some."""

    title = "All pairs, updated"
    run: FinishedRun

    def asked(self) -> Mapping[str, str]:
        """Return the digest of the run's manifest."""
        manifest = (self.run.path / MANIFEST).read_bytes()
        return {"updated_from": content_hash(manifest).hex()}

    def extract(self, collection: Collection, pooled: PooledRows) -> int:
        """Compute the rows that the store lacks, if any row is needed."""
        contents, places = collection.contents(), _places(self.run)
        if not all(content in places for content in contents):
            return super().extract(collection, pooled)
        features = collection.features
        missing = features.store.missing([features.key(content) for content in contents])
        return len(set(contents)) - len(missing)

    def score(self, collection: Collection, heads: Heads, session: Session) -> list[Results]:
        """Take over what the run has, score the rest; return the results."""
        return [_update(self.run, head, collection, out, session) for head, out in heads]


@dataclass(frozen=True)
class UpdateResults(Results):
    """The results of an updated matrix.

    Attributes
    ----------
    update
        The earlier run, how many images were added, removed, changed and renamed, and how many
        pairs were computed.
    """

    files: ClassVar[tuple[str, ...]] = (DISTANCES,)
    pairs: int
    precision: str
    update: Mapping[str, str | int]
    precision_error: float | None
    figures: Figures

    def besides(self) -> Lines:
        """Return lines on what changed and what was computed."""
        kinds = ("added", "removed", "changed", "renamed")
        return [
            ("changes", ", ".join(f"{self.update[kind]:,} {kind}" for kind in kinds)),
            ("computed", f"{self.update['computed']:,} pairs"),
        ]


def _update(
    run: FinishedRun, head: Head, collection: Collection, out: Path, session: Session
) -> UpdateResults:
    settings, features, contents = session.settings, collection.features, collection.contents()
    places = _places(run)
    changes = Changes.between(run, collection.records)
    changes.tell(session.screen)
    write_json(out / CHANGES, changes.__dict__)
    new = [c for c in dict.fromkeys(contents) if c not in places]
    kept = [c for c in dict.fromkeys(contents) if c in places]
    matrix = _score(run, places, new, kept, head, collection, out, session)
    error = None
    if settings.precision == "fast":
        error = fast_error(features, contents, column_weights(head, features.extractor.layout))
    with session.clock("score"):
        figures = pair_summary(matrix.band, len(contents), matrix.tile)
    return UpdateResults(
        pairs=len(contents) * (len(contents) - 1) // 2,
        precision=settings.precision,
        update={
            "run": printable(os.path.abspath(run.path)),
            **{kind: len(names) for kind, names in changes.__dict__.items()},
            "computed": len(new) * len(kept) + len(new) * (len(new) - 1) // 2,
        },
        precision_error=error,
        figures=figures,
    )


def _places(run: FinishedRun) -> dict[bytes, int]:
    """Return the row of each content in the matrix of a run."""
    contents = [r.content for r in reopen_records(run) if not r.error]
    places = {content: place for place, content in enumerate(contents) if content}
    if run.distances.shape != (len(contents), len(contents)):
        raise LpipstoreError(
            f"the run in {printable(str(run.path))} is damaged: {len(contents):,} images, and a "
            f"matrix of shape {run.distances.shape}"
        )
    return places


def _score(
    run: FinishedRun,
    places: dict[bytes, int],
    new: Sequence[bytes],
    kept: Sequence[bytes],
    head: Head,
    collection: Collection,
    out: Path,
    session: Session,
) -> MatrixFile:
    """Score new images among themselves and against kept ones, and assemble the matrix."""
    settings, screen = session.settings, session.screen
    features, contents = collection.features, collection.contents()
    weights = column_weights(head, features.extractor.layout)
    attributes = {**head_attributes(head, settings.precision), **features.extractor.spec.recipe}
    plan = plan_pairs(collection, settings)
    matrix = MatrixFile(out, contents, None, plan.tile, attributes)
    todo = [tile for tile in plan.tiles() if not matrix.done(*tile)]
    if not todo:  # a process may have been killed between the last tile and the end
        _remove_added(out)
        return matrix

    def score(name: str, across: Sequence[bytes] | None) -> MatrixFile | None:
        if not new or (across is not None and not across):
            return None
        memory, columns = parse_bytes(settings.memory), None if across is None else len(across)
        part = plan_matrix(len(new), collection.row_bytes(), memory, columns=columns)
        file = MatrixFile(out / _ADDED / name, new, across, part.tile, attributes)
        fast = settings.precision == "fast"
        score_matrix(features, new, across, weights, part, file, screen.report, fast=fast)
        return file

    among, against = score("among", None), score("against", kept)
    number = {content: n for n, content in enumerate(new)}
    column = {content: n for n, content in enumerate(kept)}
    pieces = Pieces(
        old=run.path,
        among=None if among is None else among.array,
        against=None if against is None else against.array,
        places=_numbers(contents, places),
        numbers=_numbers(contents, number),
        columns=_numbers(contents, column),
    )
    with features.clock("write"):
        assemble(pieces, matrix, todo, screen.report)
    _remove_added(out)
    return matrix


def _remove_added(out: Path) -> None:
    """Remove the matrices of added images, which are now part of the whole matrix."""
    if (out / _ADDED).exists():
        shutil.rmtree(out / _ADDED)


def _numbers(contents: Sequence[bytes], of: dict[bytes, int]) -> NDArray[np.int64]:
    return np.array([of.get(content, -1) for content in contents], np.int64)
