"""Rescore a finished run under other heads: same images and pairs, from rows or statistics."""

import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...cache.errors import LpipstoreError, UsageError, setting
from ...pipeline.backbones.backbone import Backbone
from ...pipeline.backbones.load import load_backbone
from ...pipeline.common.atomic import replacing
from ...pipeline.common.progress import Stopwatch
from ...pipeline.common.text import printable
from ...pipeline.distances.heads import Head, load_head
from ...pipeline.features.extractor import choose_device
from ...pipeline.images.survey import ImageRecord
from ...pipeline.matrix.summary import cross_summary, pair_summary
from ...pipeline.runs.files import DISTANCES, IMAGES, MANIFEST, PAIRS
from ...pipeline.runs.reopen import (
    Recipe,
    reopen_extractor,
    reopen_kind,
    reopen_recipe,
    reopen_records,
    reopen_source_choices,
)
from ...pipeline.runs.run import Run, open_run
from ...pipeline.runs.writing import writing_run
from ..scoring.all_pairs import score_to_files
from ..scoring.close_pairs import rescore_close
from ..scoring.job import finish_run
from ..session.collection import STAGES, Collection
from ..session.manifest import versions
from ..session.screen import Screen
from ..session.session import Session, bind, open_session, warn_of_own_trunk
from ..session.settings import Settings
from .rescore_lists import rescore_rows, rescore_statistics


@dataclass(frozen=True)
class Rescored:
    """A head, and the folder of its run."""

    head: Head
    folder: Path


class RowsMissing(LpipstoreError):  # noqa: N818 - named for the condition
    """Rows are missing from the store and must not be computed; `paths` are their images."""

    def __init__(self, message: str, paths: Sequence[str]) -> None:
        super().__init__(message)
        self.paths = list(paths)


def rescore_run(
    folder: Path,
    heads: Sequence[str],
    out: Path,
    settings: Settings,
    screen: Screen,
    *,
    compute: bool = True,
    from_rows: bool = False,
) -> dict[str, Any]:
    """Score the pairs of a finished run under other heads.

    With one head, `out` becomes the run; with several, `out` gets a run for each, named after the
    head's file. Each run is byte for byte what the original command would produce with that head
    (within 1e-6 for a list scored from its kept statistics). Rows are read once for all heads;
    weights are loaded only if rows are missing.

    Parameters
    ----------
    folder
        The finished run.
    heads
        Files of heads, "none" or "stock".
    compute
        Compute rows that are missing from the store; if False, they are an error.
    from_rows
        Read rows even if statistics were kept.

    Returns
    -------
    dict
        ``runs``: head, folder and summary of each run; ``forwards``, ``rows_read``, ``failed`` and
        ``seconds`` over all of them.

    Raises
    ------
    RowsMissing
        Rows are missing from the store and `compute` is False.
    LpipstoreError
        The run is not finished or is damaged, a head, the weights or the store cannot be used, the
        image of a missing row has changed or is gone, or a folder of the results holds a different
        run or cannot be written to.
    """
    clock = Stopwatch(*STAGES)
    run = open_run(folder)
    recipe = reopen_recipe(run)
    kind = reopen_kind(run, "rescore")
    _need_results(run, kind)
    from_statistics = bool(run.manifest.get("statistics")) and not from_rows
    sources: dict[str, Any] = {**reopen_source_choices(run)}
    settings = replace(_settings_of(recipe, settings), **sources)
    with open_session(settings, screen, clock) as session:
        collection = reopen_collection(run, recipe, session)
        targets = _targets(heads, recipe, collection.features.extractor.backbone, out)
        warn_of_own_trunk(heads, settings.weights, screen)
        manifests = [_manifest(run, target.head) for target in targets]
        if from_statistics:
            manifests = [{**manifest, "from_statistics": True} for manifest in manifests]
        elif not compute:
            _need_rows(collection)
        with ExitStack() as stack:
            for target, manifest in zip(targets, manifests, strict=True):
                stack.enter_context(writing_run(target.folder, manifest))
                _copy_images(run, target.folder)
            if from_statistics:
                summaries = rescore_statistics(run, _pairs(targets), collection)
            else:
                stack.enter_context(collection.pinned(printable(str(out))))
                score = _SCORERS[kind]
                summaries = score(run, _pairs(targets), collection, session)
    collection.warn_if_reading_is_slow(screen)
    features = collection.features
    return {
        "runs": [
            {"head": target.head.name, "folder": str(target.folder), **summary}
            for target, summary in zip(targets, summaries, strict=True)
        ],
        "forwards": features.forwards,
        "rows_read": features.rows_read,
        "failed": len(collection.records) - len(collection.good),
        "seconds": {**clock.seconds, "total": clock.total()},
    }


def reopen_collection(run: Run, recipe: Recipe, session: Session) -> Collection:
    """Bind the images of a run to the store that has, or had, their rows."""
    settings = session.settings

    def load() -> Backbone:
        return load_backbone(
            recipe.backbone,
            version=recipe.lpips_version,
            weights=settings.weights,
            taps=settings.tap_names,
            table=session.store,
        )

    records = reopen_records(run)
    extractor = reopen_extractor(run, load, choose_device(settings.device))
    return bind(records, extractor, session)


def _need_results(run: Run, kind: str) -> None:
    needed = PAIRS if kind == "close" else f"{DISTANCES}/zarr.json"
    if not (run.path / needed).exists():
        raise UsageError(f"{printable(str(run.path))} is a damaged run: it has no {needed}")


def _settings_of(recipe: Recipe, settings: Settings) -> Settings:
    """Take the settings that determine rows and distances from the run, others from `settings`."""
    open_choice = settings.weights == Settings().weights and "weights" not in settings.given
    return replace(
        settings,
        backbone=recipe.backbone,
        taps=recipe.own_taps,
        lpips_version=recipe.lpips_version,
        weights=recipe.weights_choice if open_choice else settings.weights,
        row_dtype=recipe.row_choice,
        trunk_dtype=recipe.trunk_dtype,
        precision=recipe.precision,
    )


def _targets(
    choices: Sequence[str], recipe: Recipe, backbone: Backbone, out: Path
) -> list[Rescored]:
    """Load the heads, and choose a folder for each."""
    heads = [
        load_head(choice, recipe.backbone, backbone.channels, recipe.lpips_version)
        for choice in choices
    ]
    if len(heads) == 1:
        return [Rescored(heads[0], out)]
    if (out / MANIFEST).exists():
        raise UsageError(
            f"{printable(str(out))} holds a run, and several heads take a folder with a run for "
            f"each: choose another {setting('out')}"
        )
    names = [_folder_name(choice) for choice in choices]
    names = [
        name if names.count(name) == 1 else f"{name}-{head.digest[:8]}"
        for name, head in zip(names, heads, strict=True)
    ]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{setting('heads', name.rpartition('-')[0])} is given twice")
    return [Rescored(head, out / name) for head, name in zip(heads, names, strict=True)]


def _folder_name(choice: str) -> str:
    """Return the folder name of a head's run: that of the head's file or folder.

    Raises
    ------
    UsageError
        The name is empty, "." or "..": the run would lie in `out` itself or outside of it.
    """
    name = os.path.basename(os.path.abspath(os.path.expanduser(choice))).removesuffix(".pth")
    if name in ("", os.curdir, os.pardir):
        raise UsageError(
            f"{setting('heads', printable(choice))} leaves no name for the folder of its run: "
            "rename the file, or score it in a command of its own"
        )
    return name


def _pairs(targets: Sequence[Rescored]) -> list[tuple[Head, Path]]:
    return [(target.head, target.folder) for target in targets]


def _manifest(run: Run, head: Head) -> dict[str, Any]:
    """Return the manifest that the original command would write with another head."""
    folder = str(run.manifest["folder"])  # base of relative paths, including that of the head
    here = os.path.isfile(head.name) and folder != printable(os.getcwd())
    changed = {
        "head": printable(os.path.abspath(head.name)) if here else head.name,
        "head_digest": head.digest,
        "folder": folder,
        "versions": versions(),
        "rescored_from": printable(os.path.abspath(run.path)),
    }
    manifest = {**run.manifest, **changed}
    if "statistics" in manifest:
        manifest["statistics"] = False
    return manifest


def _copy_images(run: Run, folder: Path) -> None:
    with (run.path / IMAGES).open("rb") as table, replacing(folder / IMAGES) as file:
        shutil.copyfileobj(table, file)


def _need_rows(collection: Collection) -> None:
    """Raise `RowsMissing` unless all rows are in the store."""
    features = collection.features
    by_key = {features.key(content): content for content in collection.contents()}
    missing = [features.names[by_key[key]] for key in features.store.missing(list(by_key))]
    if missing:
        raise RowsMissing(
            f"{len(missing):,} of {len(by_key):,} rows are not in the store at "
            f"{features.store.path}: leave out {setting('compute', value=False)} to compute them "
            f"(one forward each), or name another {setting('store')}",
            [printable(path) for path in missing],
        )


def _rescore_matrix(
    run: Run, heads: Sequence[tuple[Head, Path]], collection: Collection, session: Session
) -> list[dict[str, Any]]:
    """Score a matrix under each head; return the summaries."""
    hits = collection.complete()
    first = _rows_of(run, collection.records)
    scored = score_to_files(collection, first, heads, session)
    summaries = []
    for (matrix, told), (_, out) in zip(scored, heads, strict=True):
        with collection.features.clock("score"):
            if first is None:
                figures = pair_summary(matrix.band, len(collection.good), matrix.tile)
            else:
                figures = cross_summary(matrix.band, matrix.array.shape, matrix.tile)
                figures |= {"first": first, "second": matrix.array.shape[1]}
        collection.warn_of_trouble(session.screen)
        summary = finish_run(collection, hits, {**told, **figures}, out, session.screen)
        summaries.append(summary)
    return summaries


def _rows_of(run: Run, records: Sequence[ImageRecord]) -> int | None:
    """Return how many usable images are rows of a matrix of two folders; None for all pairs."""
    if "side" not in run.images.column_names:
        return None
    sides: list[str] = run.images.column("side").to_pylist()
    return sum(
        side == "first" and not record.error for side, record in zip(sides, records, strict=True)
    )


_SCORERS = {
    "pairs": _rescore_matrix,
    "compare": _rescore_matrix,
    "close": rescore_close,
    "groups": rescore_rows,
    "paired": rescore_rows,
    "score": rescore_rows,
}


def _figure(run: dict[str, Any]) -> str:
    """Return the main figures for one head as text."""
    if "listed" in run:
        return f"{run['listed']:,} close of {run['pairs']:,} pairs"
    error = run.get("precision_error")
    fast = "" if error is None else f", fast: within {error:.1g} of exact (sampled)"
    if "groups" in run:
        groups = run["groups"]
        return f"mean {groups['mean']:.4f} of {groups['scored']:,} groups{fast}"
    return f"mean {run['mean']:.4f} of {run['pairs']:,} pairs{fast}"


def rescore_lines(outcome: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the summary lines, as (name, value) pairs."""
    lines = [
        ("forwards", f"{outcome['forwards']:,} (rows read: {outcome['rows_read']:,})"),
        *((printable(run["folder"]), _figure(run)) for run in outcome["runs"]),
    ]
    seconds = outcome["seconds"]
    stages = ", ".join(f"{name} {seconds[name]:.2f}" for name in ("read", "score", "write"))
    return [*lines, ("seconds", f"{seconds['total']:.2f} ({stages})")]
