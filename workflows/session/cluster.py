"""The Dask cluster of a command: one that runs, or processes that it starts on this machine."""

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...cache.errors import LpipstoreError, setting
from ...pipeline.common.optional import optional
from ...pipeline.common.tasks import HERE, Crew
from ...pipeline.common.text import printable
from .own_workers import gpus_to_share, set_up, started
from .plane import open_plane
from .probe import probe
from .screen import Screen
from .settings import SCHEDULER, Settings, parse_bytes, parse_dask
from .workers import Workers

_ANSWER_S = 15.0  # how long a scheduler may take to answer
_WORKERS_S = 60.0  # and the first worker to come
_AHEAD = 3  # tasks in flight for each that runs


@contextmanager
def open_crew(settings: Settings, store: Path, screen: Screen) -> Iterator[Crew]:
    """Return who carries out what takes long: this process, or the cluster of the settings.

    Parameters
    ----------
    settings
        Their ``dask`` is an address, a scheduler file, ``local:N`` or None. A dry run starts none,
        and asks a scheduler for nothing but the number of its workers.
    store
        The store's folder: rows lie there for workers that see it, and travel to those that do not.

    Raises
    ------
    UsageError
        ``dask`` is written wrong, or Dask's scheduler is not installed.
    LpipstoreError
        No scheduler answers, it has no workers, or they differ from this process.
    """
    if settings.dask is None:
        yield HERE
        return
    count = parse_dask(settings.dask)
    if settings.dry_run:
        yield _foreseen(settings, count)
        return
    distributed = _installed()
    memory = parse_bytes(settings.memory)
    with ExitStack() as stack:
        _quieten(stack)
        if count is None:
            address = _address(settings.dask)
            client = stack.enter_context(_connected(distributed, address))
        else:
            memory //= count
            screen.say(f"starting {count} worker{'s' if count > 1 else ''} on this machine")
            cluster = stack.enter_context(started(distributed, count))
            client = stack.enter_context(_client(distributed, cluster))
            set_up(client, gpus_to_share(settings.device))
        _wait_for_workers(client, settings.dask)
        sight = probe(client, store)
        if not sight.shared:
            screen.say(sight.line(store))
        plane = stack.enter_context(
            open_plane(client, store, rows=not sight.shared, tell=screen.say)
        )
        if find_spec("bokeh") is not None and client.dashboard_link:
            screen.say(f"Dask's dashboard is at {client.dashboard_link}")
        workers = Workers(client, screen, ours=count is not None, alone_s=_WORKERS_S)
        stack.enter_context(screen.beside(workers.line))
        executor = client.get_executor(pure=False)
        stack.callback(executor.shutdown, wait=False)
        yield Crew(
            executor,
            elsewhere=True,
            workers=workers.count,
            ahead=_AHEAD,
            memory=memory,
            deaths=(distributed.scheduler.KilledWorker,),
            look=workers.look,
            moved=workers.moved,
            plane=plane,
        )


def _foreseen(settings: Settings, count: int | None) -> Crew:
    """Return this process with as many workers as the cluster of the settings has: to be counted.

    Raises
    ------
    LpipstoreError
        No scheduler answers, or it has no workers.
    """
    memory = parse_bytes(settings.memory)
    if count is not None:
        return replace(HERE, workers=lambda: count, memory=memory // count)
    choice = str(settings.dask)
    with ExitStack() as stack:
        _quieten(stack)
        client = stack.enter_context(_connected(_installed(), _address(choice)))
        _wait_for_workers(client, choice)
        threads = sum(client.nthreads().values())
    return replace(HERE, workers=lambda: threads, memory=memory)


def _installed() -> Any:  # noqa: ANN401 - a module that may not be there
    need = f"{setting('dask')} needs Dask's scheduler"
    return optional("distributed", need, "lpipstore[cluster]")


def _quieten(stack: ExitStack) -> None:
    """Do not show the log of Dask: what ends a run is told by an error of ours."""
    of_dask = ("distributed", "tornado", "asyncio")
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in of_dask]
    for name in (*of_dask, *names):  # Dask gives many of them a level of their own
        logger = logging.getLogger(name)
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)


@contextmanager
def _client(distributed: Any, cluster: Any) -> Iterator[Any]:  # noqa: ANN401
    client = distributed.Client(cluster, timeout=_ANSWER_S, set_as_default=False, name="lpipstore")
    try:
        yield client
    finally:
        client.close()


def _address(choice: str) -> str:
    """Return the address of a scheduler, which its file names."""
    if SCHEDULER.fullmatch(choice):
        return choice
    try:
        return str(json.loads(Path(choice).read_bytes())["address"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LpipstoreError(
            f"{printable(choice)} is no file of a Dask scheduler, or it is being written: start "
            "one with `dask scheduler`, which names it"
        ) from error


@contextmanager
def _connected(distributed: Any, address: str) -> Iterator[Any]:  # noqa: ANN401
    """Connect to a scheduler by its address."""
    with ExitStack() as stack:
        try:
            client = stack.enter_context(_client(distributed, address))
        except (OSError, TimeoutError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise LpipstoreError(
                f"no Dask scheduler answers at {printable(address)} ({printable(reason)}): start "
                f"one with `dask scheduler`, or give {setting('dask')} its address"
            ) from error
        yield client


def _wait_for_workers(client: Any, choice: str) -> None:  # noqa: ANN401
    try:
        client.wait_for_workers(1, timeout=_WORKERS_S)
    except TimeoutError as error:
        raise LpipstoreError(
            f"the Dask scheduler at {printable(choice)} has no workers after {_WORKERS_S:.0f} s: "
            "start some with `dask worker ADDRESS`, one task at a time each"
        ) from error
