"""The command line: what a person types, checked and handed to the workflows.

torch is imported only once a command runs, so that ``--help`` answers at once.
"""

import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..cache.errors import LpipstoreError, UsageError
from .options import LIST, OUTPUT, Store, takes_settings
from .settings import Settings, store_path
from .teaching import add_commands

if TYPE_CHECKING:
    from .console import Screen

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

Sources = Annotated[
    list[str],
    typer.Argument(metavar="DIR…", help="Folders, image files or quoted glob patterns."),
]
Out = Annotated[Path, typer.Option(metavar="RUN", help="Folder of the results.")]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", rich_help_panel=OUTPUT, help="Exit with 1 if any image cannot be used."
    ),
]
Json = Annotated[
    bool, typer.Option("--json", rich_help_panel=OUTPUT, help="Print the summary as JSON.")
]

KeepStatistics = Annotated[
    bool,
    typer.Option(
        "--keep-statistics",
        rich_help_panel=LIST,
        help="Keep each pair's statistics: other heads then need no rows.",
    ),
]


@app.command(epilog="Example: lpipstore pairs photos --backbone squeeze --size 64 --out run")
@takes_settings()
def pairs(
    sources: Sources,
    out: Out,
    settings: Settings,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="folder",
            rich_help_panel=LIST,
            help="Only pairs within each folder, with a mean for each.",
            show_default="all pairs",
        ),
    ] = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Score all pairs of a collection of images."""
    if group_by is None:
        from .pairs import facts, score_pairs

        summary = _watched(lambda screen: score_pairs(sources, out, settings, screen))
        _show(summary, "All pairs", lambda: facts(summary, out), as_json)
    else:
        from .collection import check_choice
        from .groups import group_facts, score_groups

        check_choice("--group-by", group_by, ("folder",))
        summary = _watched(lambda screen: score_groups(sources, out, settings, screen))
        _show(summary, "Pairs within folders", lambda: group_facts(summary, out), as_json)
    _exit_strictly(summary, strict)


@app.command(epilog="Example: lpipstore score pairs.csv --images photos --out run")
@takes_settings()
def score(
    table: Annotated[
        Path,
        typer.Argument(metavar="PAIRS", help="A table (.csv, .tsv, .parquet): a pair in a line."),
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
            metavar="DIR",
            rich_help_panel=LIST,
            help="Folder that paths start from.",
            show_default="that of the table",
        ),
    ] = None,
    keep_statistics: KeepStatistics = False,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Score the pairs of images that a table lists, in its order."""
    from .lists import list_facts
    from .score import score_table

    summary = _watched(
        lambda screen: score_table(
            table,
            out,
            settings,
            screen,
            columns=columns,
            images=images,
            statistics=keep_statistics,
        )
    )
    _show(summary, "Scored", lambda: list_facts(summary, out), as_json)
    _exit_strictly(summary, strict)


@app.command(epilog="Example: lpipstore compare originals restored --paired --out run")
@takes_settings()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A folder of images.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    out: Out,
    settings: Settings,
    paired: Annotated[
        bool,
        typer.Option(
            "--paired",
            rich_help_panel=LIST,
            help="Only pairs of images that have the same name within their folders.",
        ),
    ] = False,
    keep_statistics: KeepStatistics = False,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Score each image of a folder against each of another, or against its namesake."""
    from .compare import compare_facts, compare_folders, compare_paired, folders_facts

    if not paired:
        if keep_statistics:
            raise UsageError("--keep-statistics is for lists: give --paired, too")
        summary = _watched(lambda screen: compare_folders(first, second, out, settings, screen))
        _show(summary, "Compared", lambda: folders_facts(summary, out), as_json)
        _exit_strictly(summary, strict)
        return
    summary = _watched(
        lambda screen: compare_paired(
            first, second, out, settings, screen, statistics=keep_statistics
        )
    )
    _show(summary, "Compared", lambda: compare_facts(summary, out), as_json)
    _exit_strictly(summary, strict)


@app.command(epilog="Example: lpipstore extract photos more-photos --backbone vgg")
@takes_settings("heads", "memory")
def extract(
    sources: Sources, settings: Settings, strict: Strict = False, as_json: Json = False
) -> None:
    """Run the backbone on images and keep their rows in the store, scoring nothing yet."""
    from .extract import extract_features, facts

    summary = _watched(lambda screen: extract_features(sources, settings, screen))
    _show(summary, "Extracted", lambda: facts(summary), as_json)
    _exit_strictly(summary, strict)


@store_app.command("info", epilog="Example: lpipstore store info --store S")
def store_info(store: Store = None, as_json: Json = False) -> None:
    """Tell what the store holds and how it has been used."""
    from .console import print_table
    from .stores import describe_store, pool_rows, store_facts

    stat = describe_store(store_path(store))
    _show(stat, "Feature store", lambda: store_facts(stat), as_json)
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
    from .stores import verify_facts, verify_store

    report = verify_store(store_path(store), repair=repair)
    _show(report, "Verified", lambda: verify_facts(report), as_json)
    if not report["ok"]:
        raise typer.Exit(1)


@store_app.command("evict", epilog="Example: lpipstore store evict --to 5GB")
def store_evict(
    to: Annotated[str, typer.Option(metavar="5GB", help="Bytes on disk to come down to.")],
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Evict the least recently used rows until the store is small enough."""
    from .stores import evict_store, freed_facts

    freed = evict_store(store_path(store), to)
    _show(freed, "Evicted", lambda: freed_facts(freed), as_json)


@store_app.command("clear", epilog="Example: lpipstore store clear --backbone vgg")
def store_clear(
    store: Store = None,
    backbone: Annotated[
        str | None, typer.Option(help="Only the rows of this backbone.", show_default="all")
    ] = None,
    as_json: Json = False,
) -> None:
    """Remove rows; they are computed again when they are needed."""
    from .stores import clear_store, freed_facts

    freed = clear_store(store_path(store), backbone)
    _show(freed, "Cleared", lambda: freed_facts(freed), as_json)


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


def _watched(work: "Callable[[Screen], dict[str, Any]]") -> dict[str, Any]:
    """Do the work of a command under progress bars."""
    import warnings

    from PIL import Image

    from .console import Screen, print_error

    # An image is refused from twice Pillow's limit on; up to there it is just a large photograph.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    screen = Screen()
    try:
        with _stopped_by_signals(screen), screen:
            return work(screen)
    except KeyboardInterrupt as interruption:
        print_error(
            "interrupted; what is finished is kept: give the same command again to go on from there"
        )
        raise typer.Exit(128 + (screen.stopped_by or signal.SIGINT)) from interruption


@contextmanager
def _stopped_by_signals(screen: "Screen") -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM stop the work at its next step, a second one at once.

    An exception that a signal raises anywhere can come up where Python drops it, in a finaliser
    say, and then the work would just go on.
    """

    def stop(number: int, _: object) -> None:
        if screen.stopped_by is not None:
            raise KeyboardInterrupt
        screen.stopped_by = number

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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


add_commands(app, _watched, _show)


def main() -> None:
    """Run the command line; errors that a person can mend are one message, not a traceback."""
    try:
        app()
    except LpipstoreError as error:
        from .console import print_error

        print_error(str(error))
        sys.exit(error.exit_code)
    except OSError as error:  # of printing: everything else has a message of its own
        from .console import print_error

        print_error(f"cannot print the results: {error.strerror or error}")
        sys.exit(1)
