"""The commands of lpipstore: they check their arguments and call the workflows.

torch is imported only when a command runs, so that ``--help`` responds at once.
"""

import ctypes
import gc
import io
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ...cache.errors import LpipstoreError
from ...pipeline.common.text import printable
from ..session.settings import Settings, store_path
from .clusters import CLUSTERS_EXAMPLES, PICK_EXAMPLES, clusters, pick
from .compare import COMPARE_EXAMPLES, compare
from .embeddings import EMBEDDINGS_EXAMPLES, export_embeddings
from .exporting import MODEL_EXAMPLES, check_model, export_model
from .learning import EVALUATE_EXAMPLES, TRAIN_EXAMPLES, evaluate, train
from .maps import MAP_EXAMPLES, spatial_map
from .messages import at_prompt
from .neighbours import NEIGHBOURS_EXAMPLES, neighbours
from .options import (
    LIST,
    WHAT_HOLDS_IMAGES,
    Out,
    Quiet,
    Store,
    path_of,
    takes_settings,
)
from .pairs import PAIRS_EXAMPLES, pairs
from .runner import Json, Strict
from .runner import carry_out as _carry_out
from .runner import make_run as _make_run
from .runner import show as _show
from .runner import watched as _watched
from .runs import COPY_EXAMPLES, DistancesUnlessNamed, export, export_run, rescore
from .shared import KeepStatistics, OfBackbone
from .stores import PULL_EXAMPLES, PUSH_EXAMPLES, store_pull, store_push
from .viewing import DUPLICATES_EXAMPLES, REPORT_EXAMPLES, duplicates, report

_COLLECT_AT = 50_000, 20, 20  # thresholds of gc, by default 700, 10, 10
_MALLOPT = {-1: 256 << 20, -3: 32 << 20}  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD: mallopt(3), in bytes

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
EXPORT_EXAMPLES = "Example: lpipstore export run --format csv --out distances.csv"
export_app = typer.Typer(
    cls=DistancesUnlessNamed,
    help="Write distances, vectors, whole runs or the metric itself elsewhere; `export RUN` is "
    "`export distances RUN`.",
    epilog=EXPORT_EXAMPLES,
    no_args_is_help=True,
)
app.add_typer(export_app, name="export")
export_app.command("distances", epilog=EXPORT_EXAMPLES)(export)
export_app.command("embeddings", epilog=EMBEDDINGS_EXAMPLES)(export_embeddings)
export_app.command("model", epilog=MODEL_EXAMPLES)(export_model)
export_app.command("run", epilog=COPY_EXAMPLES)(export_run)
export_app.command("check", epilog="Example: lpipstore export check squeeze.onnx")(check_model)

Sources = Annotated[
    list[str],
    typer.Argument(metavar="IMAGES…", help=WHAT_HOLDS_IMAGES),
]

app.command(epilog=PAIRS_EXAMPLES)(pairs)
app.command(epilog=COMPARE_EXAMPLES)(compare)


@app.command(epilog="Example: lpipstore score pairs.csv --images photos --out run")
@takes_settings()
def score(
    table: Annotated[
        Path,
        typer.Argument(
            parser=path_of,
            metavar="PAIRS",
            help="A table (.csv, .tsv, .parquet): two paths, URLs or shard.tar#cat.jpg per line.",
        ),
    ],
    out: Out,
    settings: Settings,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            rich_help_panel=LIST,
            help="The two columns of paths.",
            show_default="path_a,path_b and the like, else the first two",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            parser=path_of,
            metavar="DIR",
            rich_help_panel=LIST,
            help="Folder that relative paths start from.",
            show_default="that of the table",
        ),
    ] = None,
    keep_statistics: KeepStatistics = False,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Score the pairs of images that a table lists, in its order."""
    from ..scoring.table import score_table

    _make_run(
        lambda screen, folder: score_table(
            table,
            folder,
            settings,
            screen,
            columns=columns,
            images=images,
            statistics=keep_statistics,
        ),
        out,
        settings,
        as_json=as_json,
        strict=strict,
    )


@app.command(epilog="Example: lpipstore extract photos samples.npz --backbone vgg")
@takes_settings("heads", "memory", "device_memory", "dry_run")
def extract(
    sources: Sources, settings: Settings, strict: Strict = False, as_json: Json = False
) -> None:
    """Run the backbone on images and keep their rows in the store, scoring nothing yet."""
    from ..store.extract import extract_features

    _carry_out(
        lambda screen: extract_features(sources, settings, screen),
        quiet=settings.quiet,
        as_json=as_json,
        strict=strict,
    )


@store_app.command("info", epilog="Example: lpipstore store info --store S")
def store_info(store: Store = None, as_json: Json = False) -> None:
    """Tell what the store holds and how it has been used."""
    from ..session.screen import print_table
    from ..store.stores import describe_store, pool_rows, store_lines

    stat = describe_store(store_path(store))
    _show(stat, "Feature store", lambda: store_lines(stat), as_json)
    if not as_json and stat["pools"]:
        header = ("pool", "numbers in a row", "dtype", "rows", "on disk")
        print_table("Pools", header, pool_rows(stat))


@store_app.command("verify", epilog="Example: lpipstore store verify --repair")
def store_verify(
    store: Store = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what is damaged; lost rows are computed again.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Read every row with its checksum, cross-check index and files. Exits with 1 if not sound."""
    from ..store.stores import verify_lines, verify_store

    report = verify_store(store_path(store), repair=repair)
    _show(report, "Verified", lambda: verify_lines(report), as_json)
    if not report["ok"]:
        raise typer.Exit(1)


@store_app.command("evict", epilog="Example: lpipstore store evict --to 5GB")
def store_evict(
    to: Annotated[str, typer.Option(metavar="5GB", help="Bytes on disk to come down to.")],
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Evict the least recently used rows until the store is small enough."""
    from ..store.stores import evict_store, freed_lines

    freed = evict_store(store_path(store), to)
    _show(freed, "Evicted", lambda: freed_lines(freed), as_json)


@store_app.command("clear", epilog="Example: lpipstore store clear --backbone vgg")
def store_clear(
    store: Store = None,
    backbone: OfBackbone = None,
    as_json: Json = False,
) -> None:
    """Remove rows; they are computed again when they are needed."""
    from ..store.stores import clear_store, freed_lines

    freed = clear_store(store_path(store), backbone)
    _show(freed, "Cleared", lambda: freed_lines(freed), as_json)


store_app.command("push", epilog=PUSH_EXAMPLES)(store_push)
store_app.command("pull", epilog=PULL_EXAMPLES)(store_pull)


@app.command(epilog="Example: lpipstore demo --out demo")
def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            parser=path_of, metavar="DIR", help="Keep pictures, store and runs in this new folder."
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Draw pictures with graded distortions, score all pairs twice, show what came out."""
    from ..demo import STRENGTHS, demo_lines, demo_rows, run_demo
    from ..session.screen import print_table

    with tempfile.TemporaryDirectory(prefix="lpipstore-demo-") as scratch:
        folder = out or Path(scratch) / "demo"
        outcome = _watched(lambda screen: run_demo(folder, screen), quiet=quiet, goes_on=False)
    _show(outcome, "Demo", lambda: demo_lines(outcome), as_json)
    if not as_json:
        header = ("distortion", *(f"strength {s}" for s in STRENGTHS), "distance")
        print_table("Mean distance to the undistorted picture", header, demo_rows(outcome))


app.command(epilog="Example: lpipstore rescore run --heads my-head.pth --out run2")(rescore)
app.command(epilog=DUPLICATES_EXAMPLES)(duplicates)
app.command(epilog=REPORT_EXAMPLES)(report)
app.command(epilog=CLUSTERS_EXAMPLES)(clusters)
app.command(epilog=PICK_EXAMPLES)(pick)
app.command("map", epilog=MAP_EXAMPLES)(spatial_map)
app.command(epilog=NEIGHBOURS_EXAMPLES)(neighbours)
app.command(epilog=TRAIN_EXAMPLES)(train)
app.command(epilog=EVALUATE_EXAMPLES)(evaluate)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        from ..session.screen import print_text

        print_text(f"lpipstore {installed('lpipstore')}")
        raise typer.Exit


def run_command() -> None:
    """Run the command line; print errors that users can fix as a message, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # prints ? for characters it cannot encode
            stream.reconfigure(errors="replace")
    try:
        app()
    except LpipstoreError as error:
        from ..session.screen import print_error

        print_error(at_prompt(error.message))
        sys.exit(error.exit_code)
    except OSError as error:  # one without a more specific message
        from ..session.screen import print_error

        print_error(f"a file cannot be read or written: {printable(str(error))}")
        sys.exit(1)


def _keep_freed_memory() -> None:
    """Make glibc keep the memory that layers of the trunk free, for the next layers.

    By default it returns activations to the system after every layer, and pages that are touched
    again have to be mapped again: a quarter of the forward pass of SqueezeNet at 64 px. Other C
    libraries are not changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, size in _MALLOPT.items():
            mallopt(parameter, size)


def main() -> None:
    """Entry point: tune memory management for a short-lived process and run the command line.

    Importing torch creates 170,000 objects, none of them garbage. Scanning them for garbage, during
    the import and again at exit, takes 0.5 of 2.4 seconds of ``python -c "import torch"``.
    """
    gc.set_threshold(*_COLLECT_AT)
    _keep_freed_memory()
    try:
        run_command()
    finally:
        gc.freeze()
