"""Reproduce a run from its manifest, and take the settings of a new run from an earlier one."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ...cache.errors import LpipstoreError, UsageError, setting
from ...pipeline.common.progress import Stopwatch
from ...pipeline.common.text import printable
from ...pipeline.images.survey import ImageRecord
from ...pipeline.runs.files import MANIFEST, read_json
from ...pipeline.runs.reopen import (
    Recipe,
    reopen_kind,
    reopen_recipe,
    reopen_records,
    reopen_source_choices,
)
from ...pipeline.runs.run import FinishedRun, open_run
from ...pipeline.sources.names import is_url
from ..scoring.job import run_job
from ..scoring.kinds import KINDS
from ..scoring.pairlist import survey_list
from ..session.collection import STAGES, Collection
from ..session.dryrun import Forecast
from ..session.manifest import versions
from ..session.screen import Screen
from ..session.session import open_session
from ..session.settings import Settings, parse_size
from ..session.summary import Summary

_SHOWN = 10  # names in a message
_NAMED = "from_manifest"  # the setting that names the run


def run_of(manifest: Path) -> FinishedRun:
    """Return the run at a path: its folder, or the manifest in it.

    Raises
    ------
    UsageError
        There is no run at the path.
    """
    if manifest.is_file() and manifest.name != MANIFEST:
        raise UsageError(
            f"{setting(_NAMED)} takes a run or its {MANIFEST}, not {printable(str(manifest))}"
        )
    run = FinishedRun(manifest.parent if manifest.name == MANIFEST else manifest)
    read_json(run.path / MANIFEST)
    return run


def reproduce_run(
    run: FinishedRun, out: Path, settings: Settings, screen: Screen
) -> Summary | Forecast:
    """Reproduce a run: the same images in the same order, the same question and settings.

    Any run of ``pairs``, ``compare`` or ``score`` can be reproduced byte for byte. If the run took
    over distances from an earlier one (an update) or was scored from statistics, all distances
    are computed from rows instead, with a warning. Returns the summary.

    Raises
    ------
    UsageError
        The run was made by another command or is not finished, or an option contradicts it.
    LpipstoreError
        Images, weights or the head have changed; the message names them.
    """
    clock = Stopwatch(*STAGES)
    recipe = reopen_recipe(run)
    kind = reopen_kind(run, setting(_NAMED))
    open_run(run.path)  # raises if it is not finished
    _tell_differences(run, screen)
    settings = settings_of(run, recipe, settings, setting(_NAMED))
    check = partial(need_same_recipe, run, settings)
    with open_session(settings, screen, clock, check) as session:
        then = reopen_records(run)
        now = survey_list([record.path for record in then], session)
        _need_unchanged(then, now)
        job = KINDS[kind].reopen(run, then, recipe.folder, settings)
        made = run_job(job, now, out, session)
        return replace(made, title="Made again") if isinstance(made, Summary) else made


def settings_of(run: FinishedRun, recipe: Recipe, settings: Settings, asked: str) -> Settings:
    """Fill in the settings that a run determines.

    `asked` is what named the run, for messages: a setting, or an argument in words.

    Raises
    ------
    UsageError
        A chosen setting contradicts the run.
    """
    decided = {
        "backbone": recipe.backbone,
        "taps": recipe.own_taps,
        "lpips_version": recipe.lpips_version,
        "size": recipe.size,
        "fit": recipe.preparation.fit,
        "icc": recipe.preparation.icc,
        "row_dtype": recipe.row_choice,
        "trunk_dtype": recipe.trunk_dtype,
        "precision": recipe.precision,
    }
    default = Settings()
    for name, value in decided.items():
        chosen = getattr(settings, name)
        left_open = chosen == getattr(default, name) and name not in settings.given
        if name == "size":
            left_open = parse_size(chosen) in (None, recipe.preparation.size)
        if not left_open and chosen != value:
            raise UsageError(
                f"{setting(name, printable(chosen))} contradicts {asked}: the run in "
                f"{printable(str(run.path))} was made with {value}"
            )
    more: dict[str, Any] = {**reopen_source_choices(run), **decided}
    if settings.weights == default.weights and "weights" not in settings.given:
        more["weights"] = recipe.weights_choice
    if settings.heads is None:
        more["heads"] = recipe.head_choice
    return replace(settings, **more)


def need_same_recipe(run: FinishedRun, settings: Settings, collection: Collection) -> None:
    """Raise `LpipstoreError` unless rows and head have the same recipe as in a run."""
    extractor, head = collection.features.extractor, collection.head(settings)
    now = {
        **extractor.spec.recipe,
        "row_dtype": extractor.spec.dtype,
        "head_digest": head.digest,
        "precision": settings.precision,
    }
    origins = _now_and_then(extractor.backbone.weights_origin, run.manifest.get("weights_origin"))
    heads = _now_and_then(head.name, run.manifest.get("head"))
    words = {
        "weights": f"the weights of the trunk are others ({origins}): name them with "
        f"{setting('weights', 'FILE')}",
        "head_digest": f"the head is another ({heads}): name it with {setting('heads', 'FILE')}",
    }
    different = [
        words.get(name, f"{name} is {value} now and was {run.manifest.get(name)}")
        for name, value in now.items()
        if run.manifest.get(name) != value
    ]
    if different:
        raise LpipstoreError(
            f"this would not be like the run in {printable(str(run.path))}: {'; '.join(different)}"
        )


def _tell_differences(run: FinishedRun, screen: Screen) -> None:
    then, now = run.manifest.get("versions", {}), versions()
    different = [
        f"{name} {then.get(name, 'none')} (now {now.get(name, 'none')})"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]
    if different:
        screen.warn(
            f"the run was made with {', '.join(different)}: the last digits of distances can differ"
        )
    if "updated_from" in run.manifest:
        screen.warn(
            f"the run took over distances of an earlier one ({setting('update')}); all are "
            "computed now, and can differ by 1e-7"
        )
    if run.manifest.get("from_statistics"):
        screen.warn(
            "the run was scored from kept statistics; distances are computed from rows now, and "
            "can differ by 1e-6"
        )


def _need_unchanged(then: Sequence[ImageRecord], now: Sequence[ImageRecord]) -> None:
    changed = [
        f"{near(new.path)} ({new.error or 'other content'})"
        for old, new in zip(then, now, strict=True)
        if old.content != new.content
    ]
    if changed:
        raise LpipstoreError(
            f"{len(changed):,} of {len(then):,} images are not what they were, so that the run "
            f"cannot be made again: {shorten(changed)}"
        )


def near(path: str) -> str:
    """Return a path for a message, relative if it is below the working directory."""
    below = path if is_url(path) else os.path.relpath(path)
    return printable(path if below.startswith(os.pardir) else below)


def shorten(names: Sequence[str]) -> str:
    """Join names for a message: all, or the first few and the number of the others."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _now_and_then(now: object, then: object) -> str:
    return f"{printable(str(now))} now, {printable(str(then))} then"
