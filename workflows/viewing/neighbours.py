"""The images of a collection that are nearest to new ones."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from ...pipeline.images.survey import ImageRecord
from ...pipeline.runs.reopen import Recipe, reopen_kind, reopen_recipe, reopen_records
from ...pipeline.runs.run import FinishedRun, open_run
from ...pipeline.sources.sources import Given
from ..rerun.reproduce import near, need_same_recipe, settings_of
from ..scoring.close_across import CloseAcross
from ..scoring.close_pairs import Question
from ..scoring.compare import CrossPairs
from ..scoring.job import run_job
from ..session.collection import need_images
from ..session.dryrun import Forecast
from ..session.screen import Lines, Screen
from ..session.session import find_collection, open_session
from ..session.settings import Settings
from ..session.summary import Summary
from .close import run_among

TOP_K = 10
_SHOWN = 20  # queries in the lines for people


@dataclass(frozen=True)
class Query:
    """An image, and its nearest images with their distances, the nearest first."""

    path: str
    neighbours: list[tuple[str, float]]


@dataclass(frozen=True)
class NearestImages:
    """The nearest of `images` images for each query; `failed` images cannot be used."""

    title: ClassVar[str] = "Nearest images"
    images: int
    queries: list[Query]
    forwards: int
    failed: int

    def entries(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        queries = [
            {
                "path": query.path,
                "neighbours": [
                    {"path": path, "distance": distance} for path, distance in query.neighbours
                ],
            }
            for query in self.queries
        ]
        return {**vars(self), "queries": queries}

    def lines(self) -> Lines:
        """Return the first queries and their neighbours as lines for people."""
        shown: Lines = []
        for query in self.queries[:_SHOWN]:
            shown.append(("query", near(query.path)))
            shown += [
                (str(rank), f"{distance:.4f}  {near(path)}")
                for rank, (path, distance) in enumerate(query.neighbours, 1)
            ] or [("", "nothing is that close")]
        more = len(self.queries) - _SHOWN
        return [
            ("images", f"{self.images:,}"),
            ("failed", f"{self.failed:,}"),
            ("forwards", f"{self.forwards:,}"),
            *shown,
            *([("", f"and {more:,} more queries: JSON and a run have all")] if more > 0 else []),
        ]


def find_neighbours(
    given: Sequence[Given],
    queries: Sequence[Given],
    out: Path | None,
    settings: Settings,
    screen: Screen,
    *,
    below: float | None = None,
    top_k: int | None = None,
) -> NearestImages | Summary | Forecast:
    """Find the images nearest to new ones; with `out` write a run, as `compare_close` does.

    Parameters
    ----------
    given
        A finished run, which decides the settings and whose rows come from the store; or images.
    queries
        The new images.
    out
        Folder of the run. None keeps nothing and returns the neighbours.
    below, top_k
        As for `compare_close`; without both, the 10 nearest.

    Raises
    ------
    UsageError
        A setting contradicts the run, or the run has no images to search.
    LpipstoreError
        There are no images to search or to search for, weights or head of the run have changed, or
        `out` holds a different run.
    """
    question = Question(below, TOP_K if top_k is None and below is None else top_k)
    question.need_exact(settings)
    run = run_among(given)
    if out is not None:
        return _search(run, given, queries, question, out, settings, screen)
    with tempfile.TemporaryDirectory(prefix="lpipstore-neighbours-") as scratch:
        folder = Path(scratch) / "run"
        made = _search(run, given, queries, question, folder, settings, screen)
        return made if isinstance(made, Forecast) else _nearest(open_run(folder))


def _search(
    run: FinishedRun | None,
    given: Sequence[Given],
    queries: Sequence[Given],
    question: Question,
    out: Path,
    settings: Settings,
    screen: Screen,
) -> Summary | Forecast:
    check = None
    if run is not None:
        reopen_kind(run, "neighbours")  # raises if it has no images to search
        recipe = reopen_recipe(run)
        settings, then = _settings_of(run, recipe, settings)
        check = partial(need_same_recipe, run, then)
    with open_session(settings, screen, check=check) as session:
        first = find_collection(queries, session)
        second = find_collection(given, session) if run is None else _images_of(run)
        job = CloseAcross(question, CrossPairs(len(first)))
        return run_job(job, first + second, out, session)


def _settings_of(run: FinishedRun, recipe: Recipe, settings: Settings) -> tuple[Settings, Settings]:
    """Return the settings of a search in a run, and the same with the precision of the run.

    Distances of a run may be fast; a search is exact.
    """
    decided = settings_of(run, recipe, settings, "the run that was given")
    return replace(decided, precision="exact"), decided


def _images_of(run: FinishedRun) -> list[ImageRecord]:
    """Return the usable images of a run; nothing is looked for on disk."""
    records = reopen_records(run)
    need_images(records)
    return [record for record in records if not record.error]


def _nearest(run: FinishedRun) -> NearestImages:
    """Read queries and neighbours out of a run."""
    images = run.images.select(["side", "status", "path"]).to_pylist()
    usable = [image for image in images if image["status"] == "ok"]
    queries = [Query(image["path"], []) for image in usable if image["side"] == "first"]
    pairs = run.pairs
    columns = (pairs[name].to_pylist() for name in ("i", "path_j", "distance"))
    for number, path, distance in zip(*columns, strict=True):
        queries[number].neighbours.append((path, distance))
    return NearestImages(
        images=len(usable) - len(queries),
        queries=queries,
        forwards=run.forwards,
        failed=len(images) - len(usable),
    )
