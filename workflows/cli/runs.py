"""The commands on finished runs, ``rescore`` and ``export``, and the others that export."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..session.settings import Settings
from .options import LIST, MODEL, Quiet, path_of, place_of, takes_settings
from .runner import Json, carry_out, make_run, show, watched
from .shared import Run

# Settings that the run determines or that do not apply
_DECIDED = (
    "backbone",
    "taps",
    "lpips_version",
    "heads",
    "size",
    "row_dtype",
    "rehash",
    "trunk_dtype",
    "precision",
    "dry_run",
)


@takes_settings(*_DECIDED)
def rescore(
    run: Run,
    heads: Annotated[
        list[str],
        typer.Option(
            metavar="FILE|none|stock",
            rich_help_panel=MODEL,
            help="Linear heads; give it several times for several heads.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            parser=place_of,
            metavar="RUN2|URL",
            help="Folder of the results, or of a run for each head; or s3://bucket/run.",
        ),
    ],
    settings: Settings,
    no_compute: Annotated[
        bool,
        typer.Option(
            "--no-compute",
            rich_help_panel=LIST,
            help="If rows have left the store, list their images and stop.",
        ),
    ] = False,
    from_rows: Annotated[
        bool,
        typer.Option(
            "--from-rows",
            rich_help_panel=LIST,
            help="Read rows even where a list kept its statistics: the same bytes as anew.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Score a finished run again with other heads, without running the trunk."""
    from ..rerun.rescore import RowsMissing, rescore_run
    from ..session.screen import print_text

    try:
        make_run(
            lambda screen, folder: rescore_run(
                run, heads, folder, settings, screen, compute=not no_compute, from_rows=from_rows
            ),
            out,
            settings,
            as_json=as_json,
        )
    except RowsMissing as missing:
        for path in missing.paths:
            print_text(path)
        raise


COPY_EXAMPLES = """Examples:

lpipstore export run s3://bucket/run run

lpipstore export run run s3://bucket/run"""


class DistancesUnlessNamed(TyperGroup):
    """Takes ``export RUN`` for ``export distances RUN``: what is exported most needs no word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - click's or typer's
        """Put the default command before arguments that name none."""
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["distances", *args]
        return super().parse_args(ctx, args)


def export(
    run: Run,
    kind: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="csv|parquet|npz",
            help="csv: the square of a matrix, or the list of pairs; parquet: one pair per line; "
            "npz: arrays, also condensed as SciPy takes them.",
            show_default="by the ending of --out",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=path_of,
            metavar="FILE",
            help="The file to write; - prints csv.",
            show_default="export.FORMAT in RUN",
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write the distances of a run for pandas, SciPy or a spreadsheet."""
    from ..rerun.export import STDOUT, export_lines, export_run

    outcome = watched(lambda screen: export_run(run, kind, out, screen), quiet=quiet, goes_on=False)
    if out != STDOUT:
        show(outcome, "Exported", lambda: export_lines(outcome), as_json)


def export_run(
    source: Annotated[
        str, typer.Argument(parser=place_of, metavar="FROM", help="A finished run, or its URL.")
    ],
    target: Annotated[
        str, typer.Argument(parser=place_of, metavar="TO", help="A URL, or a new folder.")
    ],
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Copy a run to a URL or from there: s3://bucket/run, gs://, az://, file:///folder.

    Interrupted, the same command goes on. Only files that are not there are copied.
    """
    from ..rerun.copy import copy_run

    carry_out(lambda screen: copy_run(source, target, screen), quiet=quiet, as_json=as_json)
