"""Names of images as people read them: printable, and without the folder that all share."""

import os
from collections.abc import Sequence

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
