"""The command for two images: ``map``."""

from pathlib import Path
from typing import Annotated

import typer

from ..session.settings import Settings
from .options import OUTPUT, path_of, place_of, takes_settings
from .runner import Json, carry_out

MAP_EXAMPLES = """Examples:

lpipstore map photo.png photo.jpg --backbone squeeze --out map.png

lpipstore map 'shard.tar#cat.jpg' cat.png --out map.pdf --overlay"""


@takes_settings("dry_run", "precision", "memory", "device_memory")
def spatial_map(
    first: Annotated[
        str,
        typer.Argument(
            parser=place_of, metavar="A", help="An image: a path, shard.tar#a.jpg or a URL."
        ),
    ],
    second: Annotated[
        str, typer.Argument(parser=place_of, metavar="B", help="The image to compare it with.")
    ],
    out: Annotated[
        Path,
        typer.Option(parser=path_of, metavar="FILE", help="The figure: a new .png, .pdf or .svg."),
    ],
    settings: Settings,
    overlay: Annotated[
        bool,
        typer.Option(
            "--overlay", rich_help_panel=OUTPUT, help="Lay the map over A instead of beside it."
        ),
    ] = False,
    scale: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=OUTPUT,
            metavar="0.5",
            help="End of the colour scale; the same for several maps makes them comparable.",
            show_default="the largest value",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw where two images differ, and print their distance and what each tap adds to it."""
    from ..viewing.map import map_files

    carry_out(
        lambda screen: map_files(
            first, second, out, settings, screen, overlay=overlay, scale=scale
        ),
        quiet=settings.quiet,
        as_json=as_json,
    )
