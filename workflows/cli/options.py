"""Options that commands share: declared once, passed to each command as one `Settings`."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from ...pipeline.common.text import printable
from ...pipeline.sources.names import is_url, without_password
from ..session.settings import STORE_VARIABLE, Settings

NEAREST = "Close pairs only"
IMAGES = "The images"
MODEL, STORE, MACHINE, OUTPUT = "The metric", "The store", "The machine", "Output"
LIST = "The list"
EARLIER = "An earlier run"


def path_of(text: str) -> Path:
    """Parse a path; used for all options and arguments that are paths.

    Raises
    ------
    typer.BadParameter
        The path is empty, as from an unset shell variable; it would mean the working directory. Or
        it is a URL.
    """
    place_of(text)
    if is_url(text):
        raise typer.BadParameter(
            f"{printable(without_password(text))} is a URL, and this takes a path of this machine: "
            "`lpipstore export run FROM TO` copies runs from and to URLs"
        )
    return Path(text)


def place_of(text: str) -> str:
    """Parse a path or a URL, as it was written.

    Raises
    ------
    typer.BadParameter
        It is empty.
    """
    if not text:
        raise typer.BadParameter("the path is empty: name one, or write . for this folder")
    return text


WHAT_HOLDS_IMAGES = (
    "Folders, files, 'globs', @list.txt, .zip, .tar, .npy, .npz, .parquet, .arrow, videos or URLs."
)

Out = Annotated[
    str,
    typer.Option(
        parser=place_of, metavar="RUN|URL", help="Folder of the results, or s3://bucket/run."
    ),
]

Store = Annotated[
    Path | None,
    typer.Option(
        parser=path_of,
        rich_help_panel=STORE,
        metavar="DIR",
        help=f"Folder of the store; ${STORE_VARIABLE} names another default.",
        show_default="in the user's cache",
    ),
]

Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", rich_help_panel=OUTPUT, help="No progress, no messages but warnings."
    ),
]

_OPTIONS: dict[str, Any] = {
    "backbone": Annotated[
        str,
        typer.Option(
            rich_help_panel=MODEL, help="alex, vgg, squeeze, or torchvision:NAME with --taps."
        ),
    ],
    "taps": Annotated[
        str,
        typer.Option(
            rich_help_panel=MODEL,
            metavar="A,B,…",
            help="Layers of a torchvision:NAME backbone to compare.",
        ),
    ],
    "lpips_version": Annotated[str, typer.Option(rich_help_panel=MODEL, help="0.1 or 0.0.")],
    "heads": Annotated[
        str | None,
        typer.Option(
            rich_help_panel=MODEL,
            metavar="FILE|none",
            help="Linear heads; none = unweighted baseline.",
            show_default="those of the lpips package",
        ),
    ],
    "weights": Annotated[
        str,
        typer.Option(
            rich_help_panel=MODEL, metavar="imagenet|random|FILE", help="Weights of the trunk."
        ),
    ],
    "size": Annotated[
        str,
        typer.Option(
            rich_help_panel=MODEL,
            metavar="auto|native|N|HxW",
            help="Pixels to scale to; auto = native if all are of one size, else 224.",
        ),
    ],
    "fit": Annotated[
        str,
        typer.Option(
            rich_help_panel=IMAGES,
            metavar="stretch|crop|pad",
            help="How images of another aspect ratio come to the size.",
        ),
    ],
    "icc": Annotated[
        str,
        typer.Option(
            rich_help_panel=IMAGES,
            metavar="ignore|convert",
            help="Embedded colour profiles: ignore, as users of lpips do, or convert to sRGB.",
        ),
    ],
    "store": Store,
    "store_limit": Annotated[
        str | None,
        typer.Option(
            rich_help_panel=STORE,
            metavar="20GB",
            help="Bytes on disk that it may take; the store keeps to it from now on.",
            show_default="as kept; at first 10GB, at most half of what is free",
        ),
    ],
    "remote": Annotated[
        str | None,
        typer.Option(
            parser=place_of,
            rich_help_panel=STORE,
            metavar="URL",
            help="Fetch rows that the store lacks from here: s3://bucket/folder, gs://, file://.",
            show_default="they are computed",
        ),
    ],
    "row_dtype": Annotated[
        str,
        typer.Option(rich_help_panel=STORE, metavar="uint16|float32", help="How rows are kept."),
    ],
    "compress": Annotated[
        bool,
        typer.Option(
            "--compress",
            rich_help_panel=STORE,
            help="Pack rows (lz4): slower, for a store that is larger than memory.",
        ),
    ],
    "durable": Annotated[
        bool,
        typer.Option(
            "--durable",
            rich_help_panel=STORE,
            help="Wait for the disk: rows then survive a loss of power, not only a crash.",
        ),
    ],
    "rehash": Annotated[
        bool,
        typer.Option(
            "--rehash", rich_help_panel=STORE, help="Read every file, even if it seems unchanged."
        ),
    ],
    "value_range": Annotated[
        str | None,
        typer.Option(
            rich_help_panel=IMAGES,
            metavar="LOW,HIGH",
            help="What floating-point arrays range over, such as 0,1 or -1,1.",
            show_default="they are refused",
        ),
    ],
    "image_column": Annotated[
        str | None,
        typer.Option(
            rich_help_panel=IMAGES,
            metavar="NAME",
            help="The column of a table that holds the images.",
            show_default="the only one",
        ),
    ],
    "every": Annotated[
        str | None,
        typer.Option(
            rich_help_panel=IMAGES,
            metavar="0.5s|10f",
            help="Of a video one frame every half second, or every tenth frame.",
            show_default="all",
        ),
    ],
    "trunk_dtype": Annotated[
        str,
        typer.Option(
            rich_help_panel=MACHINE,
            metavar="float32|float16|bfloat16",
            help="Precision of the trunk (normalisation is always float32).",
        ),
    ],
    "memory": Annotated[
        str, typer.Option(rich_help_panel=MACHINE, metavar="4GB", help="Memory for rows and tiles.")
    ],
    "device_memory": Annotated[
        str,
        typer.Option(
            rich_help_panel=MACHINE,
            metavar="16GB|auto",
            help="Memory of a GPU for rows and products; auto takes most of what is free.",
        ),
    ],
    "precision": Annotated[
        str,
        typer.Option(
            rich_help_panel=MACHINE,
            metavar="exact|fast",
            help="fast: shorter numbers in products (bfloat16, TF32); the error is shown.",
        ),
    ],
    "device": Annotated[
        str,
        typer.Option(
            rich_help_panel=MACHINE,
            metavar="auto|cpu|cuda",
            help="Where to compute; cuda:0,1 or cuda:all share the work among GPUs.",
        ),
    ],
    "workers": Annotated[
        int | None,
        typer.Option(
            min=0,
            rich_help_panel=MACHINE,
            help="Decoding threads; 0 decodes in the main thread.",
            show_default="one for each core, 8 at most",
        ),
    ],
    "dask": Annotated[
        str | None,
        typer.Option(
            rich_help_panel=MACHINE,
            metavar="ADDRESS|local:N",
            help="Compute on a Dask cluster: tcp://HOST:PORT, a scheduler file, or N processes "
            "started on this machine.",
            show_default="in this process",
        ),
    ],
    "dry_run": Annotated[
        bool,
        typer.Option(
            "--dry-run",
            rich_help_panel=OUTPUT,
            help="Only tell what would be done, and how long it would take.",
        ),
    ],
    "quiet": Quiet,
}


def takes_settings(*left_out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the shared options in place of its parameter ``settings``.

    The command line has one option for each field of `Settings` except those in `left_out`, with
    the field's default. The command receives the chosen values as a `Settings`.
    """
    shared = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=_OPTIONS[field.name],
        )
        for field in fields(Settings)
        if field.name in _OPTIONS and field.name not in left_out
    ]
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def with_options(context: typer.Context, **arguments: Any) -> None:  # noqa: ANN401
            chosen = {option.name: arguments.pop(option.name) for option in shared}
            given = frozenset(name for name in chosen if _is_given(context, name))
            command(settings=Settings(**chosen, given=given), **arguments)

        signature = inspect.signature(command, eval_str=True)
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in signature.parameters.values()
            if parameter.name != "settings"
        ]
        # In --help, required parameters come first and a command's own options last
        required = [p for p in own if p.default is inspect.Parameter.empty]
        parameters = [context, *required, *shared, *(p for p in own if p not in required)]
        with_options.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {p.name: p.annotation for p in parameters}
        return with_options

    return decorate


def _is_given(context: typer.Context, name: str) -> bool:
    """Return whether an option was given on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
