"""The command ``pairs``: all pairs of a collection, pairs within folders, or close pairs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...cache.errors import UsageError
from ..session.settings import Settings
from .options import (
    EARLIER,
    LIST,
    NEAREST,
    WHAT_HOLDS_IMAGES,
    Out,
    path_of,
    takes_settings,
)
from .runner import Json, Outcome, Strict, make_run

if TYPE_CHECKING:
    from ..session.screen import Screen

Work = Callable[["Screen", Path], Outcome]
PAIRS_EXAMPLES = """Examples:

lpipstore pairs photos --backbone squeeze --size 64 --out run

lpipstore pairs samples.npz --top-k 10 --out near

lpipstore pairs 'shard-{000..012}.tar' --below 0.1 --out close"""


@takes_settings()
def pairs(
    out: Out,
    settings: Settings,
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGES…", help=WHAT_HOLDS_IMAGES),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="folder",
            rich_help_panel=LIST,
            help="Only pairs within each folder, with a mean for each.",
            show_default="all pairs",
        ),
    ] = None,
    below: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=NEAREST,
            metavar="0.1",
            help="List the pairs that are closer, instead of the matrix of all.",
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=NEAREST,
            metavar="10",
            help="List the nearest 10 images of each image; with --below, those that are closer.",
        ),
    ] = None,
    update: Annotated[
        Path | None,
        typer.Option(
            parser=path_of,
            metavar="RUN",
            rich_help_panel=EARLIER,
            help="A run before images were added, removed or changed: only what is new is scored.",
        ),
    ] = None,
    from_manifest: Annotated[
        Path | None,
        typer.Option(
            "--from",
            parser=path_of,
            metavar="RUN/manifest.json",
            rich_help_panel=EARLIER,
            help="A run of pairs, compare or score to make again: its images, its settings. "
            "Takes no IMAGES.",
        ),
    ] = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Score all pairs of a collection of images, or only find those that are close."""
    asked = {
        "--group-by": group_by is not None,
        "--below and --top-k": below is not None or top_k is not None,
        "--update": update is not None,
        "--from": from_manifest is not None,
    }
    if settings.dry_run and update is not None:
        raise UsageError("--dry-run does not go with --update: leave one of them out")
    if sum(asked.values()) > 1:
        both = " and ".join(name for name, given in asked.items() if given)
        raise UsageError(f"{both} exclude each other: choose one")
    if from_manifest is not None:
        if sources:
            raise UsageError("--from takes the images of its run: leave out IMAGES")
        work = _again(from_manifest, settings)
    elif not sources:
        raise UsageError("pairs needs images: give a folder, files or what else --help names")
    elif update is not None:
        work = _update(sources, update, settings)
    elif group_by is not None:
        work = _groups(sources, group_by, settings)
    elif below is not None or top_k is not None:
        work = _close(sources, settings, below, top_k)
    else:
        work = _all(sources, settings)
    make_run(work, out, settings, as_json=as_json, strict=strict)


def _all(sources: Sequence[str], settings: Settings) -> Work:
    from ..scoring.all_pairs import score_pairs

    return lambda screen, out: score_pairs(sources, out, settings, screen)


def _groups(sources: Sequence[str], choice: str, settings: Settings) -> Work:
    from ..scoring.groups import score_groups
    from ..session.collection import check_choice

    check_choice("group_by", choice, ("folder",))
    return lambda screen, out: score_groups(sources, out, settings, screen)


def _close(
    sources: Sequence[str], settings: Settings, below: float | None, top_k: int | None
) -> Work:
    from ..scoring.close_pairs import find_close

    return lambda screen, out: find_close(sources, out, settings, screen, below=below, top_k=top_k)


def _update(sources: Sequence[str], run: Path, settings: Settings) -> Work:
    from ..rerun.update import update_pairs

    return lambda screen, out: update_pairs(sources, run, out, settings, screen)


def _again(manifest: Path, settings: Settings) -> Work:
    from ..rerun.reproduce import reproduce_run, run_of

    run = run_of(manifest)
    return lambda screen, out: reproduce_run(run, out, settings, screen)
