"""The contract of a source of images: what lists the images of one place, and opens each.

A new kind of source is one file in `kinds`, with a class like
`lpipstore.pipeline.sources.kinds.files.Files`, and one line in `sources.KINDS`, before `Files`.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

import torch

from ...cache.errors import LpipstoreError
from .arrays import ValueRange

if TYPE_CHECKING:
    from ...cache.index import FileIdentity

ImageData: TypeAlias = bytes | torch.Tensor
"""The bytes of an image file, or decoded pixels as `lpipstore.pipeline.sources.arrays.take_image`
returns them: [height, width, 3], uint8, or float32 from -1 to 1."""


class ImageError(LpipstoreError):
    """An image cannot be used; the message gives the reason, without the path."""


@dataclass(frozen=True)
class SourceOptions:
    """How sources read what is in them; each kind looks only at what concerns it.

    Attributes
    ----------
    value_range
        (lowest, highest) possible value of floating-point arrays; None refuses them.
    image_column
        The column of a table that holds images; None takes the only one that can.
    every
        Which frames of a video: ``0.5s`` is one every half second, ``10f`` every tenth; None is
        every frame.
    """

    value_range: ValueRange | None = None
    image_column: str | None = None
    every: str | None = None


@dataclass
class Listing:
    """What a source holds.

    Attributes
    ----------
    members
        The images, in order of storage. Each is named by text that stays the same as long as the
        source does: a path for files, the name or number behind the ``#`` for others.
    unreadable
        (name, reason) of what exists but cannot be read.
    """

    members: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)


class Source(Protocol):
    """Images that lie in one place. Threads may share it."""

    @property
    def sequential(self) -> bool:
        """Whether members are read quickly only in the order of the listing."""

    def list(self) -> Listing:
        """List the images.

        Raises
        ------
        ImageError
            Nothing can be read at all; the message is the reason, without the place.
        """

    def version(self, member: str) -> "FileIdentity | None":
        """Return what changes whenever the bytes or pixels of a member may have changed.

        None stands for a member that has to be read to know.

        Raises
        ------
        OSError
            The place cannot be reached.
        """

    def read(self, member: str) -> ImageData:
        """Return a member's bytes or pixels.

        Raises
        ------
        ImageError
            It cannot be read; the message is the reason, without the name.
        """

    def close(self) -> None:
        """Close what is open, once no thread is reading; the next call opens it again."""


class GivenSource(Source, Protocol):
    """A source that a program made, such as arrays in memory; `place` is what it is called."""

    place: str


class SourceKind(Protocol):
    """Makes the sources of one kind; the class of a source fits."""

    def takes(self, place: str) -> bool:
        """Return whether a path or URL, which need not exist, is of this kind."""

    def __call__(self, place: str, options: SourceOptions) -> Source:
        """Return the source at a place; nothing is opened yet."""
