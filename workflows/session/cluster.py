"""The Dask cluster of a command: one that runs, or processes that it starts on this machine."""

import json
import logging
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...cache.errors import LpipstoreError, UsageError, setting
from ...pipeline.common.tasks import HERE, Crew
from ...pipeline.common.text import printable
from .plane import open_plane
from .probe import probe
from .screen import Screen
from .settings import SCHEDULER, Settings, parse_bytes, parse_dask

_ANSWER_S = 15.0  # how long a scheduler may take to answer
_WORKERS_S = 60.0  # and the first worker to come
_AHEAD = 3  # tasks in flight for each that runs
_COUNT_S = 2.0  # how often workers are counted


@contextmanager
def open_crew(settings: Settings, store: Path, screen: Screen) -> Iterator[Crew]:
    """Return who carries out what takes long: this process, or the cluster of the settings.

    Parameters
    ----------
    settings
        Their ``dask`` is an address, a scheduler file, ``local:N`` or None. A dry run starts none.
    store
        The store's folder: rows lie there for workers that see it, and travel to those that do not.

    Raises
    ------
    UsageError
        ``dask`` is written wrong, or Dask's scheduler is not installed.
    LpipstoreError
        No scheduler answers, it has no workers, or they differ from this process.
    """
    if settings.dask is None or settings.dry_run:
        yield HERE
        return
    count = parse_dask(settings.dask)
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
            cluster = stack.enter_context(_started(distributed, count))
            client = stack.enter_context(_client(distributed, cluster))
            client.register_worker_callbacks(setup=ignore_interrupts)
        _wait_for_workers(client, settings.dask)
        sight = probe(client, store)
        if not sight.shared:
            screen.say(sight.line(store))
        plane = stack.enter_context(
            open_plane(client, store, rows=not sight.shared, tell=screen.say)
        )
        if find_spec("bokeh") is not None and client.dashboard_link:
            screen.say(f"Dask's dashboard is at {client.dashboard_link}")
        workers = _Workers(client, screen, ours=count is not None)
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
            plane=plane,
        )


def _installed() -> Any:  # noqa: ANN401 - a module that may not be there
    if find_spec("distributed") is None:
        raise UsageError(
            f"{setting('dask')} needs Dask's scheduler, which is not installed: "
            "pip install 'lpipstore[cluster]'"
        )
    import distributed

    return distributed


def _quieten(stack: ExitStack) -> None:
    """Do not show the log of Dask: what ends a run is told by an error of ours."""
    of_dask = ("distributed", "tornado", "asyncio")
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in of_dask]
    for name in (*of_dask, *names):  # Dask gives many of them a level of their own
        logger = logging.getLogger(name)
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)


@contextmanager
def _started(distributed: Any, count: int) -> Iterator[Any]:  # noqa: ANN401
    """Start processes on this machine, with one task at a time each; stop them at the end."""
    import dask

    # A task is blamed for every worker that dies while it waits there; `completed` counts, too
    with dask.config.set({"distributed.scheduler.allowed-failures": 1000}):
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


def ignore_interrupts() -> None:
    """Leave Ctrl-C, which every process of a terminal gets, to the one that started the workers."""
    with suppress(ValueError):  # not in the main thread: a terminal does not reach this one
        signal.signal(signal.SIGINT, signal.SIG_IGN)


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


class _Workers:
    """The workers of a client, counted now and then."""

    def __init__(self, client: Any, screen: Screen, *, ours: bool) -> None:  # noqa: ANN401
        self._client, self._screen = client, screen
        self._seen, self._when, self._alone = 1, 0.0, 0.0
        self._ours = ours

    def count(self) -> int:
        """Return how many tasks run side by side, at least 1."""
        now = time.monotonic()
        if now - self._when > _COUNT_S:
            self._seen, self._when = self._threads(), now
        return max(1, self._seen)

    def look(self) -> None:
        """Warn if there are no workers any more; stop if asked to, or if ours do not come back."""
        if self._screen.stopped_by is not None:
            raise KeyboardInterrupt
        if self._threads():
            self._alone = 0.0
            return
        now = time.monotonic()
        self._alone = self._alone or now
        if self._ours and now - self._alone > _WORKERS_S:
            raise LpipstoreError(
                "all workers have ended: the same command goes on from what is finished"
            )
        if not self._ours:
            self._screen.warn("the Dask scheduler has no workers left: waiting for some to come")

    def _threads(self) -> int:
        try:
            return sum(self._client.nthreads().values())
        except (OSError, TimeoutError) as error:
            raise LpipstoreError(
                "the Dask scheduler is gone: start it again and give the same command, which goes "
                "on from what is finished"
            ) from error
