"""Shared by all commands: progress, signals and printing of results."""

import json
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import typer

from ...cache.errors import LpipstoreError, LpipstoreWarning
from ...pipeline.common.text import json_text, printable
from ...pipeline.sources.names import is_url
from .messages import at_prompt, option
from .options import OUTPUT

if TYPE_CHECKING:
    from ..session.screen import Lines, Screen
    from ..session.settings import Settings
    from ..session.staging import Staged

T = TypeVar("T")
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", rich_help_panel=OUTPUT, help="Exit with 1 if any image cannot be used."
    ),
]
Json = Annotated[
    bool, typer.Option("--json", rich_help_panel=OUTPUT, help="Print the summary as JSON.")
]


class Outcome(Protocol):
    """What a command did with images, or would do."""

    @property
    def title(self) -> str:
        """What people read above the lines."""

    def entries(self) -> dict[str, Any]:
        """Return what ``--json`` prints; ``failed`` is the number of images that cannot be used."""

    def lines(self) -> "Lines":
        """Return the outcome as lines for people."""


def carry_out(
    work: "Callable[[Screen], Outcome]", *, quiet: bool, as_json: bool, strict: bool = False
) -> None:
    """Run the work of a command and print its outcome.

    Raises
    ------
    LpipstoreError
        Images failed, and `strict` forbids it.
    """
    outcome = watched(work, quiet=quiet)
    entries = outcome.entries()
    show(entries, outcome.title, outcome.lines, as_json)
    if strict and entries["failed"]:
        raise LpipstoreError(f"--strict: {entries['failed']} image(s) cannot be used")


@dataclass(frozen=True)
class _AtUrl:
    """The outcome of a run that was made in a folder of this machine and is at a URL now."""

    made: Outcome
    staged: "Staged"

    @property
    def title(self) -> str:
        """What people read above the lines."""
        return self.made.title

    def entries(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        named = json.loads(self._named(json_text(self.made.entries(), default=str)))
        copied = self.staged.copied
        return {**named, "url": self.staged.place, **({} if copied is None else copied.entries())}

    def lines(self) -> "Lines":
        """Return the outcome as lines for people."""
        named = [(self._named(name), self._named(text)) for name, text in self.made.lines()]
        copied = self.staged.copied
        return named if copied is None else [*named, ("copied", copied.shown())]

    def _named(self, text: str) -> str:
        return text.replace(printable(str(self.staged.folder)), self.staged.place)


def make_run(
    work: "Callable[[Screen, Path], Outcome]",
    out: str,
    settings: "Settings",
    *,
    as_json: bool,
    strict: bool = False,
) -> None:
    """Run the work of a command that writes a run to `out`, a path or a URL; print its outcome.

    Raises
    ------
    LpipstoreError
        Images failed, and `strict` forbids it.
    """
    from ..session.staging import staged_run

    def make(screen: "Screen") -> Outcome:
        with staged_run(out, screen, dry_run=settings.dry_run) as staged:
            made = work(screen, staged.folder)
        return _AtUrl(made, staged) if is_url(out) else made

    carry_out(make, quiet=settings.quiet, as_json=as_json, strict=strict)


def watched(work: "Callable[[Screen], T]", *, quiet: bool = False, goes_on: bool = True) -> T:
    """Run the work of a command with progress bars, or without them if `quiet`.

    `goes_on` says whether repeating an interrupted command resumes it.
    """
    import warnings

    from PIL import Image

    from ..session.screen import Screen, print_error

    # Images above twice Pillow's limit are refused; up to there they are just large photographs.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    screen = Screen(quiet=quiet, spell=option)
    try:
        with _stopped_by_signals(screen), _warnings_on(screen), screen:
            return work(screen)
    except KeyboardInterrupt as interruption:
        kept = f" ({screen.reached()})" if screen.reached() else ""
        command = printable(shlex.join(["lpipstore", *sys.argv[1:]]))
        print_error(
            f"interrupted; what is finished is kept{kept}: give the same command again to go on "
            f"from there:\n  {command}"
            if goes_on
            else "interrupted; there is nothing to go on from"
        )
        raise typer.Exit(128 + (screen.stopped_by or signal.SIGINT)) from interruption


@contextmanager
def _stopped_by_signals(screen: "Screen") -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM stop the work at its next step, a second one at once.

    The handler only takes note; the screen raises KeyboardInterrupt at the next report of progress.
    An exception raised directly by a signal may occur where Python discards it, for example in a
    finaliser, and the work would go on.
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


@contextmanager
def _warnings_on(screen: "Screen") -> Iterator[None]:
    """Show our own warnings on the screen, as it spells settings; Python shows all others."""
    import warnings

    before = warnings.showwarning

    def show_warning(message: Warning | str, *details: Any, **more: Any) -> None:  # noqa: ANN401
        if isinstance(message, LpipstoreWarning):
            screen.warn(message.message)
        else:
            before(message, *details, **more)

    warnings.showwarning = show_warning
    try:
        yield
    finally:
        warnings.showwarning = before


def show(
    summary: dict[str, Any],
    title: str,
    lines: "Callable[[], Lines]",
    as_json: bool,
) -> None:
    """Print a summary, as JSON or as summary lines."""
    from ..session.screen import print_lines, print_text

    if as_json:
        print_text(json_text(summary, default=str))
    else:
        print_lines(title, [(name, at_prompt(text)) for name, text in lines()])
