"""What a command works with, and how it comes from sources on disk to a collection."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...cache.errors import LpipstoreError, setting
from ...cache.exchange.fetch import Fetcher
from ...cache.keys import PoolSpec
from ...cache.store import FeatureStore, LimitChange
from ...pipeline.common.atomic import check_writable
from ...pipeline.common.device import devices_of
from ...pipeline.common.progress import Stopwatch
from ...pipeline.common.tasks import HERE, Crew
from ...pipeline.common.text import printable
from ...pipeline.distances.heads import HEAD, TRUNK
from ...pipeline.features.extractor import Extractor
from ...pipeline.features.features import Features
from ...pipeline.features.rows import VERSION_ENTRY
from ...pipeline.images.loader import Decoded, Decoding, decode_images
from ...pipeline.images.preparation import Preparation
from ...pipeline.images.survey import ImageRecord, survey
from ...pipeline.sources.names import IMAGE_SUFFIXES
from ...pipeline.sources.sources import Given, Sources, name_of
from .cluster import open_crew
from .collection import (
    STAGES,
    Collection,
    device_memory_of,
    make_extractor,
    need_images,
    open_store,
)
from .gpus import open_gpus
from .remote import open_remote
from .screen import Screen
from .settings import (
    Settings,
    choose_size,
    first_limit,
    parse_bytes,
    show_bytes,
    source_options,
    store_path,
)
from .shapes import warn_of_shapes


@dataclass(frozen=True)
class Session:
    """What a command works with: settings, screen, store, and a clock for its stages.

    Attributes
    ----------
    store
        Where rows are kept; open as long as the session is.
    settings
        What a person chose.
    clock
        Adds up where the time goes.
    screen
        Shows progress and messages.
    sources
        Finds images and opens them; open as long as the session is.
    remote
        Where rows are fetched from that the store lacks; None computes them.
    crew
        Who carries out what takes long: this process, one for each GPU, or a Dask cluster.
    check
        Raises `LpipstoreError` for a collection that the command refuses; None takes any.
    """

    store: FeatureStore
    settings: Settings
    clock: Stopwatch
    screen: Screen
    sources: Sources = field(default_factory=Sources)
    remote: Fetcher | None = None
    crew: Crew = HERE
    check: Callable[[Collection], None] | None = None

    def survey(self, names: Sequence[str]) -> list[ImageRecord]:
        """Survey images, one record for each; see `lpipstore.pipeline.images.survey`."""
        rehash, report = self.settings.rehash, self.screen.report
        with self.clock("hash"):
            return survey(names, self.sources, self.store, rehash=rehash, report=report)

    def decode(
        self, images: Sequence[tuple[str, bytes]], how: Preparation, batch: int
    ) -> Iterator[Decoded]:
        """Decode images (name, content hash) in as many threads as the settings say."""
        return decode_images(images, self.sources, how, batch, self.settings.workers)


@contextmanager
def open_session(
    settings: Settings,
    screen: Screen,
    clock: Stopwatch | None = None,
    check: Callable[[Collection], None] | None = None,
    sources: Sources | None = None,
) -> Iterator[Session]:
    """Open the store that the settings name, and close it after the ``with`` block.

    Without a `clock` that runs already, one is started. `sources` that found images already know
    what listings told of them. For a dry run no store is made, and the limit of the one that is
    there stays what it is.

    Raises
    ------
    LpipstoreError
        A setting is written wrong, the store or the remote one cannot be opened, or no Dask
        cluster answers.
    """
    if clock is None:
        clock = Stopwatch(*STAGES)
    with (
        _spared(settings) as chosen,
        open_store(chosen) as store,
        closing(sources or Sources(source_options(settings))) as opened,
        open_remote(settings.remote, screen) as remote,
        _crew(settings, store.path, screen) as crew,
    ):
        if store.limit_change is not None:
            tell_limit_change(store.limit_change, screen)
        yield Session(store, settings, clock, screen, opened, remote, crew, check)


def _crew(settings: Settings, store: Path, screen: Screen) -> AbstractContextManager[Crew]:
    """Return who carries out what takes long: this process, one for each GPU, or a cluster."""
    devices = devices_of(settings.device)
    if len(devices) > 1 and not settings.dry_run:
        return open_gpus(devices, parse_bytes(settings.memory))
    return open_crew(settings, store, screen)


def tell_limit_change(change: LimitChange, screen: Screen) -> None:
    """Say that the store has another limit now, and what was evicted for it."""
    after, before = (
        "no limit" if limit is None else show_bytes(limit)
        for limit in (change.after, change.before)
    )
    line = f"the store's limit is now {after}, and was {before}"
    freed = change.freed
    if freed.segments:
        screen.warn(f"{line}: {freed.rows:,} rows ({show_bytes(freed.bytes)}) were evicted")
    else:
        screen.say(line)


@contextmanager
def _spared(settings: Settings) -> Iterator[Settings]:
    """Return settings whose store can be opened without changing anything that a dry run finds."""
    if not settings.dry_run:
        yield settings
        return
    path = store_path(settings.store)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        yield settings
        return
    limit = settings.store_limit or str(first_limit(path))
    try:
        check_writable(path)
    except OSError as error:
        raise LpipstoreError(
            f"a store cannot be made at {printable(str(path))}: {error.strerror}; choose another "
            f"{setting('store')}"
        ) from error
    with tempfile.TemporaryDirectory(prefix="lpipstore-") as scratch:
        yield replace(settings, store=Path(scratch) / "store", store_limit=limit)


def find_collection(sources: Sequence[Given], session: Session) -> list[ImageRecord]:
    """Find and survey the images; those that cannot be used have an ``error``.

    Raises
    ------
    UsageError
        A source does not exist.
    LpipstoreError
        There are no images, or none that can be read.
    """
    with session.clock("hash"):
        found = session.sources.find(sources)
    if not found.names and not found.unreadable:
        places = ", ".join(map(name_of, sources))
        raise LpipstoreError(
            f"no images in {places}: looked for files ending in "
            f"{', '.join(sorted(IMAGE_SUFFIXES))} in all its folders, and then for .zip, .tar, "
            ".npy, .npz, .parquet and .arrow files and videos; @list.txt gives a list of images"
        )
    records = session.survey(found.names)
    records += [ImageRecord(path, error=reason) for path, reason in found.unreadable]
    need_images(records)
    return records


def make_collection(records: list[ImageRecord], session: Session) -> Collection:
    """Make a collection: choose the size, load the backbone, connect the store.

    Raises
    ------
    UsageError
        A setting that cannot be: unknown names, sizes that do not fit, weights that are not there.
    LpipstoreError
        The session refuses the collection.
    """
    store, settings, screen = session.store, session.settings, session.screen
    size, line = choose_size(settings.size, [record for record in records if not record.error])
    if line:
        screen.say(line)
    extractor = make_extractor(size, store, settings)
    warn_of_shapes(records, extractor.preparation, screen)
    if not extractor.backbone.trained:
        screen.warn(
            f"the trunk is untrained ({setting('weights', 'random')}): distances mean little"
        )
    say_of_earlier_rows(extractor.spec, store, screen)
    if session.remote is not None and not session.remote.catalogue.has(extractor.spec):
        screen.say(
            f"{session.remote.folder.place} has no rows of this backbone, with these weights and "
            "this size: they are computed"
        )
    collection = bind(records, extractor, session)
    need = len(set(collection.contents())) * collection.row_bytes()
    limit = store.limit
    if settings.dry_run and settings.store_limit is not None:
        limit = parse_bytes(settings.store_limit)  # it would be changed first
    if not settings.compress and limit is not None and need > limit:
        screen.warn(
            f"the rows of these images take {show_bytes(need)} and the store's limit is "
            f"{show_bytes(limit)}: what does not fit is made when it is needed; "
            f"{setting('store_limit')} raises the limit"
        )
    if session.check is not None:
        session.check(collection)
    if settings.heads is not None:
        warn_of_own_trunk([settings.heads], settings.weights, screen)
    return collection


def say_of_earlier_rows(spec: PoolSpec, store: FeatureStore, screen: Screen) -> None:
    """Say so where the store has such rows only from an earlier version of lpipstore."""
    pools = [p for p in store.stat().pools if (p.length, p.dtype) == (spec.length, spec.dtype)]
    if any(pool.recipe == spec.recipe for pool in pools):
        return
    unversioned = {**spec.recipe, VERSION_ENTRY: None}
    earlier = [pool for pool in pools if {**pool.recipe, VERSION_ENTRY: None} == unversioned]
    if earlier:
        screen.say(
            f"the store holds {sum(pool.rows for pool in earlier):,} rows of this backbone and "
            "size that an earlier version of lpipstore computed: their last digits differ, so "
            "they are computed again, and the old ones are evicted as the store fills"
        )


def warn_of_own_trunk(heads: Iterable[str], weights: str, screen: Screen) -> None:
    """Say so where a head was trained together with a trunk, and the trunk here is another."""
    for choice in heads:
        path = Path(choice).expanduser()
        trunk = (path if path.is_dir() else path.parent) / TRUNK
        if not (path.is_dir() or path.name == HEAD) or not trunk.is_file():
            continue
        chosen = Path(weights).expanduser()
        if not (chosen.is_file() and chosen.samefile(trunk)):
            screen.warn(
                f"the head {printable(choice)} was trained together with its own trunk, and this "
                f"one is another: {setting('weights', printable(str(trunk)))} takes the one that "
                "it knows"
            )


def bind(records: list[ImageRecord], extractor: Extractor, session: Session) -> Collection:
    """Bind images and the extractor of their rows to the store."""
    names = {record.content: record.path for record in records if record.content}
    how, workers = extractor.preparation, session.settings.workers
    decode = Decoding(session.sources, names, how, workers)
    features = Features(
        extractor,
        session.store,
        decode,
        session.clock,
        session.screen.report,
        names,
        remote=session.remote,
        crew=session.crew,
        device_memory=device_memory_of(session.settings),
    )
    return Collection(records, features)
