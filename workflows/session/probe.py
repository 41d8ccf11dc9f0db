"""What the workers of a Dask cluster have: the packages that decide bits, and a view of files."""

import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ...cache.errors import LpipstoreError
from ...pipeline.common.text import printable
from ...pipeline.sources.names import absolute, is_url, split_name
from .manifest import versions

_PARTS = ("lpipstore", "torch", "torchvision", "numpy", "pillow")  # that decide the bits of rows
_SAMPLED = 32  # images that are looked for

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Sight:
    """How many workers there are, and how many of them read and write the store's folder."""

    workers: int
    share: int

    @property
    def shared(self) -> bool:
        """Whether all do; if some do not, none is relied on."""
        return self.share == self.workers

    def line(self, store: Path) -> str:
        """Say how rows travel."""
        others = self.workers - self.share
        return (
            f"{others} of {self.workers} workers {'does' if others == 1 else 'do'} not share the "
            f"store at {printable(str(store))}: images and rows travel through the Dask scheduler"
        )


def look_around(path: str, token: str) -> dict[str, Any]:
    """Return what a worker has: the versions that decide bits, and whether it shares the store."""
    try:
        shares = Path(path).read_text() == token and os.access(Path(path).parent, os.W_OK)
    except OSError:
        shares = False
    return {"versions": versions(), "shares": shares}


def probe(client: Any, store: Path) -> Sight:  # noqa: ANN401
    """Find out whether all workers share the store, and run what this process runs.

    Raises
    ------
    LpipstoreError
        A worker lacks lpipstore, or has other versions.
    """
    token = uuid.uuid4().hex
    file = store / "open" / f"probe-{token}"
    file.write_text(token)
    try:
        found = _asked(client, look_around, str(file), token)
    finally:
        file.unlink(missing_ok=True)
    ours = versions()
    for worker, seen in found.items():
        for name in _PARTS:
            if ours.get(name) != seen["versions"].get(name):
                raise LpipstoreError(
                    f"the Dask worker {worker} has {name} {seen['versions'].get(name)} and this "
                    f"process {ours.get(name)}: rows would differ; install the same there"
                )
    return Sight(len(found), sum(seen["shares"] for seen in found.values()))


def sizes_of(paths: Sequence[str]) -> list[int | None]:
    """Return the size of each file; None where there is none that can be read."""
    return [os.stat(path).st_size if os.access(path, os.R_OK) else None for path in paths]


def sees(client: Any, names: Sequence[str]) -> bool:  # noqa: ANN401
    """Return whether all workers see the files of images; a few of them are looked for.

    Those behind URLs are left out: workers open them by themselves.
    """
    step = -(-len(names) // _SAMPLED) or 1
    files = [split_name(absolute(name))[0] for name in names[::step] if not is_url(name)]
    ours = sizes_of(files)
    return all(theirs == ours for theirs in _asked(client, sizes_of, files).values())


def _asked(client: Any, function: Callable[..., Answer], *args: Any) -> Mapping[str, Answer]:  # noqa: ANN401
    """Have each worker call a function.

    Raises
    ------
    LpipstoreError
        One cannot.
    """
    found: dict[str, Answer] = client.run(function, *args, on_error="return")
    for worker, seen in found.items():
        if isinstance(seen, BaseException):
            raise LpipstoreError(
                f"the Dask worker {worker} cannot run lpipstore ({printable(str(seen))}): install "
                "the same packages there as here"
            )
    return found
