"""What all tests share: drawn pictures, real data where it is at hand, the command line."""

import os
import socket
import struct
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from lpipstore.workflows.cli.app import run_command

PHOTOS = "LPIPSTORE_TEST_DATA"
WEIGHTS = "LPIPSTORE_WEIGHTS"


# The same examples in every run of CI; elsewhere each run tries new ones.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("new", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "new")


def pytest_configure():
    """Share the cores between the workers; torch is not imported yet.

    Only a worker sets the number of threads: what the process that starts the workers sets, they
    inherit. Threads that wait give their core away, or they keep those from working that they wait
    for.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    workers = os.environ.get("PYTEST_XDIST_WORKER_COUNT")
    if workers:
        threads = max(1, (os.cpu_count() or 1) // int(workers))
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def pytest_collection_modifyitems(items):
    """Move slow tests to the end, where workers steal what is left from one another."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


def _draw(folder: Path, count: int, side: int | tuple[int, int] = 32, seed: int = 0) -> list[Path]:
    """Write `count` pictures: smooth random colours, each different, as PNG files."""
    height, width = (side, side) if isinstance(side, int) else side
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    paths = []
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), np.uint8))
        path = folder / f"{number:03}.png"
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(path)
        paths.append(path)
    return paths


@pytest.fixture(scope="session")
def draw():
    """The function that draws pictures into a folder."""
    return _draw


@pytest.fixture
def pictures(tmp_path):
    """A folder of eight drawn pictures of 32×32 pixels."""
    _draw(tmp_path / "pictures", 8)
    return tmp_path / "pictures"


@pytest.fixture(scope="session")
def data():
    """The folder of real photographs, weights and judgements."""
    folder = os.environ.get(PHOTOS)
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"needs real photographs: the environment variable {PHOTOS} names no folder")
    return Path(folder)


@pytest.fixture(scope="session")
def real_weights():
    """The folder of real trunk weights, with those of squeeze."""
    folder = os.environ.get(WEIGHTS)
    if not folder or not list(Path(folder).glob("squeezenet1_1*.pth")):
        pytest.skip(f"needs real weights: the environment variable {WEIGHTS} names no folder")
    return Path(folder)


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


@pytest.fixture
def bomb() -> bytes:
    """A PNG of a few hundred bytes that claims 60,000×60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


@dataclass
class Outcome:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    """Run the command line in this process, its default store in the test's own folder."""
    monkeypatch.setenv("LPIPSTORE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["lpipstore", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            run_command()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return Outcome(code, printed.out, printed.err)

    return run


@pytest.fixture
def files_of():
    """The function that reads all files of a run but the JSON, which tells times and places."""

    def read(folder):
        return {
            path.relative_to(folder): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name not in ("manifest.json", "summary.json")
        }

    return read


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty cache of torch.hub, no weights folder, and a proxy that refuses connections."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{probe.getsockname()[1]}"
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, closed)
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY", "LPIPSTORE_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    # urllib remembers the proxies of its first call
    monkeypatch.setattr("urllib.request._opener", None)
    return tmp_path / "torch" / "hub" / "checkpoints"
