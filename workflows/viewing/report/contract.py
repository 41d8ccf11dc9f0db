"""What a section of the page is, and what it works with."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

from ....pipeline.images.survey import ImageRecord
from ....pipeline.runs.files import IMAGES
from ....pipeline.runs.reopen import reading, reopen_records, reopen_source_choices
from ....pipeline.runs.run import FinishedRun
from ....pipeline.sources.source import GivenSource
from ....pipeline.sources.sources import Sources
from ...session.screen import Screen
from ...session.settings import Settings, source_options
from .across import AcrossSeen
from .allpairs import PairsSeen
from .couples import CouplesSeen
from .listed import ListSeen
from .names import shared_end, short_folders, short_names
from .spread import Pair, Seen
from .trained import TrainingSeen

LISTS = ("score", "below", "nearest")
"""The kinds of run of one collection, or of none, whose distances are a list of pairs."""
COUPLES = ("paired", "across", "groups")
"""The kinds of run whose distances are pairs of two collections, or within groups."""
KINDS = ("pairs", "groups", "compare", "across", "paired", *LISTS, "train")
"""The kinds of run that have a report."""


class Cast:
    """The images that appear on the page, numbered in the order in which sections name them.

    `featured` holds the numbers of the images shown large.
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
    def couples(self) -> CouplesSeen:
        """The pairs of two collections or within groups; only for runs of the kinds `COUPLES`."""
        sides = self.sides if self.kind == "across" else (self.usable, self.usable)
        return CouplesSeen(self.run, *sides)

    @cached_property
    def listed(self) -> ListSeen:
        """The listed pairs; only for runs of the kinds in `LISTS`."""
        return ListSeen(self.run, self.usable, self.screen)

    @cached_property
    def training(self) -> TrainingSeen:
        """The training; only for runs of kind "train"."""
        return TrainingSeen(self.run)

    @property
    def seen(self) -> PairsSeen | ListSeen:
        """The distances of the run; only for runs of pairs, whatever pairs these are."""
        return self.listed if self.kind in LISTS else self.pairs

    @property
    def empty(self) -> bool:
        """Whether the run has no distance at all, as when a search found nothing."""
        return self.run.summary.get("quantiles") is None

    @property
    def distances(self) -> Seen:
        """The distances of the run, whatever kind it is of; a training has none."""
        if self.kind == "compare":
            return self.across
        return self.couples if self.kind in COUPLES else self.seen

    @cached_property
    def sides(self) -> tuple[list[ImageRecord], list[ImageRecord]]:
        """The usable images of the two collections of a run across them, or in its pairs."""
        if self.kind == "paired":
            ends = self.couples.left, self.couples.right
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

    def pair_cards(self, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
        """Return pairs as the macro ``pair`` shows them; of namesakes the name that both have."""
        cards: list[dict[str, Any]] = []
        for left, right, distance in self.distances.with_images(pairs):
            numbers = self.cast.numbers((left, right), large=True)
            names = self.name(left), self.name(right)
            shared = shared_end(*names) if self.kind == "paired" else ""
            cards.append(
                {
                    "images": [*zip(numbers, names, strict=True)],
                    "captions": [shared] if shared else [*names],
                    "distance": distance,
                }
            )
        return cards


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
