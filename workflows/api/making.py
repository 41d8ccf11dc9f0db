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
from ..session.staging import Staged, staged_run
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
) -> Iterator[tuple[Staged, Settings, LoggedScreen]]:
    """Yield folder, settings and screen of a run; a temporary folder is removed on failure."""
    settings = settings_of(options)
    place = tempfile.mkdtemp(prefix="lpipstore-run-") if out is None else os.fspath(out)
    try:
        with (
            LoggedScreen(progress=options.get("progress", False)) as screen,
            staged_run(os.path.expanduser(place), screen, keep=True) as making,
        ):
            yield making, settings, screen
    except BaseException:
        if out is None:
            shutil.rmtree(place)
        raise


def finished_run(made: Staged, out: PathLike | None) -> Run:
    """Open a finished run; a temporary folder goes with the object."""
    run = open_run(made.folder)
    if out is None or made.copied is not None:
        weakref.finalize(run, shutil.rmtree, made.folder, ignore_errors=True)
    return run
