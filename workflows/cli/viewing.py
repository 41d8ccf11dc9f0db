"""The commands for people who would rather look: ``duplicates``, ``report``."""

from pathlib import Path
from typing import Annotated

import typer

from ..session.settings import Settings
from .options import OUTPUT, Quiet, path_of, takes_settings
from .runner import Json, Strict, carry_out
from .shared import Run

REPORT_EXAMPLES = "Example: lpipstore report run --out report.html"
DUPLICATES_EXAMPLES = "Example: lpipstore duplicates photos --backbone squeeze --link alike"


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


def report(
    run: Run,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=path_of,
            rich_help_panel=OUTPUT,
            metavar="FILE",
            help="Where the page goes.",
            show_default="report.html in the run",
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Show a run as one page of HTML: figures, plots and pictures; it opens without network.

    The images are read once more, for their thumbnails; where one is gone a grey field stands.
    """
    from ...pipeline.runs.run import open_run
    from ..viewing.report.build import build_report

    carry_out(lambda screen: build_report(open_run(run), out, screen), quiet=quiet, as_json=as_json)
