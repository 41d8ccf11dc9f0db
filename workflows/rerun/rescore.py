"""Rescore a finished run under other heads: same images and pairs, from rows or statistics."""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from ...cache.errors import LpipstoreError, UsageError, setting
from ...pipeline.backbones.backbone import Backbone
from ...pipeline.common.atomic import replacing
from ...pipeline.common.progress import Stopwatch
from ...pipeline.common.text import printable
from ...pipeline.distances.heads import Head, load_head
from ...pipeline.features.extractor import choose_device
from ...pipeline.runs.files import DISTANCES, IMAGES, MANIFEST, PAIRS
from ...pipeline.runs.reopen import (
    Recipe,
    reopen_extractor,
    reopen_kind,
    reopen_recipe,
    reopen_records,
    reopen_source_choices,
)
from ...pipeline.runs.run import FinishedRun, open_run
from ...pipeline.runs.writing import writing_run
from ..scoring.job import Heads, Job, score_heads
from ..scoring.kinds import KINDS
from ..session.collection import STAGES, Collection, fetched_lines
from ..session.manifest import versions
from ..session.screen import Lines, Screen
from ..session.session import Session, bind, open_session, warn_of_own_trunk
from ..session.settings import Settings
from ..session.summary import Summary, show_stages


@dataclass(frozen=True)
class Rescored:
    """The runs of several heads.

    Attributes
    ----------
    runs
        The name of each head, and the summary of its run.
    forwards, rows_read, failed, seconds
        Over all of them.
    fetched, fetched_bytes
        Rows that came from a remote store, and the bytes read there; None without one.
    """

    title: ClassVar[str] = "Rescored"
    runs: Sequence[tuple[str, Summary]]
    forwards: int
    rows_read: int
    failed: int
    seconds: Mapping[str, float]
    fetched: int | None = None
    fetched_bytes: int | None = None

    def entries(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        runs = [
            {"head": name, "folder": str(summary.out), **summary.entries()}
            for name, summary in self.runs
        ]
        told = {name: value for name, value in vars(self).items() if value is not None}
        return {**told, "runs": runs}

    def lines(self) -> Lines:
        """Return the runs as lines for people."""
        return [
            ("forwards", f"{self.forwards:,} (rows read: {self.rows_read:,})"),
            *fetched_lines(self.fetched, self.fetched_bytes),
            *((printable(str(run.out)), run.results.headline()) for _, run in self.runs),
            ("seconds", show_stages(self.seconds, "read", "score", "write")),
        ]


class RowsMissing(LpipstoreError):  # noqa: N818 - named for the condition
    """Rows are missing from the store and must not be computed; `paths` are their images."""

    def __init__(self, message: str, paths: Sequence[str]) -> None:
        super().__init__(message)
        self.paths = list(paths)

    def __reduce__(self) -> tuple[type["RowsMissing"], tuple[str, list[str]]]:
        return type(self), (self.message, self.paths)


def rescore_run(
    folder: Path,
    heads: Sequence[str],
    out: Path,
    settings: Settings,
    screen: Screen,
    *,
    compute: bool = True,
    from_rows: bool = False,
) -> Rescored:
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
        manifests = [_manifest(run, head) for head, _ in targets]
        if from_statistics:
            manifests = [{**manifest, "from_statistics": True} for manifest in manifests]
        elif not compute:
            _need_rows(collection)
        job = _reopen(run, KINDS[kind], collection, settings).rescored(run, from_rows=from_rows)
        with ExitStack() as stack:
            for (_, target), manifest in zip(targets, manifests, strict=True):
                stack.enter_context(writing_run(target, manifest))
                _copy_images(run, target)
            summaries = score_heads(job, collection, targets, out, session)
    features = collection.features
    return Rescored(
        runs=[(head.name, run) for (head, _), run in zip(targets, summaries, strict=True)],
        forwards=features.forwards,
        rows_read=features.rows_read,
        failed=len(collection.records) - len(collection.good),
        seconds={**clock.seconds, "total": clock.total()},
        fetched=None if features.remote is None else features.remote.rows,
        fetched_bytes=None if features.remote is None else features.remote.bytes,
    )


def _reopen(run: FinishedRun, kind: type[Job], collection: Collection, settings: Settings) -> Job:
    """Return the job of a run, with paths as they stand in its tables."""
    paths = run.images.column("path").to_pylist()
    records = [
        replace(record, path=path) for record, path in zip(collection.records, paths, strict=True)
    ]
    return kind.reopen(run, records, "", settings)


def reopen_collection(run: FinishedRun, recipe: Recipe, session: Session) -> Collection:
    """Bind the images of a run to the store that has, or had, their rows."""
    settings, records = session.settings, reopen_records(run)
    extractor = reopen_extractor(
        run, settings.weights, choose_device(settings.device), session.store
    )
    return bind(records, extractor, session)


def _need_results(run: FinishedRun, kind: str) -> None:
    needed = PAIRS if kind in ("close", "across") else f"{DISTANCES}/zarr.json"
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


def _targets(choices: Sequence[str], recipe: Recipe, backbone: Backbone, out: Path) -> Heads:
    """Load the heads, and choose a folder for each."""
    heads = [
        load_head(choice, recipe.backbone, backbone.channels, recipe.lpips_version)
        for choice in choices
    ]
    if len(heads) == 1:
        return [(heads[0], out)]
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
    return [(head, out / name) for head, name in zip(heads, names, strict=True)]


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


def _manifest(run: FinishedRun, head: Head) -> dict[str, Any]:
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


def _copy_images(run: FinishedRun, folder: Path) -> None:
    with (run.path / IMAGES).open("rb") as table, replacing(folder / IMAGES) as file:
        shutil.copyfileobj(table, file)


def _need_rows(collection: Collection) -> None:
    """Raise `RowsMissing` unless all rows are in the store or the remote one."""
    features = collection.features
    contents = collection.contents()
    missing = [features.names[content] for content in features.lacking(contents)]
    if missing:
        raise RowsMissing(
            f"{len(missing):,} of {len(set(contents)):,} rows are not in the store at "
            f"{features.store.path}: leave out {setting('compute', value=False)} to compute them "
            f"(one forward each), or name another {setting('store')}",
            [printable(path) for path in missing],
        )
