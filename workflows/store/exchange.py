"""Rows and runs behind URLs, as functions of Python: push, pull, copy_run."""

from pathlib import Path
from typing import Any, Unpack

from ...cache.store import FeatureStore
from ..rerun.copy import copy_run as copy
from ..session.given import Images, sources_of
from ..session.keywords import OptionsWithoutHead, PathLike, settings_of
from ..session.logged import LoggedScreen
from ..session.settings import store_path
from ..viewing.run import Run
from .pull import pull_store
from .push import push_store


def push(
    url: str,
    *,
    store: PathLike | FeatureStore | None = None,
    backbone: str | None = None,
    verify: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Copy the rows of a store to a URL, so that other machines need not compute them.

    Only what is not there is sent; after an interruption the same call goes on, and several
    machines may push to one URL at the same time.

    Parameters
    ----------
    url
        Such as "s3://bucket/rows", "gs://", "az://" or "file:///folder".
    store
        An open store, or the folder of one; None is the one that all functions use.
    backbone
        Push only the rows of this backbone.
    verify
        Read every object there, and send those again that have changed.
    progress
        Draw progress on stderr.

    Returns
    -------
    dict
        segments, rows and bytes that were sent; resumed, there, corrupt and altered.

    Raises
    ------
    UsageError
        There is no store, or `url` is none.
    LpipstoreError
        The URL cannot be read or written; the message says why.

    Examples
    --------
    >>> import lpipstore, torch
    >>> pictures = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> counts = lpipstore.extract(pictures, value_range=(0, 1), weights="random")
    >>> lpipstore.push("memory://doctest/rows")["rows"] >= 3
    True
    >>> lpipstore.push("memory://doctest/rows")["bytes"]
    0
    """
    chosen = store.path if isinstance(store, FeatureStore) else store
    path = store_path(None if chosen is None else Path(chosen))
    with LoggedScreen(progress=progress) as screen:
        return push_store(path, url, backbone, screen, verify=verify).entries()


def pull(
    url: str, images: Images | None = None, **options: Unpack[OptionsWithoutHead]
) -> dict[str, Any]:
    """Copy rows from a URL into the store: all that fit, or those of some images.

    Parameters
    ----------
    url
        Where rows were pushed.
    images
        As for `lpipstore.pairs`: only the rows of these. None takes all, or those of the option
        `backbone`.

    Returns
    -------
    dict
        wanted, rows and bytes that were pulled; there, unknown, damaged, no_room, evicted_bytes,
        failed.

    Raises
    ------
    UsageError
        `url` is none, or an argument is invalid.
    LpipstoreError
        The URL cannot be read, or nothing was pushed there.

    Examples
    --------
    >>> import lpipstore, torch
    >>> pictures = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> counts = lpipstore.extract(pictures, value_range=(0, 1), weights="random")
    >>> pushed = lpipstore.push("memory://doctest/more")
    >>> pulled = lpipstore.pull("memory://doctest/more", pictures, weights="random",
    ...                         value_range=(0, 1))
    >>> pulled["wanted"], pulled["there"]
    (3, 3)
    """
    settings = settings_of({**options, "remote": url})
    ranges = options.get("value_range"), options.get("image_column")
    given = [] if images is None else sources_of(images, *ranges)
    with LoggedScreen(progress=options.get("progress", False)) as screen:
        return pull_store(given, settings, screen).entries()


def copy_run(source: PathLike | Run, target: PathLike, *, progress: bool = False) -> dict[str, Any]:
    """Copy a finished run to a URL, or from a URL to a folder, where `lpipstore.open_run` opens it.

    After an interruption the same call goes on; only files that are not there are copied.

    Parameters
    ----------
    source, target
        One is a URL, such as "s3://bucket/run", the other a folder.

    Returns
    -------
    dict
        from, to, files, copied, copied_bytes.

    Raises
    ------
    UsageError
        Both are URLs or none is, there is no finished run, or something else is at the target.
    LpipstoreError
        The URL or the folder cannot be read or written.

    Examples
    --------
    >>> import lpipstore, pathlib, tempfile, torch
    >>> pictures = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> run = lpipstore.pairs(pictures, value_range=(0, 1), weights="random")
    >>> sent = lpipstore.copy_run(run, "memory://doctest/run")
    >>> folder = pathlib.Path(tempfile.mkdtemp()) / "run"
    >>> fetched = lpipstore.copy_run("memory://doctest/run", folder)
    >>> lpipstore.open_run(folder).mean == run.mean, fetched["files"] == sent["files"]
    (True, True)
    """
    with LoggedScreen(progress=progress) as screen:
        place = source.path if isinstance(source, Run) else source
        return copy(place, target, screen).entries()
