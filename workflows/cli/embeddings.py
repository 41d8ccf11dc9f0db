"""The command ``export embeddings``: vectors for a vector database."""

from pathlib import Path
from typing import Annotated

import typer

from ..session.settings import Settings
from .options import path_of, takes_settings
from .runner import Json, Strict, carry_out

EMBEDDINGS_EXAMPLES = """Examples:

lpipstore export embeddings photos --out rows.npy

lpipstore export embeddings run --dims 128 --out rows.parquet"""


@takes_settings("dry_run", "precision")
def export_embeddings(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|IMAGES…",
            help="A finished run, whose images, backbone and head are taken; or folders, archives "
            "and other images.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            parser=path_of,
            metavar="FILE",
            help="The file to write: .npy and .zarr (names in FILE.csv), or .parquet.",
        ),
    ],
    settings: Settings,
    dims: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Project rows to K numbers: distances become lower bounds.",
            show_default="whole rows",
        ),
    ] = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Write a vector for each image, whose squared Euclidean distances are LPIPS.

    They are for FAISS, usearch, pgvector and others. With --dims, distances are lower bounds: what
    an index finds closest can be compared again by score.
    """
    from ..adapters.embeddings import export_embeddings as export

    carry_out(
        lambda screen: export(sources, out, settings, screen, dims=dims),
        quiet=settings.quiet,
        as_json=as_json,
        strict=strict,
    )
