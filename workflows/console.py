"""What a person sees: progress and messages on stderr, results on stdout."""

import sys
from collections.abc import Sequence
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


class _Rate(ProgressColumn):
    """Images or tiles per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", style="progress.data.speed")


class Screen:
    """Progress bars and messages of one command; use it in a ``with`` statement.

    With `quiet` nothing is shown but warnings. `stopped_by` is the number of the signal that asked
    to stop, None as long as none did.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description:<7}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self._console,
            disable=quiet,
        )
        self._tasks: dict[str, TaskID] = {}
        self._warned: set[str] = set()
        self.stopped_by: int | None = None

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
        """Move the bar of a stage: a `lpipstore.pipeline.progress.Report`.

        Raises KeyboardInterrupt if a signal has asked to stop: between two steps nothing is torn.
        """
        if self.stopped_by is not None:
            raise KeyboardInterrupt
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total)
        self._progress.update(self._tasks[stage], completed=done, total=total)

    def say(self, message: str) -> None:
        """Print a line that is good to know."""
        if not self._quiet:
            self._console.print(message, soft_wrap=True, markup=False)

    def warn(self, message: str) -> None:
        """Print a line that should not be missed, once."""
        if message in self._warned:
            return
        self._warned.add(message)
        self._console.print(Text("warning: ", style="yellow").append(message), soft_wrap=True)


def print_error(message: str) -> None:
    """Print why a command failed."""
    Console(stderr=True, highlight=False).print(
        Text("error: ", style="bold red").append(message), soft_wrap=True
    )


def print_text(text: str) -> None:
    """Print a result as it is."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_facts(title: str, facts: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair in a line."""
    console = Console(highlight=False)
    console.print(Text(title, style="italic"))
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        console.print(Text.assemble((name.ljust(width + 2), "bold"), value), soft_wrap=True)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table whose first column is text and whose other columns are numbers."""
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(highlight=False)
    # A file or a pipe has no width of its own
    console.print(table, width=None if console.is_terminal else 160)
