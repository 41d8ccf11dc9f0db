"""Atomic file writes: write under a temporary name, then rename."""

import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_TEMPORARY = re.compile(r"\.lpipstore-[0-9a-f]{16}\.partial")


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[IO[bytes]]:
    """Open a file that becomes `path` when the ``with`` block ends.

    Data is written to a temporary file with a unique name in the same folder, so that two processes
    that write the same path do not collide. If the block raises, the temporary file is removed and
    an existing file at `path` stays. A killed process leaves its temporary file behind;
    `is_temporary` recognises it.

    Parameters
    ----------
    path
        The file to create or replace; its folder must exist.
    durable
        Sync the file to disk before renaming it: after a power loss, `path` is the old or the new
        file.

    Raises
    ------
    OSError
        The file cannot be written or renamed.
    """
    temporary = path.with_name(f".lpipstore-{secrets.token_hex(8)}.partial")
    file = temporary.open("xb")
    try:
        with file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # the first error says more
            temporary.unlink()
        raise


def is_temporary(path: Path) -> bool:
    """Return whether `path` is named like a temporary file of `replacing`."""
    return _TEMPORARY.fullmatch(path.name) is not None


def check_writable(folder: Path) -> None:
    """Raise `OSError` unless files can be created in `folder` or its nearest existing parent.

    Leaves nothing behind.
    """
    existing = next(
        place for place in (folder, *folder.absolute().parents) if os.path.lexists(place)
    )
    with tempfile.TemporaryFile(dir=existing):
        pass
