"""Worker processes on this machine, which a command starts and stops."""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch

from ...pipeline.features.extractor import choose_device

# Dask's own setting gives memory back to the system at each turn: fresh pages cost products 10 %
_KEEP_MEMORY = {"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None}
# A task is blamed for every worker that dies while it waits there; `completed` counts, too
_FORGIVE = {"distributed.scheduler.allowed-failures": 1000}
_GPUS = "CUDA_VISIBLE_DEVICES"


@contextmanager
def started(distributed: Any, count: int) -> Iterator[Any]:  # noqa: ANN401
    """Start worker processes, with one task at a time each; stop them at the end.

    Yields the ``distributed.LocalCluster``.
    """
    import dask

    with dask.config.set({**_KEEP_MEMORY, **_FORGIVE}):
        cluster = distributed.LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,  # rows are kept within the memory of the settings
            dashboard_address="127.0.0.1:0" if find_spec("bokeh") is not None else None,
            silence_logs=logging.CRITICAL,
        )
    try:
        yield cluster
    finally:
        cluster.close()


def set_up(client: Any, gpus: tuple[str, ...]) -> None:  # noqa: ANN401
    """Prepare the workers of a client, and those that take the place of lost ones.

    They ignore Ctrl-C, and each sees one of the `gpus` (see `gpus_to_share`), in turn.
    """
    client.register_worker_callbacks(setup=partial(_begin, gpus=gpus))


def ignore_interrupts() -> None:
    """Leave Ctrl-C, which every process of a terminal gets, to the one that started the workers."""
    with suppress(ValueError):  # not in the main thread: a terminal does not reach this one
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _begin(dask_worker: Any, gpus: tuple[str, ...]) -> None:  # noqa: ANN401
    ignore_interrupts()
    if gpus:  # CUDA looks at it when the first task needs a GPU
        os.environ[_GPUS] = gpus[int(dask_worker.name) % len(gpus)]


def gpus_to_share(device: str) -> tuple[str, ...]:
    """Return the GPUs for the workers of a setting ``device``, as CUDA_VISIBLE_DEVICES names them.

    None for a CPU, or where the setting names one GPU for all.
    """
    if choose_device(device).type != "cuda" or ":" in device:
        return ()
    named = os.environ.get(_GPUS)
    if named is None:
        return tuple(map(str, range(torch.cuda.device_count())))
    return tuple(name.strip() for name in named.split(",") if name.strip())
