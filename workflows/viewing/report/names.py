"""Names of images as people read them: printable, and without the folder that all share."""

import os
from collections.abc import Sequence
from itertools import takewhile

from ....pipeline.common.text import printable


def short_names(paths: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Return the folder that all paths share, and the printable rest of each path.

    Examples
    --------
    >>> short_names(["/data/a/1.png", "/data/b/2.png"])
    ('/data/', {'/data/a/1.png': 'a/1.png', '/data/b/2.png': 'b/2.png'})
    """
    shared = os.path.commonprefix([os.path.dirname(path) + "/" for path in paths])  # noqa: RUF071 - cut below
    shared = shared[: shared.rfind("/") + 1]
    return printable(shared), {path: printable(path[len(shared) :]) or "?" for path in paths}


def short_folders(folders: Sequence[str]) -> list[str]:
    """Return what tells folders apart, or the name of one folder.

    Examples
    --------
    >>> short_folders(["/data/train/cats/", "/data/train/dogs/"])
    ['cats', 'dogs']
    >>> short_folders(["/data/train/", "/data/test/"]), short_folders(["/data/cats"])
    (['train', 'test'], ['cats'])
    >>> short_folders(["/data/", "/data/cats/"])
    ['data', 'cats']
    """
    whole = [folder.rstrip("/") for folder in folders]
    if len(set(whole)) == 1:
        return [folder.rpartition("/")[2] or "/" for folder in whole]
    shared = os.path.commonprefix([folder + "/" for folder in whole])  # noqa: RUF071 - cut below
    cut = shared.rfind("/") + 1
    return [
        printable(folder[cut:]) or printable(folder.rpartition("/")[2]) or "/" for folder in whole
    ]


def shared_end(first: str, second: str) -> str:
    """Return the last parts of two paths as far as they are the same; nothing if they differ.

    Examples
    --------
    >>> shared_end("a/cats/1.png", "b/cats/1.png"), shared_end("a/1.png", "b/1.jpg")
    ('cats/1.png', '')
    """
    parts = zip(first.split("/")[::-1], second.split("/")[::-1], strict=False)
    same = [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], parts)]
    return "/".join(same[::-1])
