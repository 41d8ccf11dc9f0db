"""What the functions of this package share: from arguments to a finished run."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..session.given import Images, sources_of
from ..session.keywords import OptionsWithoutHead, PathLike, is_path, settings_of
from ..session.logged import LoggedScreen
from ..session.settings import Settings
from ..viewing.run import Run, open_run


def images_given(images: Images, options: OptionsWithoutHead, place: str = "images") -> list[Any]:
    """Return the images of an argument as sources; `place` is its name in errors."""
    return sources_of(images, options.get("value_range"), options.get("image_column"), place)


def text_of(place: PathLike | None) -> str | None:
    """Return the place of images as text: a path or a URL."""
    return None if place is None else os.fspath(place)


def paths_of(given: PathLike | Sequence[PathLike]) -> list[Path]:
    """Return one path or several as a list."""
    return [Path(given)] if is_path(given) else [Path(path) for path in given]


@contextmanager
def making_run(
    out: PathLike | None, options: OptionsWithoutHead
) -> Iterator[tuple[Path, Settings, LoggedScreen]]:
    """Yield folder, settings and screen of a run; a temporary folder is removed on failure."""
    settings = settings_of(options)
    folder = Path(tempfile.mkdtemp(prefix="lpipstore-run-") if out is None else out).expanduser()
    try:
        with LoggedScreen(progress=options.get("progress", False)) as screen:
            yield folder, settings, screen
    except BaseException:
        if out is None:
            shutil.rmtree(folder)
        raise


def finished_run(folder: Path, out: PathLike | None) -> Run:
    """Open a finished run; a temporary folder goes with the object."""
    run = open_run(folder)
    if out is None:
        weakref.finalize(run, shutil.rmtree, folder, ignore_errors=True)
    return run
