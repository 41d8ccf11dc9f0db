"""The commands for people who would rather look: ``duplicates``, ``neighbours``."""

from pathlib import Path
from typing import Annotated

import typer

from ..session.settings import Settings
from .options import NEAREST, OUTPUT, WHAT_HOLDS_IMAGES, path_of, place_of, takes_settings
from .runner import Json, Strict, carry_out

DUPLICATES_EXAMPLES = "Example: lpipstore duplicates photos --backbone squeeze --link alike"
NEIGHBOURS_EXAMPLES = """Examples:

lpipstore neighbours run --query new.png --top-k 5

lpipstore neighbours photos --query generated --below 0.1 --out copied"""


@takes_settings("dry_run", "precision")
def duplicates(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|IMAGES…",
            help="A run of all pairs or of --below, or folders, archives and other images.",
        ),
    ],
    settings: Settings,
    below: Annotated[
        float | None,
        typer.Option(
            metavar="0.1",
            help="Images closer than this are near-duplicates.",
            show_default="suggested by the distances themselves",
        ),
    ] = None,
    linkage: Annotated[
        str,
        typer.Option(
            metavar="single|complete",
            help="single: chains of close images are a group; complete: all are close to all.",
        ),
    ] = "single",
    keep: Annotated[
        str,
        typer.Option(
            metavar="largest|sharpest|first", help="Which image of each group is named first."
        ),
    ] = "largest",
    out: Annotated[
        Path | None,
        typer.Option(
            parser=path_of,
            rich_help_panel=OUTPUT,
            metavar="FILE",
            help="Write the groups to a .csv, .json or .parquet file.",
        ),
    ] = None,
    link: Annotated[
        Path | None,
        typer.Option(
            parser=path_of,
            rich_help_panel=OUTPUT,
            metavar="DIR",
            help="Lay out links to the images of each group in a new folder.",
        ),
    ] = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Find groups of near-duplicates and the image of each to keep. Nothing is ever deleted.

    Copies that were saved again, scaled, cropped a little or brightened are found; mirrored ones
    are other pictures to LPIPS.
    """
    from ..viewing.duplicates import find_duplicates

    carry_out(
        lambda screen: find_duplicates(
            sources,
            settings,
            screen,
            below=below,
            linkage=linkage,
            keep=keep,
            out=out,
            link=link,
        ),
        quiet=settings.quiet,
        as_json=as_json,
        strict=strict,
    )


@takes_settings("precision")
def neighbours(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|IMAGES…",
            help="A finished run, whose images are searched; or folders and other images.",
        ),
    ],
    query: Annotated[
        list[str],
        typer.Option(
            parser=place_of,
            metavar="IMAGE",
            help=f"What to search for; may be given several times. {WHAT_HOLDS_IMAGES}",
        ),
    ],
    settings: Settings,
    top_k: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=NEAREST,
            metavar="10",
            help="List the nearest 10 images of each; with --below, those of them that are closer.",
            show_default="10 without --below",
        ),
    ] = None,
    below: Annotated[
        float | None,
        typer.Option(rich_help_panel=NEAREST, metavar="0.1", help="List only images closer."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=path_of,
            rich_help_panel=OUTPUT,
            metavar="RUN",
            help="Folder of the results, for many images; without it they are printed.",
        ),
    ] = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Find the images of a collection that are nearest to new ones.

    The answers are those of compare. Of a run, backbone, size and head are taken, and none of its
    images goes through the backbone again as long as the store has their rows.
    """
    from ..viewing.neighbours import find_neighbours

    carry_out(
        lambda screen: find_neighbours(
            sources, query, out, settings, screen, below=below, top_k=top_k
        ),
        quiet=settings.quiet,
        as_json=as_json,
        strict=strict,
    )
