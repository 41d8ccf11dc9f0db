"""Images per second and peak memory by kind of source: a folder against files that hold many.

    python tests/benchmarks/sources.py [--count 5000] [--side 64] [--kinds png npz tar]

Drawn pictures are written once as each kind. `lpipstore extract` then reads each, kind after kind
in turn, in a process of its own: cold with an empty store, warm with the one that was filled.
Medians of several rounds; of the stages, the seconds that the run waited for hashes and pixels.
Each kind is also compared, round by round, with a folder of the same pictures: with JPEG files if
it holds those, with PNG files if it holds pixels. `load` is that of the machine before a round.
"""

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

COMMAND = (sys.executable, "-c", "from lpipstore.workflows.cli.app import main; main()")
Pictures = Callable[[], Iterator[NDArray[np.uint8]]]


def drawn(count: int, side: int) -> Iterator[NDArray[np.uint8]]:
    """Smooth colours with a little noise, the same ones each time."""
    random = np.random.default_rng(0)
    for _ in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), np.uint8))
        smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.int16)
        noise = random.integers(-4, 5, smooth.shape, np.int16)
        yield (smooth + noise).clip(0, 255).astype(np.uint8)


def encoded(picture: NDArray[np.uint8], kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, quality=95)
    return file.getvalue()


def folder(place: Path, pictures: Pictures, kind: str) -> None:
    place.mkdir()
    for number, picture in enumerate(pictures()):
        (place / f"{number:06}.{kind.lower()}").write_bytes(encoded(picture, kind))


def array(place: Path, pictures: Pictures, count: int, side: int, method: int) -> None:
    """Write what np.savez does, image by image: this process stays small.

    A child's peak memory begins with that of its parent.
    """
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, side, side, 3)}
    with (
        zipfile.ZipFile(place, "w", method) as archive,
        archive.open("arr_0.npy", "w", force_zip64=True) as member,
    ):
        npy.write_array_header_1_0(member, header)
        for picture in pictures():
            member.write(picture.tobytes())


def tarred(place: Path, pictures: Pictures) -> None:
    with tarfile.open(place, "w:gz" if place.suffix == ".gz" else "w") as archive:
        for number, picture in enumerate(pictures()):
            data = encoded(picture)
            info = tarfile.TarInfo(f"{number:06}.jpg")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def zipped(place: Path, pictures: Pictures) -> None:
    with zipfile.ZipFile(place, "w") as archive:
        for number, picture in enumerate(pictures()):
            archive.writestr(f"{number:06}.jpg", encoded(picture))


def table(place: Path, pictures: Pictures) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": [encoded(picture) for picture in pictures()]}), place)


def kinds_of(count: int, side: int) -> dict[str, tuple[str, Callable[[Path, Pictures], None]]]:
    """Return for each kind a name of a file or folder, and what writes it."""

    def arrays(method: int) -> Callable[[Path, Pictures], None]:
        return lambda place, pictures: array(place, pictures, count, side, method)

    return {
        "png": ("png", lambda place, pictures: folder(place, pictures, "PNG")),
        "jpeg": ("jpeg", lambda place, pictures: folder(place, pictures, "JPEG")),
        "npz": ("stored.npz", arrays(zipfile.ZIP_STORED)),
        "packed npz": ("packed.npz", arrays(zipfile.ZIP_DEFLATED)),
        "tar": ("images.tar", tarred),
        "tar.gz": ("images.tar.gz", tarred),
        "zip": ("images.zip", zipped),
        "parquet": ("images.parquet", table),
    }


def folder_like(kind: str) -> str:
    """Return the kind of folder that has the same pictures."""
    return "png" if kind in ("png", "npz", "packed npz") else "jpeg"


@dataclass
class Taken:
    """What one run took: seconds, GB, and images that went through the trunk.

    `processor` are the seconds of all cores, which others on the machine hardly change; `decoding`
    those that the run waited for pixels.
    """

    total: float
    processor: float
    reading: float
    decoding: float
    peak: float
    forwards: int


def extract(place: Path, store: Path, model: list[str]) -> Taken:
    command = [*COMMAND, "extract", str(place), "--store", str(store), *model, "--json", "-q"]
    began = time.perf_counter()
    with (
        tempfile.TemporaryFile() as messages,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages) as process,
    ):
        assert process.stdout is not None
        told = process.stdout.read()
        _, process.returncode, usage = os.wait4(process.pid, 0)
        messages.seek(0)
        if process.returncode:
            raise SystemExit(messages.read().decode())
    summary = json.loads(told)
    seconds = summary["seconds"]
    return Taken(
        time.perf_counter() - began,
        usage.ru_utime + usage.ru_stime,
        seconds["hash"] + seconds["decode"],
        seconds["decode"],
        usage.ru_maxrss * 1024 / 1e9,
        summary["forwards"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--kinds", nargs="+")
    parser.add_argument("--backbone", default="alex")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    kinds = kinds_of(options.count, options.side)
    wanted = list(options.kinds or kinds)
    chosen = list(dict.fromkeys([*map(folder_like, wanted), *wanted]))
    model = ["--backbone", options.backbone, "--weights", options.weights, "--store-limit", "1TB"]
    found: dict[str, list[tuple[Taken, Taken]]] = {kind: [] for kind in chosen}
    with tempfile.TemporaryDirectory(prefix="lpipstore-bench-") as name:
        scratch = Path(name)
        for kind in chosen:
            place = scratch / kinds[kind][0]
            kinds[kind][1](place, lambda: drawn(options.count, options.side))
            for path in (place, *place.rglob("*")):  # as if written an hour ago: hashes are kept
                os.utime(path, (time.time() - 3600,) * 2)
        for number in range(options.rounds):
            print(f"round {number + 1}: load {os.getloadavg()[0]:.1f}", flush=True)
            for kind in chosen:
                place, store = scratch / kinds[kind][0], scratch / "store"
                found[kind].append((extract(place, store, model), extract(place, store, model)))
                cold, warm = found[kind][-1]
                print(f"  {kind}: cold {cold.total:.1f} s, warm {warm.total:.1f} s", flush=True)
                shutil.rmtree(store)
    print(f"{options.count:,} images of {options.side} px, {options.backbone}, images per second")
    for kind, rounds in found.items():
        lines = []
        for what, runs in zip(("cold", "warm"), zip(*rounds, strict=True), strict=True):
            total, reading = (
                options.count / statistics.median(getattr(run, stage) for run in runs)
                for stage in ("total", "reading")
            )
            peak = max(run.peak for run in runs)
            like = [pair[what == "warm"] for pair in found[folder_like(kind)]]
            ratio, effort = (
                statistics.median(
                    getattr(base, clock) / getattr(run, clock)
                    for base, run in zip(like, runs, strict=True)
                )
                for clock in ("total", "processor")
            )
            lines.append(
                f"{what} {total:,.0f}, {ratio:.2f} × a folder ({effort:.2f} by processor time; "
                f"read and hashed {reading:,.0f}), "
                f"{runs[0].forwards:,} forwards, peak {peak:.2f} GB, "
                f"waited {statistics.median(run.decoding for run in runs):.2f} s for pixels"
            )
        print(f"{kind}: {'; '.join(lines)}")


if __name__ == "__main__":
    main()
