"""Datasets of Hugging Face's library `datasets`, which a program gives.

The library is not imported here: who gives a dataset has imported it.
"""

import sys
from typing import TYPE_CHECKING, Any

from ....cache.errors import UsageError
from ..formats.image_columns import choose_column, read_cell
from ..source import ImageError, Listing

if TYPE_CHECKING:
    from ....cache.index import FileIdentity


def is_dataset(images: object) -> bool:
    """Return whether something is a `datasets.Dataset`.

    Raises
    ------
    UsageError
        It is a `datasets.DatasetDict` or one that is streamed: the message says what to give.
    """
    library = sys.modules.get("datasets")
    if library is None:
        return False
    if isinstance(images, library.DatasetDict):
        raise UsageError(f"a DatasetDict came: choose one of its splits, {', '.join(images)}")
    if isinstance(images, library.IterableDataset | library.IterableDatasetDict):
        raise UsageError(
            f"an {type(images).__name__} came, whose images cannot be read again: load it without "
            "streaming=True"
        )
    return isinstance(images, library.Dataset)


class DatasetImages:
    """A `datasets.Dataset`; members are the numbers of its rows, from 0 on.

    Encoded images are read as they are stored, as after ``cast_column(column,
    Image(decode=False))``; what ``select`` and ``shuffle`` chose is respected, formats and
    transforms are not.

    Parameters
    ----------
    dataset
        With a column of the feature Image, or of encoded images as bytes.
    column
        The column that holds images; None takes the only one.
    place
        What the images are called as a whole.

    Raises
    ------
    UsageError
        No column, or several, can hold images.
    """

    sequential = False

    def __init__(
        self,
        dataset: Any,  # noqa: ANN401
        column: str | None = None,
        *,
        place: str = "dataset",
    ) -> None:
        self.place = place
        try:
            self.column = choose_column(dataset.features.arrow_schema, column)
        except ImageError as error:
            raise UsageError(
                f"a dataset without usable images came: {error}. Arrays and lists of pixels become "
                "images by dataset.cast_column(NAME, datasets.Image())"
            ) from error
        self._rows = dataset.select_columns([self.column]).with_format("arrow")

    def list(self) -> Listing:
        """List the numbers of the rows; entries that are null fail when they are read."""
        return Listing([str(row) for row in range(len(self._rows))])

    def version(self, member: str) -> "FileIdentity | None":
        """Return None: images are hashed each time, as a program may change what it holds."""
        return None

    def read(self, member: str) -> bytes:
        """Return the encoded image of a row."""
        return read_cell(self._rows[int(member)].column(0)[0], "")

    def close(self) -> None:
        """Do nothing: the dataset belongs to the program."""
