"""Keep float32 arithmetic in float32, whatever torch's global switches say.

Any code in the process may let float32 products and convolutions use shorter formats: TF32 on GPUs,
bfloat16 on CPUs with units for it (`torch.set_float32_matmul_precision`, the switches
``fp32_precision`` under `torch.backends`), or run them under `torch.autocast`. Distances would then
be off by 1e-3 of the norms of the rows, lower bounds would exceed the distances that they bound,
and the store would receive rows that no other process computes.
"""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Compute float32 operations in float32, whatever the process or the caller has set.

    Wrap it around all arithmetic whose results are stored or compared; also usable as a decorator.
    The previous settings are restored afterwards.
    """
    with ieee_float32(), _without_autocast():
        yield


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Let a GPU give the same bits for the same operands at any time.

    cuDNN takes deterministic algorithms, by the shape of the operands and not by trying which one
    is fastest; products of half-precision numbers are summed in float32. Use it together with
    `exact_arithmetic`. The previous settings are restored afterwards.
    """
    with _ALGORITHMS.held():
        yield


@contextmanager
def fast_products() -> Iterator[None]:
    """Let products use the hardware's fastest number formats; sums stay in float32.

    While another thread is inside `exact_arithmetic`, products are exact.
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
    """Switch off autocast, which is a setting of the calling thread."""
    with without_autocast("cpu"), without_autocast("cuda"):
        yield


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Return a context that switches off autocast for one kind of device, if it is on.

    `torch.compile` and `torch.export` take it; where autocast is off, they record nothing.
    """
    if _has_autocast(device_type) and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _has_autocast(device_type: str) -> bool:
    """Return whether autocast knows a kind of device; torch 2.8 cannot compile the question."""
    return bool(torch.amp.is_autocast_available(device_type))


class _Switches:
    """The switches of the process, shared by threads that compute at the same time.

    The first thread to enter saves the settings; the last one to leave restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._exact = self._fast = 0  # threads and nested calls inside
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
        except RuntimeError:  # torch refuses if single switches were set apart
            self._products = None

    def _set_again(self) -> None:
        torch.set_float32_matmul_precision(self._products or "highest")
        for switch, before in zip(_switches(), self._before, strict=True):
            switch.set(before)


class _Switch:
    """One of torch's switches: for convolutions if `exact` is given, else for products."""

    def __init__(self, owner: Any, name: str, exact: str | bool | None = None) -> None:  # noqa: ANN401 - torch's modules
        self._owner, self._name, self._exact = owner, name, exact

    def get(self) -> str | bool:
        """Return the current setting."""
        value: str | bool = getattr(self._owner, self._name)
        return value

    def restrict(self) -> None:
        """Make convolutions compute in float32; `set_float32_matmul_precision` sets products."""
        if self._exact is not None:
            setattr(self._owner, self._name, self._exact)

    def set(self, value: str | bool) -> None:
        """Restore a saved setting."""
        if self._name == "fp32_precision":
            self._owner.fp32_precision = "none"
            if self._owner.fp32_precision == value:
                return  # the inherited value
        setattr(self._owner, self._name, value)


def _switches() -> list[_Switch]:
    """Return torch's switches for products and for convolutions.

    torch 2.9 has one per operation and device, and refuses to read the older ones once the new ones
    differ; torch 2.8 has a single setting for the precision of products.
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


class _Algorithms:
    """The switches by which a GPU chooses algorithms, shared by threads as `_Switches` are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: list[Any] = []

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the switches as `deterministic_algorithms` says."""
        with self._lock:
            if not self._inside:
                self._before = [_setting(owner, name) for owner, name, _ in _algorithms()]
                for owner, name, value in _algorithms():
                    setattr(owner, name, value)
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    for (owner, name, _), value in zip(_algorithms(), self._before, strict=True):
                        setattr(owner, name, value)


def _algorithms() -> list[tuple[Any, str, Any]]:
    """Return the switches, by owner and name, and what they are set to."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    switches = [
        (cudnn, "benchmark", False),
        (cudnn, "deterministic", True),
        (cudnn, "depthwise_kernel", "auto"),
        (products, "allow_fp16_reduced_precision_reduction", False),
        (products, "allow_bf16_reduced_precision_reduction", False),
        (products, "allow_fp16_accumulation", False),
    ]
    return [switch for switch in switches if hasattr(*switch[:2])]  # not all are in torch 2.8


def _setting(owner: Any, name: str) -> Any:  # noqa: ANN401 - torch's modules
    """Return what to set a switch to again: some are set together with a second one."""
    value = getattr(owner, name)
    second = f"{name}_split_k"
    return (value, getattr(owner, second)) if hasattr(owner, second) else value


_SWITCHES = _Switches()
_ALGORITHMS = _Algorithms()
