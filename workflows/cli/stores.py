"""The commands that exchange rows with a remote store: ``store push`` and ``store pull``."""

from dataclasses import replace
from typing import Annotated

import typer

from ..session.settings import Settings, store_path
from .options import WHAT_HOLDS_IMAGES, Quiet, Store, place_of, takes_settings
from .runner import Json, Strict, carry_out
from .shared import OfBackbone

PUSH_EXAMPLES = "Example: lpipstore store push s3://bucket/rows --backbone squeeze"
PULL_EXAMPLES = """Examples:

lpipstore store pull s3://bucket/rows

lpipstore store pull s3://bucket/rows photos --backbone squeeze"""

Url = Annotated[
    str,
    typer.Argument(
        parser=place_of, metavar="URL", help="s3://bucket/folder, gs://, az://, file:///folder."
    ),
]


def store_push(
    url: Url,
    store: Store = None,
    backbone: OfBackbone = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Read every object there; send those again that changed."),
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Copy rows that a remote store lacks; interrupted, the same command goes on.

    Several machines may push to one URL at the same time.
    """
    from ..store.push import push_store

    carry_out(
        lambda screen: push_store(store_path(store), url, backbone, screen, verify=verify),
        quiet=quiet,
        as_json=as_json,
    )


@takes_settings("heads", "memory", "device_memory", "precision", "dry_run", "remote")
def store_pull(
    url: Url,
    settings: Settings,
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IMAGES…]",
            help=f"Only the rows of these images. {WHAT_HOLDS_IMAGES}",
            show_default="all rows",
        ),
    ] = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Copy rows from a remote store: all that fit, or those of some images.

    Without IMAGES, what was pushed last comes first, and --backbone alone chooses what is pulled.
    """
    from ..store.pull import pull_store

    chosen = replace(settings, remote=url)
    carry_out(
        lambda screen: pull_store(sources or [], chosen, screen),
        quiet=settings.quiet,
        as_json=as_json,
        strict=strict,
    )
