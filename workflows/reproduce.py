"""Make a run again from its manifest, and let a run decide the settings of another."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..cache.errors import LpipstoreError, UsageError
from ..pipeline.files import printable
from ..pipeline.heads import load_head
from ..pipeline.images import ImageRecord, survey
from ..pipeline.progress import Stopwatch
from ..pipeline.recall import Recipe, recall_recipe, recall_records
from ..pipeline.results import MANIFEST, Run, read_json
from .collection import STAGES, Collection, open_store
from .console import Screen
from .groups import group_facts, score_folders
from .pairs import facts, score_records, versions
from .settings import Settings, parse_size

_SHOWN = 10  # names in a message


def reproduce_run(manifest: Path, out: Path, settings: Settings, screen: Screen) -> dict[str, Any]:
    """Make a run of ``pairs`` again: the same images in the same order, the same settings.

    Returns the summary.

    Raises
    ------
    UsageError
        The manifest is of another command, or an option contradicts it.
    LpipstoreError
        Images, weights or head are not what they were; the message names them.
    """
    clock = Stopwatch(*STAGES)
    run = Run(manifest.parent if manifest.name == MANIFEST else manifest)
    read_json(run.path / MANIFEST)
    recipe = recall_recipe(run)
    grouped = run.manifest.get("group_by") == "folder"
    own = {"group_by", "list", "statistics"} if grouped else set()
    strange = {"list", "below", "top_k", "updated_from", "from_statistics"} & set(run.manifest)
    if recipe.command != "pairs" or strange - own:
        raise UsageError(
            f"{printable(str(run.path))} is not a plain run of lpipstore pairs, which alone can be "
            "made again with --from"
        )
    _tell_versions(run, screen)
    settings = settings_of(run, recipe, settings, "--from")
    with open_store(settings) as store:
        then = recall_records(run)
        with clock("hash"):
            paths = [record.path for record in then]
            now = survey(paths, store, rehash=settings.rehash, report=screen.report)
        _need_unchanged(then, now)
        score = score_folders if grouped else score_records

        def check(collection: Collection) -> None:
            need_same_recipe(run, collection, settings)

        return score(now, out, store, settings, clock, screen, check)


def settings_of(run: Run, recipe: Recipe, settings: Settings, option: str) -> Settings:
    """Fill in what a run decides.

    Raises
    ------
    UsageError
        Something was chosen that the run decides otherwise; `option` is what named the run.
    """
    decided = {
        "backbone": recipe.backbone,
        "taps": recipe.own_taps,
        "lpips_version": recipe.lpips_version,
        "size": recipe.size,
        "row_dtype": recipe.row_choice,
        "trunk_dtype": recipe.trunk_dtype,
        "precision": recipe.precision,
    }
    default = Settings()
    for name, value in decided.items():
        chosen = getattr(settings, name)
        if name == "size":
            same = parse_size(chosen) in (None, recipe.pixels)
        else:
            same = chosen in (getattr(default, name), value)
        if not same:
            raise UsageError(
                f"--{name.replace('_', '-')} {printable(chosen)} contradicts {option}: the run in "
                f"{printable(str(run.path))} was made with {value}"
            )
    more: dict[str, Any] = dict(decided)
    if settings.weights == default.weights:
        more["weights"] = recipe.weights_choice
    if settings.heads is None:
        more["heads"] = _head_choice(recipe)
    return replace(settings, **more)


def _head_choice(recipe: Recipe) -> str | None:
    """Return what to write for ``--heads`` to get the head that the run had."""
    if recipe.head.startswith("none ("):
        return "none"
    path = os.path.join(recipe.folder, recipe.head)
    return path if os.path.isfile(path) else None


def need_same_recipe(run: Run, collection: Collection, settings: Settings) -> None:
    """Raise `LpipstoreError` unless rows and head are made of what they were made of in a run."""
    extractor = collection.features.extractor
    backbone = extractor.backbone
    head = load_head(settings.heads, backbone.name, backbone.channels, backbone.version)
    now = {
        **extractor.spec.recipe,
        "row_dtype": extractor.spec.dtype,
        "head_digest": head.digest,
        "precision": settings.precision,
    }
    words = {
        "weights": f"the weights of the trunk are others ({backbone.weights_origin} now, "
        f"{run.manifest.get('weights_origin')} then): name them with --weights FILE",
        "head_digest": f"the head is another ({head.name} now, {run.manifest.get('head')} then): "
        "name it with --heads FILE",
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


def _tell_versions(run: Run, screen: Screen) -> None:
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
    """Return an absolute path for a message: from here, if it is below."""
    below = os.path.relpath(path)
    return printable(path if below.startswith(os.pardir) else below)


def shorten(names: Sequence[str]) -> str:
    """Return names for a message: all, or the first few and how many more there are."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def again_facts(summary: dict[str, Any], out: Path) -> list[tuple[str, str]]:
    """Return the summary as lines for people, as the command of the run does."""
    return group_facts(summary, out) if "groups" in summary else facts(summary, out)
