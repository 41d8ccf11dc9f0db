"""What all tests share: drawn pictures, real data where it is at hand, the command line."""

import os
import socket
import struct
import sys
import threading
import time
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
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
    """Move slow tests to the end, where workers steal what is left; skip what needs a GPU."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu") is not None:
                item.add_marker(pytest.mark.skip(reason="torch sees no GPU"))


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
    monkeypatch.setenv("LPIPSTORE_CACHE", str(tmp_path / "cache"))
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


@dataclass
class S3:
    """An S3 server on loopback with one bucket, which a test may fill and watch.

    `requests` has (method, path) of what was asked for, `delay` is the seconds before each answer,
    `most` the largest number of requests that waited for one at the same time.
    """

    endpoint: str
    client: object
    bucket: str
    requests: list = field(default_factory=list)
    delay: float = 0.0
    waiting: int = 0
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}"

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=key, Body=content)

    def upload(self, folder: Path, prefix: str = "") -> str:
        """Put all files of a folder under a prefix; return its URL."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder)}", path.read_bytes())
        self.requests.clear()
        return f"{self.url}/{prefix}/"

    def reads(self) -> list[str]:
        """The keys of the objects that were read."""
        root = f"/{self.bucket}/"
        return [
            path.removeprefix(root)
            for method, path in self.requests
            if method == "GET" and len(path) > len(root)
        ]

    @contextmanager
    def waiting_one(self):
        with self.lock:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
        yield
        with self.lock:
            self.waiting -= 1

    def count(self, method: str) -> int:
        return sum(asked == method for asked, _ in self.requests)


@pytest.fixture
def memory():
    """The file system behind memory://, empty."""
    import fsspec

    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


@pytest.fixture
def impatient(monkeypatch):
    """Attempts to reach a storage follow one another at once."""
    from lpipstore.pipeline.sources.formats import objects

    monkeypatch.setattr(objects, "_PAUSES", (0.01, 0.01, 0.01))


@pytest.fixture(scope="session")
def s3_server():
    """A server of moto that says what it is asked for; returns (endpoint, list of watchers)."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    watchers = []
    app = DomainDispatcherApplication(create_backend_app)

    def watched(environ, start_response):
        for watcher in watchers:
            watcher.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
            with watcher.waiting_one():
                time.sleep(watcher.delay)
        return app(environ, start_response)

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *_):
            pass

    server = make_server("127.0.0.1", 0, watched, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.port}", watchers
    server.shutdown()


@pytest.fixture
def s3(s3_server, monkeypatch, request):
    """A bucket of the test's own; the environment variables lead clients to it."""
    import boto3

    endpoint, watchers = s3_server
    names = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    client = boto3.client("s3")
    bucket = f"bucket-{abs(hash(request.node.nodeid)):x}"
    client.create_bucket(Bucket=bucket)
    server = S3(endpoint, client, bucket)
    watchers.append(server)
    yield server
    watchers.remove(server)
