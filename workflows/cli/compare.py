"""The command ``compare``: two collections, whole, paired by name, or only what is close."""

from typing import Annotated

import typer

from ...cache.errors import UsageError
from ..session.settings import Settings
from .options import LIST, NEAREST, Out, place_of, takes_settings
from .runner import Json, Strict, make_run
from .shared import KeepStatistics

COMPARE_EXAMPLES = """Examples:

lpipstore compare samples.npz real.tar --out run

lpipstore compare originals restored --paired --out run

lpipstore compare generated training --top-k 5 --out nearest

lpipstore compare test train --below 0.05 --out leaks"""


@takes_settings()
def compare(
    first: Annotated[
        str,
        typer.Argument(
            parser=place_of,
            metavar="A",
            help="Images: a folder, 'glob', @list.txt, .zip, .tar, .npz, .parquet, video or URL.",
        ),
    ],
    second: Annotated[
        str, typer.Argument(parser=place_of, metavar="B", help="The images to compare them with.")
    ],
    out: Out,
    settings: Settings,
    paired: Annotated[
        bool,
        typer.Option(
            "--paired",
            rich_help_panel=LIST,
            help="Only pairs of images that have the same name within their folders or archives.",
        ),
    ] = False,
    match: Annotated[
        str | None,
        typer.Option(
            metavar="name|stem",
            rich_help_panel=LIST,
            help="With --paired: what has to be the same; stem pairs a.png with a.jpg.",
            show_default="name",
        ),
    ] = None,
    below: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=NEAREST,
            metavar="0.1",
            help="List the pairs, of an image of A and one of B, that are closer.",
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=NEAREST,
            metavar="10",
            help="List the nearest 10 images of B for each of A; with --below, those closer.",
        ),
    ] = None,
    keep_statistics: KeepStatistics = False,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Score each image of one collection against each of another, or against its namesake."""
    from ..scoring.close_across import compare_close
    from ..scoring.compare import compare_folders, compare_paired

    close = below is not None or top_k is not None
    if close and paired:
        raise UsageError("--below and --top-k search all pairs: leave out --paired")
    if not paired:
        if keep_statistics:
            raise UsageError("--keep-statistics is for lists: give --paired, too")
        if match is not None:
            raise UsageError("--match says what pairs have in common: give --paired, too")
        sides = [first], [second]
        make_run(
            lambda screen, folder: (
                compare_close(*sides, folder, settings, screen, below=below, top_k=top_k)
                if close
                else compare_folders(*sides, folder, settings, screen)
            ),
            out,
            settings,
            as_json=as_json,
            strict=strict,
        )
        return
    make_run(
        lambda screen, folder: compare_paired(
            [first],
            [second],
            folder,
            settings,
            screen,
            match=match or "name",
            statistics=keep_statistics,
        ),
        out,
        settings,
        as_json=as_json,
        strict=strict,
    )
