"""The contract of a family of backbones: how its members are named, loaded and laid out."""

from collections.abc import Sequence
from typing import Protocol

from ..sources.identity import FileTable
from .backbone import Backbone, Outline
from .weights import WeightsChoice


class BackboneFamily(Protocol):
    """Backbones that are named and loaded in one way.

    A new family is one file, and one line in `lpipstore.pipeline.backbones.load`.

    Attributes
    ----------
    names : str
        How its backbones are named, for messages.
    named_taps : bool
        Whether users name the taps; otherwise each backbone has its own.
    """

    names: str
    named_taps: bool

    def takes(self, name: str) -> bool:
        """Return whether a name is one of this family."""

    def check(self, name: str, version: str, taps: Sequence[str]) -> None:
        """Raise `UsageError` for a version or taps that the backbone does not have."""

    def outline(self, name: str, taps: tuple[str, ...]) -> Outline:
        """Return what is known of a backbone without its weights."""

    def load(
        self,
        name: str,
        version: str,
        weights: WeightsChoice,
        taps: tuple[str, ...],
        table: FileTable | None,
    ) -> Backbone:
        """Load a backbone: see `lpipstore.pipeline.backbones.load.load_backbone`."""
