"""What a section of the page is, and what it works with."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

from ....pipeline.images.survey import ImageRecord
from ....pipeline.runs.files import IMAGES, PAIRS
from ....pipeline.runs.reopen import reading, reopen_records, reopen_source_choices
from ....pipeline.runs.run import FinishedRun
from ....pipeline.sources.source import GivenSource
from ....pipeline.sources.sources import Sources
from ...session.screen import Screen
from ...session.settings import Settings, source_options
from .across import AcrossSeen
from .allpairs import PairsSeen
from .listed import ListSeen
from .names import short_folders, short_names
from .spread import Seen


class Cast:
    """The images that appear on the page, numbered in the order in which sections name them.

    `featured` has the numbers of those that are shown large.
    """

    def __init__(self) -> None:
        self.records: list[ImageRecord] = []
        self.featured: set[int] = set()
        self._numbers: dict[str, int] = {}

    def number(self, record: ImageRecord, *, large: bool = False) -> int:
        """Return the number of an image on the page; it gets the next one if it has none."""
        number = self._numbers.setdefault(record.path, len(self.records))
        if number == len(self.records):
            self.records.append(record)
        if large:
            self.featured.add(number)
        return number

    def numbers(self, records: Iterable[ImageRecord], *, large: bool = False) -> list[int]:
        """Return the numbers of several images."""
        return [self.number(record, large=large) for record in records]


class Subject:
    """The run that a page is about, with what several sections need.

    Attributes
    ----------
    run
        The run.
    screen
        Takes progress and warnings.
    given
        Images in memory that the run was made of.
    cast
        The images on the page.
    """

    def __init__(self, run: FinishedRun, screen: Screen, given: Sequence[GivenSource] = ()) -> None:
        self.run = run
        self.screen = screen
        self.given = given
        self.cast = Cast()

    @cached_property
    def kind(self) -> str:
        """What kind of run it is.

        Returns
        -------
        str
            `FinishedRun.kind`, but "paired" for pairs of namesakes, and "across" for close pairs
            of two collections, which have no matrix.
        """
        asked = self.run.manifest
        if asked.get("paired"):
            return "paired"
        close = asked.get("top_k") is not None or asked.get("below") is not None
        return "across" if asked.get("command") == "compare" and close else self.run.kind

    @cached_property
    def records(self) -> list[ImageRecord]:
        """All images of the run, in its order; none for a run without a table of images."""
        return reopen_records(self.run) if (self.run.path / IMAGES).exists() else []

    @cached_property
    def usable(self) -> list[ImageRecord]:
        """The images that have distances: the rows of the matrix, in order."""
        return [record for record in self.records if not record.error]

    @cached_property
    def pairs(self) -> PairsSeen:
        """The distances of all pairs of a collection; only for runs of kind "pairs"."""
        return PairsSeen(self.run, self.usable, self.screen)

    @cached_property
    def across(self) -> AcrossSeen:
        """The distances between two collections; only for runs of kind "compare"."""
        return AcrossSeen(self.run, *self.sides)

    @cached_property
    def listed(self) -> ListSeen:
        """The distances of a list; only for runs with ``pairs.parquet``."""
        sides = self.sides if self.kind == "across" else (self.usable, self.usable)
        return ListSeen(self.run, *sides)

    @property
    def seen(self) -> Seen | None:
        """The distances of the run; None if it has none, or none that this page knows of."""
        if not self.run.summary.get("quantiles"):
            return None
        if self.kind in ("pairs", "compare"):
            return self.pairs if self.kind == "pairs" else self.across
        return self.listed if (self.run.path / PAIRS).exists() else None

    @cached_property
    def sides(self) -> tuple[list[ImageRecord], list[ImageRecord]]:
        """The usable images of the two collections of a run across them, or in its pairs."""
        if self.kind == "paired":
            ends = self.listed.left, self.listed.right
            first, second = ([self.usable[n] for n in dict.fromkeys(end.tolist())] for end in ends)
            return first, second
        with reading(self.run, IMAGES):
            column = self.run.images.column("side").to_pylist()
        first, second = (
            [
                record
                for record, here in zip(self.records, column, strict=True)
                if here == side and not record.error
            ]
            for side in ("first", "second")
        )
        return first, second

    @cached_property
    def side_names(self) -> tuple[str, str]:
        """What people call the two collections: their folders, as far as those tell them apart."""
        if not all(self.sides):
            return "A", "B"
        first, second = short_folders([short_names([r.path for r in s])[0] for s in self.sides])
        return (first, second) if first != second else (f"{first} (A)", f"{second} (B)")

    def open_sources(self) -> Sources:
        """Return what opens the images of the run, as they were read then; the caller closes it."""
        choices: dict[str, Any] = dict(reopen_source_choices(self.run))
        sources = Sources(source_options(replace(Settings(), **choices)))
        for one in self.given:
            sources.add(one)
        return sources

    @cached_property
    def names(self) -> tuple[str, dict[str, str]]:
        """The folder that all images share, and the printable name of each within it, by path."""
        return short_names([record.path for record in self.records])

    def name(self, record: ImageRecord) -> str:
        """Return the name of an image as the page shows it."""
        return self.names[1].get(record.path) or short_names([record.path])[1][record.path]


@dataclass(frozen=True)
class Content:
    """What a section puts on the page.

    Attributes
    ----------
    hint
        How to read it, in a sentence.
    context
        Variables of the template ``assets/NAME.html.j2``.
    payload
        What ``assets/NAME.js`` gets: JSON, with arrays as `numbers` packs them. None: the section
        needs no script.
    """

    hint: str
    context: Mapping[str, Any] = field(default_factory=dict)
    payload: Mapping[str, Any] | None = None


class Section(Protocol):
    """A part of the page with a heading of its own; its attributes are those of its class."""

    @property
    def name(self) -> str:
        """Name of its anchor and of its files in ``assets``."""

    @property
    def title(self) -> str:
        """The heading."""

    @property
    def kinds(self) -> Sequence[str]:
        """The kinds of run (`Subject.kind`) that it is about; empty: all."""

    def content(self, subject: Subject) -> Content | None:
        """Return what the section shows; None leaves it out.

        Images are named by ``subject.cast.number(record)``; their pictures are made when all
        sections have been asked.
        """
