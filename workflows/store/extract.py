"""Fill the store with the rows of a collection, without scoring anything."""

from collections.abc import Sequence
from typing import Any

from ...pipeline.images.sources import Given
from ..session.collection import count_images
from ..session.preflight import warn_of_forwards
from ..session.screen import Screen
from ..session.session import find_collection, make_collection, open_session
from ..session.settings import Settings


def extract_features(
    sources: Sequence[Given], settings: Settings, screen: Screen
) -> dict[str, Any]:
    """Run the backbone on every image in `sources` whose row is missing from the store.

    Returns counts of images, forwards and hits, and the seconds of each stage.
    """
    with open_session(settings, screen) as session:
        records = find_collection(sources, session)
        collection = make_collection(records, session)
        warn_of_forwards(collection, screen)
        hits = collection.extract()
        collection.warn_of_trouble(screen)
        return {
            **collection.counts(hits),
            "store": str(session.store.path),
            "seconds": {**session.clock.seconds, "total": session.clock.total()},
        }


def extract_lines(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the summary lines, as (name, value) pairs."""
    seconds = summary["seconds"]
    stages = ", ".join(
        f"{name} {seconds[name]:.2f}" for name in ("hash", "decode", "load", "forward")
    )
    return [
        *count_images(summary),
        ("seconds", f"{seconds['total']:.2f} ({stages})"),
        ("store", summary["store"]),
    ]
