"""What tests of several workflows share: commands of every kind, and finished runs of them."""

import shutil
import sys
from pathlib import Path

import pytest

from lpipstore.workflows.cli.app import run_command

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")


def _jobs(folder, draw):
    """Draw pictures into a folder; return commands of every kind, without options of the metric."""
    pictures, others = folder / "pictures", folder / "others"
    draw(pictures, 8)
    draw(others, 5, seed=4)
    shutil.copy(pictures / "003.png", others / "twin.png")
    (pictures / "broken.png").write_bytes(b"")
    lines = [f"{i:03}.png,{j:03}.png,{i * j}" for i in range(8) for j in range(0, 8, 3)]
    table = ["left,right,rating", *lines, "003.png,broken.png,9", "gone.png,001.png,1"]
    (pictures / "pairs.csv").write_text("\n".join(table) + "\n")
    return {
        "pairs": ("pairs", pictures, others),
        "groups": ("pairs", pictures, others, "--group-by", "folder"),
        "compare": ("compare", pictures, others),
        "paired": ("compare", pictures, others, "--paired"),
        "score": ("score", pictures / "pairs.csv"),
        "below": ("pairs", pictures, others, "--below", "0.9"),
        "top-k": ("pairs", pictures, others, "--top-k", "3"),
        "both": ("pairs", pictures, others, "--top-k", "3", "--below", "0.9"),
        "across": ("compare", pictures, others, "--top-k", "3"),
        "below across": ("compare", pictures, others, "--below", "0.9"),
    }


@pytest.fixture
def jobs(tmp_path, draw):
    """Commands of every kind, on pictures of the test's own."""
    return _jobs(tmp_path, draw)


class FinishedRuns:
    """A finished run of each kind, made when it is first asked for, each with a store of its own.

    `jobs` are their commands. Tests share the pictures and copy the rest.
    """

    def __init__(self, folder, draw):
        self._folder = folder
        draw(folder / "eight", 8)
        self.jobs = {**_jobs(folder, draw), "eight": ("pairs", folder / "eight")}
        self.jobs["score with statistics"] = (*self.jobs["score"], "--keep-statistics")

    def made(self, kind):
        """Return the folder with ``run`` and ``store`` of a kind."""
        folder: Path = self._folder / kind.replace(" ", "-") / "made"
        if not folder.exists():
            half = folder.with_name("half")
            where = ("--store", half / "store", "--out", half / "run", "--quiet")
            with pytest.MonkeyPatch.context() as patch:
                words = ["lpipstore", *self.jobs[kind], *MODEL, *where]
                patch.setattr(sys, "argv", [str(word) for word in words])
                with pytest.raises(SystemExit) as end:
                    run_command()
            assert not end.value.code
            half.rename(folder)
        return folder


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory, draw):
    """The finished runs of this process."""
    return FinishedRuns(tmp_path_factory.mktemp("finished"), draw)


@pytest.fixture
def finished(finished_runs, tmp_path):
    """A function that copies a finished run and its store into the test's folder.

    It takes the kind, or "eight" for all pairs of eight pictures, and returns the copy of the run.
    The copy of the store is where `cli` looks for it.
    """

    def copy(kind="eight"):
        shutil.copytree(finished_runs.made(kind), tmp_path, dirs_exist_ok=True)
        return tmp_path / "run"

    return copy
