"""Fill the store with the rows of a collection, without scoring anything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ...pipeline.sources.sources import Given
from ..session.collection import Counts
from ..session.preflight import warn_of_forwards
from ..session.screen import Lines, Screen
from ..session.session import find_collection, make_collection, open_session
from ..session.settings import Settings
from ..session.slowest import show_slowest
from ..session.summary import show_stages


@dataclass(frozen=True)
class Extracted:
    """What was extracted into the store at a path; `slowest` is the slowest part, for people."""

    title: ClassVar[str] = "Extracted"
    counts: Counts
    store: str
    seconds: Mapping[str, float]
    slowest: str | None = None

    def entries(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {**self.counts.entries(), "store": self.store, "seconds": self.seconds}

    def lines(self) -> Lines:
        """Return it as lines for people."""
        stages = ("hash", "decode", "load", "copy", "forward", "write")
        seconds = show_stages(self.seconds, *(stage for stage in stages if stage in self.seconds))
        slowest = [("slowest", self.slowest)] if self.slowest else []
        return [*self.counts.lines(), ("seconds", seconds), *slowest, ("store", self.store)]


def extract_features(sources: Sequence[Given], settings: Settings, screen: Screen) -> Extracted:
    """Run the backbone on every image in `sources` whose row is missing from the store."""
    with open_session(settings, screen) as session:
        records = find_collection(sources, session)
        collection = make_collection(records, session)
        warn_of_forwards(collection, screen)
        hits = collection.extract()
        collection.warn_of_trouble(screen)
        seconds = {**session.clock.seconds, "total": session.clock.total()}
        slowest = show_slowest(seconds, settings)
        return Extracted(collection.counts(hits), str(session.store.path), seconds, slowest)
