"""The commands for a collection whose distances are known: ``clusters`` and ``pick``."""

from pathlib import Path
from typing import Annotated

import typer

from .options import MACHINE, OUTPUT, Quiet, path_of
from .runner import Json, carry_out

CLUSTERS_EXAMPLES = "Example: lpipstore clusters run --count 8 --out clusters.parquet"
PICK_EXAMPLES = "Example: lpipstore pick run --count 12 --link chosen"

AllPairs = Annotated[
    Path, typer.Argument(parser=path_of, metavar="RUN", help="A run of all pairs of a collection.")
]
ResultFile = Annotated[
    Path | None,
    typer.Option(
        parser=path_of,
        rich_help_panel=OUTPUT,
        metavar="FILE",
        help="Write a line for each image to a .csv, .json or .parquet file.",
    ),
]


def clusters(
    run: AllPairs,
    count: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Number of clusters.",
            show_default="the number from 2 to 20 that sets them apart most",
        ),
    ] = None,
    below: Annotated[
        float | None,
        typer.Option(
            metavar="0.3", help="Instead of a number: join clusters that are closer than this."
        ),
    ] = None,
    linkage: Annotated[
        str,
        typer.Option(
            metavar="average|complete|single",
            help="How far two clusters are apart: by the mean, largest or smallest distance of "
            "their images.",
        ),
    ] = "average",
    out: ResultFile = None,
    memory: Annotated[
        str,
        typer.Option(
            rich_help_panel=MACHINE,
            metavar="4GB",
            help="Memory that may be taken: 12 bytes for each pair of a square, 0.3 GB for 5,000.",
        ),
    ] = "4GB",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Cluster the images of a run by their distances, and name the medoid of each cluster.

    The medoid is the image with the smallest mean distance to the others of its cluster.
    """
    from ...pipeline.runs.run import open_run
    from ..viewing.clusters import find_clusters

    carry_out(
        lambda screen: find_clusters(
            open_run(run),
            screen,
            count=count,
            below=below,
            linkage=linkage,
            out=out,
            memory=memory,
        ),
        quiet=quiet,
        as_json=as_json,
    )


def pick(
    run: AllPairs,
    count: Annotated[int, typer.Option(metavar="K", help="Images to pick.")],
    start: Annotated[
        str | None,
        typer.Option(
            metavar="IMAGE",
            help="The first image: its path, or the end of it.",
            show_default="the medoid of all",
        ),
    ] = None,
    out: ResultFile = None,
    link: Annotated[
        Path | None,
        typer.Option(
            parser=path_of,
            rich_help_panel=OUTPUT,
            metavar="DIR",
            help="Lay out links to the images in a new folder, ranks before their names.",
        ),
    ] = None,
    memory: Annotated[
        str,
        typer.Option(
            rich_help_panel=MACHINE,
            metavar="4GB",
            help="The matrix is read whole if it fits and many are picked, else row by row.",
        ),
    ] = "4GB",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Pick images that cover a collection, each the farthest from those picked before.

    The radius after each says how far any image of the collection is from the nearest one picked.
    """
    from ...pipeline.runs.run import open_run
    from ..viewing.pick import pick_images

    carry_out(
        lambda screen: pick_images(
            open_run(run), count, screen, start=start, out=out, link=link, memory=memory
        ),
        quiet=quiet,
        as_json=as_json,
    )
