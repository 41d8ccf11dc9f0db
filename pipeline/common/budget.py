"""How many rows fit in memory, and what to say if too few do."""

import math
from dataclasses import dataclass

from ...cache.errors import UsageError, setting


class TooLittle(UsageError):  # noqa: N818 - named for the condition
    """There is too little memory: `least` bytes would do."""

    def __init__(self, message: str, least: int) -> None:
        super().__init__(message)
        self.least = least


@dataclass(frozen=True)
class Budget:
    """Memory for rows.

    Attributes
    ----------
    memory
        Bytes in all.
    row_bytes
        Of a stored row.
    work_bytes
        What the arithmetic takes for each row in memory.
    name
        The setting that `memory` comes from.
    """

    memory: int
    row_bytes: int
    work_bytes: int = 0
    name: str = "memory"

    def rows(self, beside: int = 0) -> int:
        """Return how many rows fit beside other bytes; less than 0 if those alone are too many."""
        return (self.memory - beside) // (self.row_bytes + self.work_bytes)

    def bytes(self, rows: int, beside: int = 0) -> int:
        """Return the bytes that so many rows take together with other bytes."""
        return rows * (self.row_bytes + self.work_bytes) + beside

    def too_small(self, least: float) -> TooLittle:
        """Return the error that says that rows take at least so many bytes."""
        return too_little(f"rows of {self.row_bytes / 1e6:.3g} MB", least, name=self.name)


def too_little(what: str, least: float, more: str = "", name: str = "memory") -> TooLittle:
    """Return the error that says that `what` takes at least so many bytes of memory."""
    return TooLittle(
        f"{setting(name)} is too small for {what}: it takes "
        f"{math.ceil(least / 1e6)}MB at least{more}",
        math.ceil(least),
    )
