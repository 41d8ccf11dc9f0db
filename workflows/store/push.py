"""Copy a store's rows to a remote folder, so that other machines need not compute them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ...cache.exchange.push import Pushed, push
from ..session.remote import kept_catalogues, open_folder
from ..session.screen import Lines, Screen
from ..session.settings import show_bytes
from .stores import open_existing


@dataclass(frozen=True)
class PushedStore:
    """What was pushed from the store at a path to a URL.

    `backbones` are those that the store has rows of; `backbone` is the only one to be pushed, None
    for all.
    """

    title: ClassVar[str] = "Pushed"
    pushed: Pushed
    store: str
    url: str
    backbone: str | None
    backbones: list[str]

    def entries(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {**vars(self.pushed), "store": self.store, "url": self.url}

    def lines(self) -> Lines:
        """Return it as lines for people."""
        done = self.pushed
        lines = [
            ("store", self.store),
            ("to", self.url),
            ("pushed", f"{done.rows:,} rows"),
            ("sent", f"{show_bytes(done.bytes)} (segments: {done.segments:,})"),
            ("there already", f"{done.there:,} rows"),
        ]
        if self.backbone is not None and self.backbone not in self.backbones:
            there = ", ".join(self.backbones) or "none"
            lines.append(("backbones", f"{there}; no rows of {self.backbone!r}"))
        if done.resumed:
            lines.append(
                (
                    "resumed",
                    f"{done.resumed:,} segments were there already, and are in the catalogue now",
                )
            )
        if done.altered:
            lines.append(("altered objects", f"{done.altered:,}, of which rows were sent again"))
        if done.corrupt:
            lines.append(("left out", f"{done.corrupt:,} rows that are damaged in the store"))
        return lines


def push_store(
    path: Path, url: str, backbone: str | None, screen: Screen, *, verify: bool = False
) -> PushedStore:
    """Push the rows of a store, or those of one backbone, that the folder at `url` lacks.

    With `verify` every object there is read, to find those that were altered.

    Raises
    ------
    UsageError
        There is no store, or `url` is none.
    LpipstoreError
        The folder cannot be read or written; what was sent stays, and the same command goes on.
    """
    recipe = None if backbone is None else {"backbone": backbone}
    with open_folder(url) as folder, open_existing(path) as store:
        held = sorted({pool.recipe.get("backbone", "") for pool in store.stat().pools})
        pushed = push(
            store,
            folder,
            recipe,
            lambda done, total: screen.report("rows", done, total),
            screen.warn,
            kept=kept_catalogues(screen),
            verify=verify,
        )
        return PushedStore(pushed, str(store.path), folder.place, backbone, held)
