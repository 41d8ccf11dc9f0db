"""What a person sees: progress and messages on stderr, results on stdout."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from ...cache.errors import LpipstoreError, Spell, keyword, spelled

Lines = list[tuple[str, str]]
"""A summary as people see it: a name and a value per line."""

_FIRST_LINE_SECONDS = 5.0
_LINE_SECONDS = 30.0
_IN_NOTEBOOK = "JPY_PARENT_PID"  # a Jupyter kernel and all that it starts have this variable
_ANY_WIDTH = 10_000  # a file or a pipe has no width of its own
_FLEETING = ("hash", "rows", "check", "pixels")  # stages that are begun anew


def _console(*, stderr: bool = False) -> Console:
    """Return a console on a standard stream; in a notebook, too, where rich would draw HTML."""
    return Console(stderr=stderr, highlight=False, force_jupyter=False)


def _can_draw(console: Console) -> bool:
    """Tell whether the terminal can redraw progress bars in place.

    What a notebook runs with ``!`` has a terminal that cannot move up, and FORCE_COLOR, which
    notebooks and build servers set, makes rich take any file for a terminal.
    """
    terminal = console.file.isatty() and not console.is_dumb_terminal
    return terminal and _IN_NOTEBOOK not in os.environ


class _Rate(ProgressColumn):
    """Images or tiles per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", style="progress.data.speed")


class _Lines:
    """Progress as lines, for log files, pipes and notebooks: now and then, and at the end."""

    def __init__(self, print_line: Callable[[str], None]) -> None:
        self._print = print_line
        self._began: dict[str, tuple[float, int]] = {}
        self._next: dict[str, float] = {}

    def report(self, stage: str, done: int, total: int, beside: str) -> None:
        """Print where a stage is, if it is time to, and what stands beside it."""
        now = time.monotonic()
        if stage not in self._began or (stage not in self._next and done < total):
            self._began[stage] = now, done
            self._next[stage] = now + _FIRST_LINE_SECONDS
        began, before = self._began[stage]
        if done >= total:
            if self._next.pop(stage, None) is not None:
                self._print(f"{stage} {total:,} in {show_seconds(now - began)}")
        elif now >= self._next[stage]:
            self._next[stage] = now + _LINE_SECONDS
            left = ""
            if done > before:
                left = f", {show_seconds((now - began) * (total - done) / (done - before))} left"
            more = f"; {beside}" if beside else ""
            self._print(f"{stage} {done:,} of {total:,} ({done / total:.0%}{left}{more})")


def show_seconds(seconds: float) -> str:
    """Return a time as people write it: 0.3 s, 45 s, 3 min, 2 h 10 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class Screen:
    """Progress bars and messages of one command; use it in a ``with`` statement.

    Bars are drawn in a terminal; anywhere else lines tell the progress. With `quiet` nothing is
    shown but warnings. `spell` spells the settings that messages name. `stopped_by` is the number
    of the signal that asked to stop, None as long as none did. `notes` returns what stands beside
    the progress of a stage, if anything.
    """

    def __init__(self, *, quiet: bool = False, spell: Spell = keyword) -> None:
        self._quiet = quiet
        self._spell = spell
        self._console = _console(stderr=True)
        bars = _can_draw(self._console)
        self._lines = None if bars or quiet else _Lines(self._print)
        self._progress = Progress(
            TextColumn("{task.description:<7}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[beside]}", markup=False),
            console=self._console,
            disable=quiet or not bars,
        )
        self._tasks: dict[str, TaskID] = {}
        self._reached: dict[str, tuple[int, int]] = {}
        self._warned: set[str] = set()
        self._beside: Callable[[], str] | None = None
        self.stopped_by: int | None = None
        self.notes: dict[str, Callable[[], str | None]] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def report(self, stage: str, done: int, total: int) -> None:
        """Move the bar of a stage: a `lpipstore.pipeline.common.progress.Report`.

        Raises KeyboardInterrupt if a signal has asked to stop: between two steps nothing is torn.
        """
        self._reached[stage] = done, total
        if self.stopped_by is not None:
            raise KeyboardInterrupt
        beside = spelled(self._told_beside(stage), self._spell) if done < total else ""
        if self._lines is not None:
            self._lines.report(stage, done, total, beside)
            return
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, beside="")
        self._progress.update(self._tasks[stage], completed=done, total=total, beside=beside)

    def _told_beside(self, stage: str) -> str:
        if self._beside is not None:
            return self._beside()
        return (self.notes[stage]() or "") if stage in self.notes else ""

    @contextmanager
    def beside(self, line: Callable[[], str]) -> Iterator[None]:
        """Show what `line` returns beside the progress of stages, as long as the block runs."""
        self._beside = line
        try:
            yield
        finally:
            self._beside = None

    def reached(self) -> str:
        """Say how far the stages have come whose results stay."""
        return ", ".join(
            f"{stage} {done:,} of {total:,}"
            for stage, (done, total) in self._reached.items()
            if stage not in _FLEETING
        )

    def say(self, message: str) -> None:
        """Print a line that is good to know."""
        if not self._quiet:
            self._print(message)

    def _print(self, message: str) -> None:
        line = spelled(message, self._spell)
        self._console.print(line, soft_wrap=True, markup=False)

    def warn(self, message: str) -> None:
        """Print a line that should not be missed, once."""
        if message in self._warned:
            return
        self._warned.add(message)
        line = spelled(message, self._spell)
        self._console.print(Text("warning: ", style="yellow").append(line), soft_wrap=True)


def print_error(message: str) -> None:
    """Print why a command failed."""
    _console(stderr=True).print(Text("error: ", style="bold red").append(message), soft_wrap=True)


@contextmanager
def printing() -> Iterator[None]:
    """Turn errors of the standard output into an `LpipstoreError`.

    A reader that has gone, as ``head`` does, stays a `BrokenPipeError`, which ends in silence; an
    error of a file stays what it is.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is not None:
            raise
        raise LpipstoreError(f"cannot print the results: {error.strerror or error}") from error


def print_text(text: str) -> None:
    """Print a result as it is."""
    with printing():
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def print_lines(title: str, lines: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair in a line."""
    console = _console()
    width = max(len(name) for name, _ in lines)
    with printing():
        console.print(Text(title, style="italic"))
        for name, value in lines:
            console.print(Text.assemble((name.ljust(width + 2), "bold"), value), soft_wrap=True)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table whose first column is text and whose other columns are numbers."""
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console = _console()
    if not console.is_terminal:
        console.width = _ANY_WIDTH
    with printing():
        console.print(table)
