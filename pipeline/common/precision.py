"""What float32 arithmetic is made of: the process's switches, held while numbers are decided.

Anybody in the process may let float32 products and convolutions take shorter numbers: TF32 on GPUs,
bfloat16 on CPUs that have units for it (`torch.set_float32_matmul_precision`, the switches
``fp32_precision`` under `torch.backends`), or run them under `torch.autocast`. Distances would then
be off by 1e-3 of the norms of the rows, lower bounds would lie above the distances that they bound,
and rows would enter the store that no other process computes.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Compute in float32 where float32 is written, whatever the process or the caller has set.

    Around everything whose numbers are stored, or decide; also usable as a decorator. What was set
    before is set again afterwards.
    """
    with ieee_float32(), _without_autocast():
        yield


@contextmanager
def fast_products() -> Iterator[None]:
    """Let products take the numbers that the hardware is fastest with; sums stay in float32.

    Where another thread computes in `exact_arithmetic` at the same time, products are exact.
    """
    with _SWITCHES.held(exact=False), _without_autocast():
        yield


@contextmanager
def ieee_float32() -> Iterator[None]:
    """Compute float32 products and convolutions in float32; autocast stays as it is."""
    with _SWITCHES.held(exact=True):
        yield


@contextmanager
def _without_autocast() -> Iterator[None]:
    """Switch autocast off, which belongs to the calling thread."""
    with ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


class _Switches:
    """The switches of the process, which threads that compute at the same time share.

    The first thread remembers what was set, and the last one sets it again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._exact = self._fast = 0  # threads, or nested calls, that ask for it
        self._products: str | None = None
        self._before: list[str | bool] = []

    @contextmanager
    def held(self, *, exact: bool) -> Iterator[None]:
        """Hold the switches for exact arithmetic or for fast products."""
        self._change(int(exact), int(not exact))
        try:
            yield
        finally:
            self._change(-int(exact), -int(not exact))

    def _change(self, exact: int, fast: int) -> None:
        with self._lock:
            before = self._products_wanted()
            if before is None:
                self._remember()
            self._exact += exact
            self._fast += fast
            wanted = self._products_wanted()
            if wanted is None:
                self._set_again()
            elif wanted != before:
                torch.set_float32_matmul_precision(wanted)
                for switch in _switches():
                    switch.restrict()

    def _products_wanted(self) -> str | None:
        return "highest" if self._exact else "medium" if self._fast else None

    def _remember(self) -> None:
        self._before = [switch.get() for switch in _switches()]
        try:
            self._products = torch.get_float32_matmul_precision()
        except RuntimeError:  # torch does not tell where single switches were set otherwise
            self._products = None

    def _set_again(self) -> None:
        torch.set_float32_matmul_precision(self._products or "highest")
        for switch, before in zip(_switches(), self._before, strict=True):
            switch.set(before)


class _Switch:
    """One of torch's switches, of convolutions if `exact` is given, else of products."""

    def __init__(self, owner: Any, name: str, exact: str | bool | None = None) -> None:  # noqa: ANN401 - torch's modules
        self._owner, self._name, self._exact = owner, name, exact

    def get(self) -> str | bool:
        """Return what is set."""
        value: str | bool = getattr(self._owner, self._name)
        return value

    def restrict(self) -> None:
        """Let convolutions compute in float32; `set_float32_matmul_precision` sets products."""
        if self._exact is not None:
            setattr(self._owner, self._name, self._exact)

    def set(self, value: str | bool) -> None:
        """Set what was found before."""
        if self._name == "fp32_precision":
            self._owner.fp32_precision = "none"
            if self._owner.fp32_precision == value:
                return  # it is what the switch inherits
        setattr(self._owner, self._name, value)


def _switches() -> list[_Switch]:
    """Return torch's switches of products and of convolutions.

    torch 2.9 has one for each operation and device, and refuses to read the older ones once the new
    ones differ; in torch 2.8 the precision of products is one setting.
    """
    backends: Any = torch.backends
    if not hasattr(backends.cudnn, "conv"):
        return [_Switch(backends.cudnn, "allow_tf32", False)]
    name = "fp32_precision"
    products = [_Switch(part.matmul, name) for part in (backends.cuda, backends.mkldnn)]
    return [
        *products,
        *(_Switch(part.conv, name, "ieee") for part in (backends.cudnn, backends.mkldnn)),
    ]


_SWITCHES = _Switches()
