"""Everything about a GPU in one command: its tests, accuracy, speed and memory.

    python tests/benchmarks/gpu.py [--device cuda] [--json gpu.json] [--parts forward scoring ...]
    python tests/benchmarks/gpu.py --device cpu --small

Under eight minutes on a data centre's GPU. Prints a table and writes JSON. Speeds are medians, and
ratios are taken with both sides in turn: the forward pass against torchvision's layers alone, in
the same precision and batches; scoring against `torch.mm`; rows from the store against rows on the
device. With `--small` everything is tiny: it shows that the command works, its speeds mean nothing,
and only accuracy has targets.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from accuracy import in_float64
from cluster import draw
from figures import Figure, table
from gpu_rows import head_weights, near, rows_of, scoring_of
from PIL import Image
from torchvision.models import get_model

import lpipstore
from lpipstore.pipeline.backbones.layout import LPIPS_BACKBONES
from lpipstore.pipeline.backbones.load import load_backbone
from lpipstore.pipeline.distances.panels import live
from lpipstore.pipeline.features.extractor import Extractor, choose_device

BELOW = 0.002
ROOT = Path(__file__).resolve().parents[2]
ALLOWED = 1e-6
"""Largest difference of an exact distance to float64, of the mean distance."""


@dataclass(frozen=True)
class Bench:
    """What the parts share: where to compute, how much, and a folder for files."""

    device: torch.device
    small: bool
    scratch: Path

    @property
    def repeats(self) -> int:
        return 1 if self.small else 7

    @property
    def images(self) -> int:
        """Images of the runs from the store."""
        return 24 if self.small else 20_000

    def in_turn(self, *works: Callable[[], object]) -> list[float]:
        """Median seconds of each work; they take turns, after one round that does not count."""
        rounds = [[self._seconds(work) for work in works] for _ in range(self.repeats + 1)]
        return [median(times) for times in zip(*rounds[1:], strict=True)]

    def _seconds(self, work: Callable[[], object]) -> float:
        self._wait()
        start = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def options(self, **changes: object) -> dict[str, Any]:
        """Return the options of a run of AlexNet with random weights at 64 px."""
        chosen = {"backbone": "alex", "weights": "random", "size": 64}
        return {**chosen, "store": self.scratch / "store", "device": str(self.device), **changes}

    def pairs(self, name: str, **changes: object) -> tuple[float, lpipstore.Run]:
        """Score all pairs of the pictures; return the seconds of it and the run."""
        out = self.scratch / name
        run = lpipstore.pairs(self.pictures(), out=out, **self.options(**changes))
        return run.summary["seconds"]["total"], run

    def pictures(self) -> str:
        """Return a folder of drawn pictures, drawn once; one in six is a copy of another."""
        folder = self.scratch / "pictures"
        if not folder.exists():
            draw(folder, self.images - self.images // 6, 64)
            for path in sorted(folder.glob("*.png"))[: self.images // 6]:
                Image.open(path).save(path.with_suffix(".jpg"), quality=90)
        return str(folder)

    def forget_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> int | None:
        """Return the most bytes of the device that torch has used; None on the CPU."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None


def tests(bench: Bench) -> Iterator[Figure]:
    """All tests that need a GPU."""
    if bench.device.type != "cuda":
        return
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-n", "0", "-q", str(ROOT / "tests")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    print(ran.stdout[-2000:])
    yield Figure("tests", "of a GPU: exit status", ran.returncode, "", target="<= 0")


def accuracy(bench: Bench) -> Iterator[Figure]:
    """Distances on the device against float64 on the CPU, over near and far pairs."""
    count = 8 if bench.small else 24
    for net, size in (("alex", 64), ("squeeze", 64), ("alex", 224)):
        if bench.small and size > 64:
            continue
        stored, dtype = rows_of(net, near(count, size))
        rows, weights = torch.from_numpy(stored), head_weights(net, size)
        exact = in_float64(stored, weights, dtype)
        mean = exact[np.triu_indices(len(rows), 1)].mean()
        for name, fast, target in (("exact", False, f"<= {ALLOWED}"), ("fast", True, "")):
            scoring = scoring_of(rows, weights, dtype, bench.device, fast=fast)
            placed = rows.to(bench.device)
            found = scoring.products(placed, None).cpu().numpy()
            apart = np.abs(found - exact)[np.triu_indices(len(rows), 1)].max() / mean
            yield Figure("accuracy", f"{name} {net} {size} px", apart, "of the mean", target=target)


def forward(bench: Bench) -> Iterator[Figure]:
    """Pixels to finished rows in this machine's memory, against the layers alone."""
    sizes = (32,) if bench.small else (64, 224)
    nets = ("alex",) if bench.small else ("alex", "squeeze", "vgg")
    precisions = ("float32", "float16") if bench.device.type == "cuda" else ("float32",)
    for case in product(nets, sizes, precisions):
        yield _forward(bench, *case)


def _forward(bench: Bench, net: str, size: int, precision: str) -> Figure:
    backbone = load_backbone(net, weights="random")
    extractor = Extractor(backbone, (size, size), device=bench.device, trunk_dtype=precision)
    spec = LPIPS_BACKBONES[net]
    layers = get_model(spec.torchvision_name, weights=None).features[: spec.stops[-1] + 1].eval()
    dtype = getattr(torch, precision)
    layers.to(device=bench.device, dtype=dtype, memory_format=torch.channels_last)
    pixels = torch.randint(0, 256, (extractor.batch, size, size, 3), dtype=torch.uint8)
    images = (pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).to(bench.device, dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    times = 1 if bench.small else max(1, 2048 // extractor.batch)

    @torch.inference_mode()
    def alone() -> None:
        for _ in range(times):
            layers(images)

    room = np.empty((extractor.batch, extractor.layout.length), extractor.spec.dtype)

    def ours() -> None:
        for _ in range(times):
            extractor.rows(pixels, room)

    theirs, seconds = bench.in_turn(alone, ours)
    return Figure(
        "forward",
        f"{net} {size} px {precision}",
        times * extractor.batch / seconds,
        "images/s",
        "the layers",
        theirs / seconds,
        ">= 0.8",
    )


def scoring(bench: Bench) -> Iterator[Figure]:
    """Products of rows on the device, against `torch.mm` in three precisions."""
    side = 64 if bench.small else 8192
    count = 64 if bench.small else 8192
    speeds = {}
    for name, dtype, precision in (
        ("float32", torch.float32, "highest"),
        ("TF32", torch.float32, "high"),
        ("float16", torch.float16, "highest"),
    ):
        a, b = (torch.rand(side, side, device=bench.device).to(dtype) for _ in range(2))
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        try:
            (seconds,) = bench.in_turn(partial(torch.mm, a, b))
        finally:
            torch.set_float32_matmul_precision(before)
        speeds[name] = 2 * side**3 / seconds / 1e12
        yield Figure("torch.mm", name, speeds[name], "TFLOP/s")
    for net, size in (("alex", 64), ("squeeze", 64)):
        if bench.small and net != "alex":
            continue
        length = load_backbone(net, weights="random").layout(size, size).length
        noise = torch.randint(0, 1 << 14, (count, length), dtype=torch.int16)
        weights = head_weights(net, size)
        rows = noise.view(torch.uint16)
        for name, fast, base, target in (
            ("exact", False, "float32", ">= 2"),
            ("fast", True, "float16", ""),
        ):
            made = scoring_of(rows[:64], weights, "uint16", bench.device, fast=fast, count=count)
            placed = rows.to(bench.device)
            others = placed.flip(0) if bench.device.type == "cpu" else placed.clone()
            (seconds,) = bench.in_turn(partial(made.products, placed, others))
            speed = 2 * count**2 * live(made.columns) / seconds / 1e12
            against = f"torch.mm in {base}"
            ratio = speed / speeds[base]
            yield Figure(
                "scoring", f"{name} {net} {size} px", speed, "TFLOP/s", against, ratio, target
            )


def store(bench: Bench) -> Iterator[Figure]:
    """All pairs with rows read from a warm store, against the same from device memory."""
    memory = "1GB" if bench.small else "16GB"
    bench.forget_peak()
    cold, _ = bench.pairs("cold", memory=memory)
    warm, run = bench.pairs("warm", memory=memory)
    yield Figure("store", "cold", bench.images / cold, "images/s")
    pairs = run.summary["pairs"]
    alone = seconds_in_memory(bench)
    case = f"warm, {bench.images:,} images"
    yield Figure("store", case, pairs / warm, "pairs/s", "device memory", alone / warm, ">= 0.7")
    peak = bench.peak()
    if peak is None:
        return
    yield Figure("store", "peak device memory", peak / 1e9, "GB")
    limit = max(1, round(peak / 2e9))
    bench.forget_peak()
    bench.pairs("limited", memory=memory, device_memory=f"{limit}GB")
    peak = bench.peak() or 0
    yield Figure("store", f"peak of {limit} GB", peak / 1e9, "GB", "it", peak / limit / 1e9, "<= 1")


def seconds_in_memory(bench: Bench) -> float:
    """Seconds for all pairs of as many rows that lie on the device, tiles copied back."""
    length = load_backbone("alex", weights="random").layout(64, 64).length
    weights = head_weights("alex", 64)
    side = min(bench.images, 5000)
    made = torch.randint(0, 1 << 14, (side, length), dtype=torch.int16).view(torch.uint16)
    scoring = scoring_of(made[:64], weights, "uint16", bench.device, count=bench.images)
    placed = made.to(bench.device)
    parts = -(-bench.images // side)
    (each,) = bench.in_turn(lambda: scoring.products(placed, None).float().cpu())
    (other,) = bench.in_turn(lambda: scoring.products(placed, placed.clone()).float().cpu())
    return parts * each + parts * (parts - 1) / 2 * other


def below(bench: Bench) -> Iterator[Figure]:
    """`pairs --below` from the warm store on the device and on the CPU: equal lists."""
    found = {}
    for device in dict.fromkeys((str(bench.device), "cpu")):
        start = time.perf_counter()
        run = lpipstore.below(bench.pictures(), BELOW, **bench.options(device=device))
        seconds = time.perf_counter() - start
        pairs = run.pairs.select(["i", "j"]).to_pylist()
        found[device] = {tuple(pair.values()) for pair in pairs}
        speed = run.summary["pairs"] / seconds
        yield Figure("below", f"{device}: {len(pairs):,} pairs listed", speed, "pairs/s")
    apart = set.union(*found.values()) - set.intersection(*found.values())
    yield Figure("below", "pairs that only one of them lists", len(apart), "", target="<= 0")


PARTS = {part.__name__: part for part in (tests, accuracy, forward, scoring, store, below)}


def measured(bench: Bench, parts: Sequence[str]) -> list[Figure]:
    """Measure the parts, print each figure as it comes, and return all."""
    figures = []
    for name in parts:
        start = time.perf_counter()
        for found in PARTS[name](bench):
            of_speed = found.ratio is not None
            figure = replace(found, target="") if bench.small and of_speed else found
            figures.append(figure)
            print("  ".join(filter(None, figure.cells())), flush=True)
        print(f"({name}: {time.perf_counter() - start:.0f} s)", flush=True)
    return figures


def card(device: torch.device) -> str:
    """Return the name of what computes."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny: only shows that it works")
    parser.add_argument("--json", type=Path, help="where to write the figures, too")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    device = choose_device(options.device)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="lpipstore-bench-") as scratch:
        figures = measured(Bench(device, options.small, Path(scratch)), options.parts)
    told = {
        "card": card(device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "small": options.small,
        "seconds": time.perf_counter() - start,
        "figures": [{**asdict(figure), "met": figure.met} for figure in figures],
    }
    if options.json is not None:
        options.json.write_text(json.dumps(told, indent=1))
    print(f"\n{told['card']}, torch {torch.__version__}, {told['seconds']:.0f} s\n")
    print(table(figures))
    return int(any(figure.met is False for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
