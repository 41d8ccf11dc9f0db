"""The command line: what a person types, checked and handed to the workflows.

torch is imported only once a command runs, so that ``--help`` answers at once.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..cache.errors import LpipstoreError

if TYPE_CHECKING:
    from .console import Screen
    from .settings import Settings

app = typer.Typer(
    name="lpipstore",
    help="LPIPS for whole collections: every image through the backbone once, every pair from "
    "the cache.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
store_app = typer.Typer(help="Look after the feature store.", no_args_is_help=True)
app.add_typer(store_app, name="store")

_MODEL, _STORE, _MACHINE, _OUTPUT = "The metric", "The store", "The machine", "Output"

Sources = Annotated[
    list[str],
    typer.Argument(metavar="DIR…", help="Folders, image files or quoted glob patterns."),
]
Out = Annotated[Path, typer.Option(metavar="RUN", help="Folder of the results.")]
Backbone = Annotated[
    str,
    typer.Option(
        rich_help_panel=_MODEL, help="alex, vgg, squeeze, or torchvision:NAME with --taps."
    ),
]
Taps = Annotated[
    str,
    typer.Option(
        rich_help_panel=_MODEL,
        metavar="A,B,…",
        help="Layers of a torchvision:NAME backbone to compare.",
    ),
]
LpipsVersion = Annotated[str, typer.Option(rich_help_panel=_MODEL, help="0.1 or 0.0.")]
Heads = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_MODEL,
        metavar="FILE|none",
        help="Linear heads; none = unweighted baseline.",
        show_default="those of the lpips package",
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        rich_help_panel=_MODEL, metavar="imagenet|random|FILE", help="Weights of the trunk."
    ),
]
Size = Annotated[
    str,
    typer.Option(
        rich_help_panel=_MODEL,
        metavar="auto|native|N|HxW",
        help="Pixels to scale to; auto = native if all are of one size, else 224.",
    ),
]
Store = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=_STORE,
        metavar="DIR",
        help="Folder of the store.",
        show_default="$LPIPSTORE_STORE, else the user's cache",
    ),
]
StoreLimit = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_STORE,
        metavar="20GB",
        help="Bytes on disk that it may take.",
        show_default="10GB, at most half of what is free",
    ),
]
RowDtype = Annotated[
    str,
    typer.Option(rich_help_panel=_STORE, metavar="uint16|float32", help="How rows are kept."),
]
Rehash = Annotated[
    bool,
    typer.Option(
        "--rehash", rich_help_panel=_STORE, help="Read every file, even if it seems unchanged."
    ),
]
TrunkDtype = Annotated[
    str,
    typer.Option(
        rich_help_panel=_MACHINE,
        metavar="float32|float16|bfloat16",
        help="Precision of the trunk (normalisation is always float32).",
    ),
]
Memory = Annotated[
    str, typer.Option(rich_help_panel=_MACHINE, metavar="4GB", help="Memory for rows and tiles.")
]
Device = Annotated[
    str, typer.Option(rich_help_panel=_MACHINE, metavar="auto|cpu|cuda", help="Where to compute.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        rich_help_panel=_MACHINE,
        help="Decoding processes; 0 decodes in the main process.",
        show_default="one for each core, 8 at most",
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", rich_help_panel=_OUTPUT, help="Exit with 1 if any image cannot be used."
    ),
]
Json = Annotated[
    bool, typer.Option("--json", rich_help_panel=_OUTPUT, help="Print the summary as JSON.")
]


@app.command(epilog="Example: lpipstore pairs photos --backbone squeeze --size 64 --out run")
def pairs(
    sources: Sources,
    out: Out,
    backbone: Backbone = "alex",
    taps: Taps = "",
    lpips_version: LpipsVersion = "0.1",
    heads: Heads = None,
    weights: Weights = "imagenet",
    size: Size = "auto",
    store: Store = None,
    store_limit: StoreLimit = None,
    row_dtype: RowDtype = "uint16",
    rehash: Rehash = False,
    trunk_dtype: TrunkDtype = "float32",
    memory: Memory = "4GB",
    device: Device = "auto",
    workers: Workers = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Score all pairs of a collection of images."""
    settings = _settings(
        backbone=backbone,
        taps=taps,
        lpips_version=lpips_version,
        heads=heads,
        weights=weights,
        size=size,
        store=store,
        store_limit=store_limit,
        row_dtype=row_dtype,
        rehash=rehash,
        trunk_dtype=trunk_dtype,
        memory=memory,
        device=device,
        workers=workers,
    )
    from .pairs import facts, score_pairs

    summary = _watched(lambda screen: score_pairs(sources, out, settings, screen))
    _show(summary, "All pairs", lambda: facts(summary, out), as_json)
    _exit_strictly(summary, strict)


@app.command(epilog="Example: lpipstore extract photos more-photos --backbone vgg")
def extract(
    sources: Sources,
    backbone: Backbone = "alex",
    taps: Taps = "",
    lpips_version: LpipsVersion = "0.1",
    weights: Weights = "imagenet",
    size: Size = "auto",
    store: Store = None,
    store_limit: StoreLimit = None,
    row_dtype: RowDtype = "uint16",
    rehash: Rehash = False,
    trunk_dtype: TrunkDtype = "float32",
    device: Device = "auto",
    workers: Workers = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Run the backbone on images and keep their rows in the store, scoring nothing yet."""
    settings = _settings(
        backbone=backbone,
        taps=taps,
        lpips_version=lpips_version,
        weights=weights,
        size=size,
        store=store,
        store_limit=store_limit,
        row_dtype=row_dtype,
        rehash=rehash,
        trunk_dtype=trunk_dtype,
        device=device,
        workers=workers,
    )
    from .extract import extract_features, facts

    summary = _watched(lambda screen: extract_features(sources, settings, screen))
    _show(summary, "Extracted", lambda: facts(summary), as_json)
    _exit_strictly(summary, strict)


@store_app.command("info", epilog="Example: lpipstore store info --store S")
def store_info(store: Store = None, as_json: Json = False) -> None:
    """Tell what the store holds and how it has been used."""
    from .console import print_table
    from .settings import store_path
    from .stores import describe_store, pool_rows, store_facts

    stat = describe_store(store_path(store))
    _show(stat, "Feature store", lambda: store_facts(stat), as_json)
    if not as_json and stat["pools"]:
        header = ("pool", "numbers in a row", "dtype", "rows", "on disk")
        print_table("Pools", header, pool_rows(stat))


@app.command(epilog="Example: lpipstore demo --out demo")
def demo(
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep pictures, store and runs in this new folder."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw pictures with graded distortions, score all pairs twice, show what came out."""
    from .console import print_table
    from .demo import STRENGTHS, demo_facts, demo_rows, run_demo

    with tempfile.TemporaryDirectory(prefix="lpipstore-demo-") as scratch:
        folder = out or Path(scratch) / "demo"
        outcome = _watched(lambda screen: run_demo(folder, screen))
    _show(outcome, "Demo", lambda: demo_facts(outcome), as_json)
    if not as_json:
        header = ("distortion", *(f"strength {s}" for s in STRENGTHS), "distance")
        print_table("Mean distance to the undistorted picture", header, demo_rows(outcome))


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"lpipstore {installed('lpipstore')}")
        raise typer.Exit


def _settings(*, taps: str, **options: Any) -> "Settings":  # noqa: ANN401 - options as typed
    from .settings import Settings

    return Settings(taps=tuple(tap for tap in taps.split(",") if tap), **options)


def _watched(work: "Callable[[Screen], dict[str, Any]]") -> dict[str, Any]:
    """Do the work of a command under progress bars."""
    import warnings

    from PIL import Image

    from .console import Screen

    # An image is refused from twice Pillow's limit on; up to there it is just a large photograph.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    with Screen() as screen:
        return work(screen)


def _show(
    summary: dict[str, Any],
    title: str,
    facts: Callable[[], list[tuple[str, str]]],
    as_json: bool,
) -> None:
    from .console import print_facts, print_text

    if as_json:
        print_text(json.dumps(summary, indent=2, default=str))
    else:
        print_facts(title, facts())


def _exit_strictly(summary: dict[str, Any], strict: bool) -> None:
    if strict and summary["failed"]:
        raise LpipstoreError(f"--strict: {summary['failed']} image(s) cannot be used")


def main() -> None:
    """Run the command line; errors that a person can mend are one message, not a traceback."""
    try:
        app()
    except LpipstoreError as error:
        from .console import print_error

        print_error(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        from .console import print_error

        print_error(
            "interrupted; what is finished is kept: give the same command again to go on from there"
        )
        sys.exit(130)
