"""Copy a finished run to a URL, or from a URL to a folder."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ...cache.errors import UsageError
from ...pipeline.common.text import printable
from ...pipeline.runs.run import open_run
from ...pipeline.sources.names import is_url
from ..session.remote import open_folder
from ..session.runcopy import Copied, fetch_run, manifests_at, need_same_run, send_run
from ..session.screen import Lines, Screen


@dataclass(frozen=True)
class CopiedRun:
    """What was copied, from where and to where."""

    title: ClassVar[str] = "Copied"
    copied: Copied
    source: str
    target: str

    def entries(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {"from": self.source, "to": self.target, **self.copied.entries()}

    def lines(self) -> Lines:
        """Return it as lines for people."""
        return [("from", self.source), ("to", self.target), ("copied", self.copied.shown())]


def copy_run(
    source: str | os.PathLike[str], target: str | os.PathLike[str], screen: Screen
) -> CopiedRun:
    """Copy a finished run; one of the two places is a URL, the other one a folder.

    The same call goes on after an interruption, and copies only what is not there.

    Raises
    ------
    UsageError
        Both places are URLs, or none is; there is no finished run, or another run or something
        else at the target.
    LpipstoreError
        The URL or the folder cannot be read or written.
    """
    one, other = os.fspath(source), os.fspath(target)
    if is_url(one) == is_url(other):
        raise UsageError(
            "a run is copied between a folder of this machine and a URL such as s3://bucket/run: "
            f"{printable(one)} and {printable(other)} are of one kind"
        )
    if is_url(one):
        with open_folder(one) as remote:
            copied = fetch_run(remote, Path(other).expanduser(), screen.report)
            return CopiedRun(copied, remote.place, printable(other))
    folder = open_run(Path(one).expanduser()).path
    with open_folder(other) as remote:
        need_same_run(remote, manifests_at(remote), folder)
        return CopiedRun(send_run(folder, remote, screen.report), printable(one), remote.place)
