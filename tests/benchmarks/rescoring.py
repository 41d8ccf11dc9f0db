"""What other heads cost on a finished run: a matrix under five heads, a list from statistics.

    python tests/benchmarks/rescoring.py FOLDER [--images 1000] [--pairs 1000000]

The folder's images are repeated with noise up to `--images`. First `rescore` with five heads is
timed against the arithmetic of five scorings on rows in memory, in turn, and medians are compared.
Then a list of random pairs is rescored from the statistics that it kept, in a process of its own.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import lpipstore
from lpipstore.cache.store import FeatureStore
from lpipstore.pipeline.common.progress import Stopwatch
from lpipstore.pipeline.distances.distances import block_of, gram_distances
from lpipstore.pipeline.distances.heads import column_weights, make_head, save_head
from lpipstore.pipeline.distances.panels import Columns
from lpipstore.pipeline.features.rows import centre_of
from lpipstore.pipeline.images.decode import decode
from lpipstore.pipeline.images.preparation import Preparation
from lpipstore.pipeline.runs.reopen import reopen_recipe
from lpipstore.pipeline.sources.sources import Sources
from lpipstore.workflows.rerun.rescore import reopen_collection, rescore_run
from lpipstore.workflows.scoring.all_pairs import score_pairs
from lpipstore.workflows.scoring.table import score_table
from lpipstore.workflows.session.screen import Screen
from lpipstore.workflows.session.session import Session
from lpipstore.workflows.session.settings import Settings

CHANNELS = (64, 128, 256, 384, 384, 512, 512)


def write_noisy(source: str, folder: Path, count: int, size: int) -> list[str]:
    """Write `count` images: those of the source, again and again with noise."""
    paths = Sources().find([source]).names
    random = np.random.default_rng(0)
    folder.mkdir()
    names = []
    how = Preparation((size, size))
    for number in range(count):
        image = decode(Path(paths[number % len(paths)]).read_bytes(), how).astype(np.int16)
        if number >= len(paths):
            image += random.integers(-20, 21, image.shape, np.int16)
        names.append(f"{number:05}.png")
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / names[-1])
    return names


def arithmetic(run: Path, heads: list, settings: Settings) -> tuple[float, torch.Tensor]:
    """Seconds for the matrices of all heads, rows being in memory."""
    opened = lpipstore.open_run(run)
    with FeatureStore(settings.store) as store:
        recipe = reopen_recipe(opened)
        session = Session(store, settings, Stopwatch(), Screen())
        collection = reopen_collection(opened, recipe, session)
        rows = collection.features.load(collection.contents())
        layout = collection.features.extractor.layout
        row_bytes = collection.row_bytes()
    centre, block = centre_of(rows[:16]), block_of(len(rows), row_bytes)
    seconds = 0.0
    for head in heads:
        weights = column_weights(head, layout)
        start = time.perf_counter()
        columns = Columns.of(weights, recipe.row_dtype, rows.device)
        last = gram_distances(rows, None, columns, centre, block).to(torch.float32)
        seconds += time.perf_counter() - start
    return seconds, last


def five_heads(scratch: Path, settings: Settings, rounds: int) -> None:
    """Time `rescore` with five heads against its arithmetic."""
    random = np.random.default_rng(2)
    heads = [make_head([random.random(c) for c in CHANNELS], f"head {n}") for n in range(5)]
    files = [scratch / f"head{n}.pth" for n in range(5)]
    for head, file in zip(heads, files, strict=True):
        save_head(head, file)
    quiet = Screen(quiet=True)
    score_pairs([scratch / "images"], scratch / "run", settings, quiet)
    found = []
    for number in range(rounds + 1):
        start = time.perf_counter()
        out = scratch / f"rescored{number}"
        told = rescore_run(scratch / "run", [*map(str, files)], out, settings, quiet)
        ours = time.perf_counter() - start
        pure, last = arithmetic(scratch / "run", heads, settings)
        found.append((ours, pure))
    matrix = lpipstore.open_run(scratch / "rescored0" / "head4").distances.compute()
    ours, pure = (statistics.median(side) for side in zip(*found[1:], strict=True))
    print(
        f"5 heads, {len(matrix):,} images: {ours:.2f} s, arithmetic with rows in memory {pure:.2f} "
        f"s, ratio {ours / pure:.2f}; {told.forwards} forwards; largest difference from the "
        f"arithmetic {np.abs(matrix - last.numpy()).max():.1e}"
    )


def list_statistics(scratch: Path, names: list[str], count: int, settings: Settings) -> None:
    """Time `rescore` of a list whose statistics were kept."""
    random = np.random.default_rng(3)
    ends = random.integers(0, len(names), (count, 2)).tolist()
    lines = ["a,b", *(f"{names[i]},{names[j]}" for i, j in ends)]
    (scratch / "pairs.csv").write_text("\n".join(lines) + "\n")
    quiet, images = Screen(quiet=True), scratch / "images"
    table = scratch / "pairs.csv"
    start = time.perf_counter()
    score_table(table, scratch / "list", settings, quiet, images=images, statistics=True)
    print(f"{count:,} pairs scored, statistics kept: {time.perf_counter() - start:.1f} s")
    head = scratch / "head0.pth"
    command = [Path(sys.executable).with_name("lpipstore"), "rescore", scratch / "list", "--quiet"]
    times = []
    for number in range(4):
        where = ["--store", settings.store, "--out", scratch / f"relist{number}"]
        start = time.perf_counter()
        subprocess.run([*command, "--heads", head, *where], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    score_table(
        table,
        scratch / "fresh",
        Settings(**{**settings.__dict__, "heads": str(head)}),
        quiet,
        images=images,
    )
    one, two = (
        lpipstore.open_run(scratch / name).pairs.column("distance").to_numpy()
        for name in ("relist0", "fresh")
    )
    kept = sum(p.stat().st_size for p in (scratch / "list" / "statistics.zarr").rglob("*"))
    print(
        f"{count:,} pairs from statistics ({kept / 1e6:,.0f} MB): {times[0]:.2f} s, then "
        f"{statistics.median(times[1:]):.2f} s from prompt to prompt; largest difference from "
        f"scoring afresh {np.abs(one - two).max():.1e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--list-images", type=int, default=400)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lpipstore-bench-") as folder:
        scratch = Path(folder)
        settings = Settings(
            backbone="squeeze", weights=options.weights, store=scratch / "store", quiet=True
        )
        names = write_noisy(options.folder, scratch / "images", options.images, options.size)
        print(f"squeeze, {options.size} px, {torch.get_num_threads()} threads")
        five_heads(scratch, settings, options.rounds)
        list_statistics(scratch, names[: options.list_images], options.pairs, settings)


if __name__ == "__main__":
    main()
