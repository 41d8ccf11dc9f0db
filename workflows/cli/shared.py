"""Arguments and options of several commands that are no settings; `options` has the settings."""

from pathlib import Path
from typing import Annotated

import typer

from .options import LIST, path_of

Run = Annotated[
    Path, typer.Argument(parser=path_of, metavar="RUN", help="The folder of a finished run.")
]

OfBackbone = Annotated[
    str | None, typer.Option(help="Only the rows of this backbone.", show_default="all")
]

KeepStatistics = Annotated[
    bool,
    typer.Option(
        "--keep-statistics",
        rich_help_panel=LIST,
        help="Keep each pair's statistics: other heads then need no rows.",
    ),
]
