"""Fixtures that the tests of several stages share."""

import socket

import pytest


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
