"""Kill campaign over whole runs: commands killed with SIGKILL at random moments, until done.

    python tests/benchmarks/run_kills.py --runs 200

A process that has imported torch forks a child for each attempt; the child runs the command line,
is killed at a random moment, and the next attempt goes on with the same store and folder. Every
file of the result has to equal that of a run that nobody killed, the store has to be sound, and no
more than a batch of images may have gone through the trunk again for each kill. Prints one JSON
line; exits 1 if anything was not as it should be.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# What a run imports, so that each child begins with its work
import dask.array  # noqa: F401
import numpy as np
import pyarrow.csv
import pyarrow.parquet  # noqa: F401
import scipy.sparse.csgraph  # noqa: F401
import torch
import torchvision.models  # noqa: F401
import zarr  # noqa: F401
from PIL import Image

from lpipstore.pipeline.distances import distances
from lpipstore.pipeline.distances.heads import make_head, save_head
from lpipstore.pipeline.features.extractor import Extractor
from lpipstore.pipeline.matrix import plan as schedule
from lpipstore.workflows.cli import app as cli
from lpipstore.workflows.rerun import reproduce, rescore, update  # noqa: F401
from lpipstore.workflows.scoring import (  # noqa: F401
    all_pairs,
    close_across,
    close_pairs,
    compare,
    groups,
    table,
)
from lpipstore.workflows.store import stores  # noqa: F401

IMAGES = 100
SIDE = 32
MOST_KILLS = 8  # of one run; then it is left alone
MODEL = ["--backbone", "squeeze", "--weights", "random"]
RUN_DECIDES = ["--weights", "random"]
TILE = 32  # so that a hundred images make ten tiles
# Times, and counts of what was done rather than found
FLEETING = ("seconds", "forwards", "hits", "rows_read")


@dataclass(frozen=True)
class Scene:
    """What all runs are made of: folders of images, a list of pairs, heads, earlier runs."""

    folder: Path

    @property
    def many(self) -> Path:
        return self.folder / "many"

    @property
    def halves(self) -> list[Path]:
        return [self.many / "a", self.many / "b"]

    @property
    def table(self) -> Path:
        return self.folder / "pairs.csv"

    @property
    def heads(self) -> list[Path]:
        return [self.folder / "one.pth", self.folder / "two.pth"]

    @property
    def earlier(self) -> Path:
        return self.folder / "earlier"

    def made(self, name: str) -> Path:
        """A run of a mode that nobody killed."""
        return self.folder / f"made-{name}"


MADE = ("below", "top-k", "compare", "across", "paired", "statistics")


def head_options(scene: Scene) -> list:
    return [argument for head in scene.heads for argument in ("--heads", head)]


MODES: dict[str, Callable[[Scene], list]] = {
    "pairs": lambda s: ["pairs", s.many, *MODEL],
    "groups": lambda s: ["pairs", s.many, "--group-by", "folder", *MODEL],
    "below": lambda s: ["pairs", s.many, "--below", "0.35", *MODEL],
    "top-k": lambda s: ["pairs", s.many, "--top-k", "5", *MODEL],
    "compare": lambda s: ["compare", *s.halves, *MODEL],
    "across": lambda s: ["compare", *s.halves, "--top-k", "5", *MODEL],
    "below across": lambda s: ["compare", *s.halves, "--below", "0.35", *MODEL],
    "neighbours": lambda s: ["neighbours", s.earlier, "--query", s.halves[1], *RUN_DECIDES],
    "paired": lambda s: ["compare", *s.halves, "--paired", *MODEL],
    "score": lambda s: ["score", s.table, "--images", s.many, *MODEL],
    "statistics": lambda s: ["score", s.table, "--images", s.many, "--keep-statistics", *MODEL],
    "update": lambda s: ["pairs", s.many, "--update", s.earlier, *RUN_DECIDES],
    "rescore": lambda s: ["rescore", s.earlier, *head_options(s)],
    "rescore below": lambda s: ["rescore", s.made("below"), *head_options(s)],
    "rescore top-k": lambda s: ["rescore", s.made("top-k"), *head_options(s)],
    "rescore across": lambda s: ["rescore", s.made("across"), *head_options(s)],
    "below again": lambda s: ["pairs", "--from", s.made("below")],
    "top-k again": lambda s: ["pairs", "--from", s.made("top-k")],
    "compare again": lambda s: ["pairs", "--from", s.made("compare")],
    "across again": lambda s: ["pairs", "--from", s.made("across")],
    "paired again": lambda s: ["pairs", "--from", s.made("paired")],
    "statistics again": lambda s: ["pairs", "--from", s.made("statistics")],
}
"""The commands, without --store and --out: a new mode is one more line."""


def prepare(folder):
    """Draw the images, write list and heads, make the earlier runs."""
    scene = Scene(folder)
    draw = np.random.default_rng(0)
    names = []
    for half in scene.halves:
        half.mkdir(parents=True)
        for number in range(IMAGES // 2):
            coarse = Image.fromarray(draw.integers(0, 256, (5, 5, 3), np.uint8))
            path = half / f"{number:03}.png"
            coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path)
            names.append(f"{half.name}/{path.name}")
    ends = draw.integers(0, IMAGES, (400, 2))
    lines = [f"{names[i]},{names[j]}" for i, j in ends.tolist()]
    scene.table.write_text("\n".join(["a,b", *lines]) + "\n")
    for path in scene.heads:
        channels = (64, 128, 256, 384, 384, 512, 512)
        save_head(make_head([draw.random(count) for count in channels], path.stem), path)
    (folder / "ninety").mkdir()
    for name in names[:90]:
        (folder / "ninety" / name.replace("/", "-")).hardlink_to(scene.many / name)
    earlier = {scene.earlier: ["pairs", folder / "ninety", *MODEL]}
    earlier |= {scene.made(name): MODES[name](scene) for name in MADE}
    for out, command in earlier.items():
        command += ["--store", folder / "store0", "--out", out]
        if os.waitpid(start(command, folder / "output", folder / "log"), 0)[1]:
            raise SystemExit((folder / "output").read_text())
    return scene


def start(command, output, log):
    """Fork a process that runs the command line; it logs each batch before the trunk runs."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(written, 1)
        os.dup2(written, 2)
        counter = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        rows = Extractor.rows

        def counted(self, pixels, *room):
            os.write(counter, f"{len(pixels)} {self.batch}\n".encode())
            return rows(self, pixels, *room)

        Extractor.rows = counted
        schedule._TILE = distances._BLOCK = TILE
        torch.set_num_threads(1)  # threads that share a core with other runs wait for one another
        sys.argv = ["lpipstore", *map(str, command)]
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def wait(child, seconds):
    """Wait for a child, and kill it when the time is over; return its status."""
    end = time.perf_counter() + seconds
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        left = end - time.perf_counter()
        if left <= 0:
            os.kill(child, signal.SIGKILL)
            return os.waitpid(child, 0)[1]
        time.sleep(min(left, 0.001))


def result_of(out):
    """Every file of a run as bytes, and of the summaries what does not hang on the time."""
    files = {}
    for path in sorted(out.rglob("*")):
        if path.name == "summary.json":
            summary = json.loads(path.read_text())
            files[path.relative_to(out)] = {k: v for k, v in summary.items() if k not in FLEETING}
        elif path.is_file():
            files[path.relative_to(out)] = path.read_bytes()
    return files


def forwards_of(log):
    """How many images went through the trunk, and how many make a batch."""
    lines = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    return sum(count for count, _ in lines), max((batch for _, batch in lines), default=0)


@dataclass
class Reference:
    """A run that nobody killed: its files, its seconds, its forwards."""

    files: dict
    seconds: float
    forwards: int


def undisturbed(scene, name, folder):
    """Run a mode to its end."""
    out, log = folder / "run", folder / "log"
    command = [*MODES[name](scene), "--store", folder / "store", "--out", out]
    began = time.perf_counter()
    status = os.waitpid(start(command, folder / "output", log), 0)[1]
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"{name}: {(folder / 'output').read_text()}")
    return Reference(result_of(out), seconds, forwards_of(log)[0])


def disturbed(scene, name, reference, folder, draw):
    """Run a mode, kill after kill, until it is done; return (kills, forwards again, troubles)."""
    out, log, output = folder / "run", folder / "log", folder / "output"
    workers = ["--workers", draw.choice(["0", "0", "1"])]
    command = [*MODES[name](scene), *workers, "--store", folder / "store", "--out", out]
    kills, troubles = 0, []
    while True:
        patience = draw.uniform(0, 1.1 * reference.seconds) if kills < MOST_KILLS else 60
        status = wait(start(command, output, log), patience)
        if not os.WIFSIGNALED(status):
            break
        kills += 1
    if status:
        troubles.append(["failed", name, output.read_text()[-600:]])
    elif result_of(out) != reference.files:
        found = result_of(out)
        differ = [
            str(path)
            for path in sorted({*found, *reference.files})
            if found.get(path) != reference.files.get(path)
        ]
        troubles.append(["other result", name, differ[:5]])
    verify = ["store", "verify", "--store", folder / "store"]
    if os.waitpid(start(verify, output, log), 0)[1]:
        troubles.append(["store", name, output.read_text()[-600:]])
    forwards, batch = forwards_of(log)
    again = forwards - reference.forwards
    if again > kills * batch:
        troubles.append(["forwards", name, f"{again} again after {kills} kills"])
    return kills, again, troubles


def campaign(folder, runs, seed, names):
    """Make `runs` runs that were killed at least once each; return what was seen."""
    draw = random.Random(seed)
    began = time.perf_counter()
    scene = prepare(folder)
    references = {}
    for name in names:
        (folder / name).mkdir()
        references[name] = undisturbed(scene, name, folder / name)
    done, kills, again, troubles = Counter(), 0, 0, []
    while sum(done.values()) < runs and not troubles:  # what is wrong is left to be looked at
        name = names[sum(done.values()) % len(names)]
        place = Path(tempfile.mkdtemp(dir=folder))
        killed, repeated, troubles = disturbed(scene, name, references[name], place, draw)
        done[name] += killed > 0  # one that ended before it was killed does not count
        kills, again = kills + killed, again + repeated
        if not troubles:
            shutil.rmtree(place)
    return {
        "runs": sum(done.values()),
        "kills": kills,
        "modes": dict(done),
        "forwarded_again": again,
        "undisturbed_seconds": {n: round(r.seconds, 2) for n, r in references.items()},
        "seconds": round(time.perf_counter() - began, 1),
        "troubles": troubles,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--folder", type=Path, help="where runs are made (default: temporary)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    result = campaign(folder, options.runs, options.seed, options.modes)
    print(json.dumps(result))
    if result["troubles"]:
        sys.exit(f"what is left lies in {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
