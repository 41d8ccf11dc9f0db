"""Copy rows from a remote folder into the store: all that fit, or those of some images."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar

from ...cache.errors import UsageError, setting
from ...cache.exchange.catalogue import Catalogue
from ...cache.exchange.fetch import Fetcher
from ...cache.store import FeatureStore
from ...pipeline.sources.sources import Given
from ..session.screen import Lines, Screen
from ..session.session import Session, find_collection, make_collection, open_session
from ..session.settings import Settings, show_bytes


@dataclass(frozen=True)
class PulledStore:
    """What was pulled from a URL into the store at a path.

    Attributes
    ----------
    wanted
        Rows that were asked for: of the images, or all of the catalogue.
    rows, bytes
        Rows that were fetched and kept, and the bytes that were read for them.
    there
        Rows that the store had before.
    unknown
        Rows of images that the catalogue does not have.
    damaged
        Rows whose object is truncated, altered or gone.
    no_room
        Rows left out because the store has reached its limit.
    evicted_bytes
        Bytes of other rows that were evicted to make room.
    failed
        Images that cannot be used.
    """

    title: ClassVar[str] = "Pulled"
    wanted: int
    rows: int
    bytes: int
    there: int
    unknown: int
    damaged: int
    no_room: int
    evicted_bytes: int
    failed: int
    store: str
    url: str

    def entries(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return dict(vars(self))

    def lines(self) -> Lines:
        """Return it as lines for people."""
        lines = [
            ("from", self.url),
            ("store", self.store),
            ("pulled", f"{self.rows:,} of {self.wanted:,} rows"),
            ("read", show_bytes(self.bytes)),
            ("there already", f"{self.there:,} rows"),
        ]
        rest = {
            "not pushed": f"{self.unknown:,} rows: they are computed when they are needed",
            "damaged": f"{self.damaged:,} rows: they are computed when they are needed",
            "no room": f"{self.no_room:,} rows; {setting('store_limit')} raises the limit",
            "evicted": f"{show_bytes(self.evicted_bytes)} of other rows, to make room",
        }
        counts = (self.unknown, self.damaged, self.no_room, self.evicted_bytes)
        return lines + [line for line, count in zip(rest.items(), counts, strict=True) if count]


def pull_store(sources: Sequence[Given], settings: Settings, screen: Screen) -> PulledStore:
    """Pull rows from the folder at the setting ``remote`` that the store lacks.

    With `sources`, the rows of their images; otherwise all, or those of the backbone if it was
    chosen: first what was pushed last, and of that what was used last. Rows that are pinned are not
    evicted for them, and pulled ones not for one another. Rows are kept as they come, so that the
    same command goes on after an interruption.

    Raises
    ------
    UsageError
        A setting is written wrong, or a source does not exist.
    LpipstoreError
        The folder cannot be read, or has no catalogue.
    """
    with open_session(settings, screen) as session:
        if session.remote is None:
            raise UsageError(f"pull takes the URL of a {setting('remote')} store")
        if not sources:
            by = {"backbone": settings.backbone} if "backbone" in settings.given else {}
            return _pull(_all_keys(session.remote.catalogue, by), session.remote, session, 0)
        collection = make_collection(find_collection(sources, session), session)
        features = collection.features
        keys = [features.key(content) for content in dict.fromkeys(collection.contents())]
        failed = len(collection.records) - len(collection.good)
        return _pull(keys, session.remote, session, failed)


def _all_keys(catalogue: Catalogue, recipe: dict[str, str]) -> list[bytes]:
    """Return the keys of a catalogue in its order, each once."""
    return list(
        dict.fromkeys(
            key
            for segment in catalogue.segments
            if recipe.items() <= segment.pool.recipe.items()
            for key in segment.keys
        )
    )


def _pull(keys: list[bytes], remote: Fetcher, session: Session, failed: int) -> PulledStore:
    """Fetch the rows of keys that the store lacks, until it takes no more."""
    store: FeatureStore = session.store
    missing = store.missing(keys)
    unknown = len(remote.missing(missing))
    before, kept, full = _evicted(store), 0, False
    with (
        store.pin(f"pull from {remote.folder.place}", keys),
        closing(remote.fetch(missing)) as all_,
    ):
        session.screen.report("rows", 0, len(missing) - unknown)
        for fetched in all_:
            kept += store.put_many(fetched.spec, fetched.keys, fetched.rows)
            session.screen.report("rows", kept, len(missing) - unknown)
            if kept < remote.rows:
                full = True
                break
        left = store.missing(missing)
    damaged = sum(remote.damaged.values())
    return PulledStore(
        wanted=len(keys),
        rows=kept,
        bytes=remote.bytes,
        there=len(keys) - len(missing),
        unknown=unknown,
        damaged=damaged,
        no_room=len(left) - unknown - damaged if full else 0,
        evicted_bytes=_evicted(store) - before,
        failed=failed,
        store=str(store.path),
        url=remote.folder.place,
    )


def _evicted(store: FeatureStore) -> int:
    return store.stat().evicted_bytes
