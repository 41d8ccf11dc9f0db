"""The command ``neighbours``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..session.settings import Settings
from .options import NEAREST, OUTPUT, WHAT_HOLDS_IMAGES, place_of, takes_settings
from .runner import Json, Outcome, Strict, carry_out, make_run

if TYPE_CHECKING:
    from ..session.screen import Screen

NEIGHBOURS_EXAMPLES = """Examples:

lpipstore neighbours run --query new.png --top-k 5

lpipstore neighbours photos --query generated --below 0.1 --out copied"""


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
        str | None,
        typer.Option(
            parser=place_of,
            rich_help_panel=OUTPUT,
            metavar="RUN|URL",
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

    def find(screen: "Screen", folder: Path | None) -> Outcome:
        return find_neighbours(sources, query, folder, settings, screen, below=below, top_k=top_k)

    if out is None:
        carry_out(
            lambda screen: find(screen, None),
            quiet=settings.quiet,
            as_json=as_json,
            strict=strict,
        )
    else:
        make_run(find, out, settings, as_json=as_json, strict=strict)
