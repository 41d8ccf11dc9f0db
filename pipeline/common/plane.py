"""The way of bytes to workers that do not see the files of the process that coordinates them.

A task that needs something asks for it by name, and the coordinator answers while the task waits.
Nobody holds bytes on the way, and the worker keeps what it wants to: see
`lpipstore.pipeline.features.kept`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

Words: TypeAlias = str | bytes | int
Answer: TypeAlias = Callable[..., bytes | bytearray]
"""``answer(*words)`` returns bytes, in any thread; what it raises, the task raises that asked."""


class Ask(Protocol):
    """Asks the coordinator, from inside a task; plain data that travels with it."""

    def __call__(self, what: str, *words: Words) -> bytes:
        """Return the coordinator's answer to what was asked.

        Raises
        ------
        LpipstoreError
            The coordinator does not answer, or has none.
        """

    def __hash__(self) -> int:
        """Return the same for the same coordinator."""


@dataclass(frozen=True)
class Plane:
    """What a crew has of it.

    Attributes
    ----------
    ask
        For tasks.
    offer
        ``offer(what, answer)``: have the coordinator answer what is asked under a name.
    rows
        Whether rows take this way, because workers do not see the store.
    sees
        ``sees(paths)``: whether all workers can read these files.
    """

    ask: Ask
    offer: Callable[[str, Answer], None]
    rows: bool
    sees: Callable[[Sequence[str]], bool]
