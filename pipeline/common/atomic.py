"""Files that appear whole or not at all: written under a temporary name, then renamed."""

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

    It is written beside `path` under a name of its own, so that two processes that write the same
    file do not meet. When the block raises, the temporary file is removed and what was at `path`
    stays. A killed process leaves the temporary file behind; `is_temporary` recognises it.

    Parameters
    ----------
    path
        The file to make or to replace; its folder has to exist.
    durable
        Wait for the disk before renaming: after a loss of power the file is the old or the new one.

    Raises
    ------
    OSError
        It cannot be written or renamed.
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
        with suppress(OSError):  # what went wrong before says more
            temporary.unlink()
        raise


def is_temporary(path: Path) -> bool:
    """Tell whether `path` is a temporary file of `replacing`, by its name."""
    return _TEMPORARY.fullmatch(path.name) is not None


def check_writable(folder: Path) -> None:
    """Raise `OSError` unless files can be made in `folder`, or in the parent it would be made in.

    Nothing is left there.
    """
    existing = next(
        place for place in (folder, *folder.absolute().parents) if os.path.lexists(place)
    )
    with tempfile.TemporaryFile(dir=existing):
        pass
