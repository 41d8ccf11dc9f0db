"""What the commands have in common: checked settings, an open store, images with their rows."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...cache.errors import LpipstoreError, UsageError, setting
from ...cache.pins import Pin
from ...cache.store import FeatureStore
from ...pipeline.backbones.load import check_backbone, load_backbone
from ...pipeline.common.device import device_of, devices_of
from ...pipeline.common.text import printable
from ...pipeline.distances.heads import Head, load_head
from ...pipeline.features.extractor import TRUNK_DTYPES, Extractor, choose_device
from ...pipeline.features.features import Features
from ...pipeline.features.pooled import PooledRows
from ...pipeline.features.rows import ROW_DTYPES
from ...pipeline.images.preparation import FITS, ICC, Preparation
from ...pipeline.images.survey import ImageRecord
from ...pipeline.matrix.placing import placed
from ...pipeline.matrix.plan import MatrixPlan
from ...pipeline.sources.names import member_name
from .remote import check_url
from .screen import Lines, Screen
from .settings import (
    Settings,
    first_limit,
    parse_bytes,
    parse_dask,
    parse_size,
    show_bytes,
    store_path,
)

PRECISIONS = ("exact", "fast")
_NAMED = 100  # broken images, one in a line
STAGES = ("hash", "decode", "load", "forward", "read", "score", "write")


def check_settings(settings: Settings) -> None:
    """Raise `UsageError` for what is written wrong, before anything is read for long."""
    parse_size(settings.size)
    check_choice("fit", settings.fit, FITS)
    check_choice("icc", settings.icc, ICC)
    check_choice("row_dtype", settings.row_dtype, ROW_DTYPES)
    check_choice("trunk_dtype", settings.trunk_dtype, TRUNK_DTYPES)
    check_choice("precision", settings.precision, PRECISIONS)
    if settings.dask is not None:
        parse_dask(settings.dask)
        if len(devices_of(settings.device)) > 1:
            raise UsageError(
                f"{setting('dask')} shares work among its workers, and "
                f"{setting('device', settings.device)} among GPUs of this machine: choose one"
            )
    check_backbone(settings.backbone, settings.lpips_version, settings.tap_names)
    device_memory_of(settings)
    if settings.remote is not None:
        check_url(settings.remote)


def device_memory_of(settings: Settings) -> int | None:
    """Return the bytes of the device for scoring that the settings name; None for ``auto``.

    Raises
    ------
    UsageError
        A setting is written wrong, or the device is the CPU, whose memory is ``memory``.
    """
    where = choose_device(settings.device)
    if settings.device_memory == "auto":
        return None
    chosen = parse_bytes(settings.device_memory)
    if device_of(where).local:
        raise UsageError(
            f"{setting('device_memory', settings.device_memory)} is for a GPU, and this command "
            f"computes on the CPU: leave it out; {setting('memory')} is for the CPU"
        )
    return chosen


def open_store(settings: Settings) -> FeatureStore:
    """Open the feature store that the settings name.

    ``store_limit`` changes the limit that the store keeps, unless this is a dry run on a store
    that is there.
    """
    check_settings(settings)
    path = store_path(settings.store)
    limit = None if settings.store_limit is None else parse_bytes(settings.store_limit)
    return FeatureStore(
        path,
        limit=None if settings.dry_run and path.exists() else limit,
        first_limit=lambda: first_limit(path),
        durable=settings.durable,
        compress=settings.compress,
    )


def need_images(records: Sequence[ImageRecord]) -> None:
    """Raise `LpipstoreError`, with an example, if none of the records can be used."""
    if all(record.error for record in records):
        raise LpipstoreError(
            f"none of {len(records):,} files can be used as an image, such as "
            f"{printable(records[0].path)}: {records[0].error}"
        )


@dataclass(frozen=True)
class Counts:
    """The images of a summary.

    Attributes
    ----------
    images, unique, failed
        Images that can be used, those with different contents among them, and the others.
    forwards, hits
        Rows that were computed, and those that were in the store already.
    bytes
        Of all rows.
    trained
        Whether the trunk is trained.
    fetched, fetched_bytes
        Rows that came from a remote folder, pooled ones included, and the bytes that were read
        there; None without one.
    """

    images: int
    unique: int
    failed: int
    forwards: int
    hits: int
    bytes: int
    trained: bool
    fetched: int | None = None
    fetched_bytes: int | None = None

    def entries(self) -> dict[str, Any]:
        """Return what ``summary.json`` and ``--json`` hold of them."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def lines(self) -> Lines:
        """Return the counts as lines for people."""
        return [
            ("images", f"{self.images:,} ({self.images - self.unique:,} duplicates by hash)"),
            ("failed", f"{self.failed:,}"),
            ("forwards", f"{self.forwards:,} (already in the store: {self.hits:,})"),
            *fetched_lines(self.fetched, self.fetched_bytes),
            ("trunk", "trained" if self.trained else "UNTRAINED: distances mean little"),
        ]


def fetched_lines(rows: int | None, count: int | None) -> Lines:
    """Return the line on rows that came from a remote store; none without one."""
    if rows is None or count is None:
        return []
    return [("fetched", f"{rows:,} rows, {show_bytes(count)}")]


@dataclass
class Collection:
    """Images with the extractor that makes their rows; `records` are in the order of the search."""

    records: list[ImageRecord]
    features: Features

    @property
    def good(self) -> list[ImageRecord]:
        """The images that can be scored; number k of them is row k of a matrix."""
        return [record for record in self.records if not record.error]

    def contents(self) -> list[bytes]:
        """Content hashes of the good images."""
        return [record.content for record in self.good if record.content]

    def extract(self, contents: Sequence[bytes] | None = None) -> int:
        """Fetch or compute the rows missing from the store; return the number of hits.

        `contents` are those of the images that need a row; None stands for all.
        Images that turn out not to be decodable get their ``error`` in `records`.
        """
        hits = self.features.ensure(self.contents() if contents is None else contents)
        self.mark_failures()
        return hits

    def complete(self, ensure: Callable[[Sequence[bytes]], int] | None = None) -> int:
        """Recompute rows that the store has lost; return the number of hits.

        `ensure` computes what the job needs, such as pooled rows; None computes the rows alone.

        Raises
        ------
        LpipstoreError
            An image cannot be used any more.
        """
        hits = (ensure or self.features.ensure)(self.contents())
        for content, reason in self.features.failures.items():
            raise LpipstoreError(
                f"{len(self.features.failures):,} rows are not in the store, and their images "
                f"cannot be used any more, such as {printable(self.features.names[content])}: "
                f"{reason}"
            )
        return hits

    def mark_failures(self) -> None:
        """Give images that turned out not to be decodable their ``error``."""
        failures = self.features.failures
        self.records = [
            replace(record, error=failures[record.content])
            if not record.error and record.content in failures
            else record
            for record in self.records
        ]

    def row_bytes(self) -> int:
        """Bytes of one row as stored."""
        spec = self.features.extractor.spec
        return spec.length * (4 if spec.dtype == "float32" else 2)

    def counts(self, hits: int) -> Counts:
        """Count the images for a summary; `hits` rows were in the store already."""
        contents = self.contents()
        unique = len(set(contents))
        remote = self.features.remote
        return Counts(
            images=len(contents),
            unique=unique,
            failed=len(self.records) - len(contents),
            forwards=self.features.forwards,
            hits=hits,
            bytes=unique * self.row_bytes(),
            trained=self.features.extractor.backbone.trained,
            fetched=None if remote is None else remote.rows,
            fetched_bytes=None if remote is None else remote.bytes,
        )

    def warn_of_trouble(self, screen: Screen) -> None:
        """Name each image that is left out, and say so when the store took no more rows."""
        broken = [record for record in self.records if record.error]
        for record in broken[:_NAMED]:
            name = printable(record.path) or "a line"
            what = "read in part" if self._holds_good(record.path) else "left out"
            screen.warn(f"{name} is {what}: {record.error}")
        if broken[_NAMED:]:
            screen.warn(f"{len(broken) - _NAMED:,} more are left out; images.parquet names all")
        if self.features.forwards_again:
            screen.warn(
                f"workers were lost: up to {self.features.forwards_again:,} images went through "
                "the trunk once more"
            )
        if self.features.full:
            screen.warn(f"{self.features.full}; the run goes on without keeping more rows")

    def _holds_good(self, path: str) -> bool:
        """Return whether images lie in a file and can be used."""
        within = member_name(path, "")
        return any(r.path.startswith(within) and not r.error for r in self.records)

    def head(self, settings: Settings) -> Head:
        """Load the head that the settings name."""
        backbone = self.features.extractor.backbone
        return load_head(settings.heads, backbone.name, backbone.channels, backbone.version)

    def warn_of_repeats(
        self,
        plan: MatrixPlan,
        down: Sequence[bytes],
        across: Sequence[bytes] | None,
        screen: Screen,
    ) -> None:
        """Say how many forwards a matrix costs whose rows have no room in the store."""
        features = self.features
        absent = {features.key(content) for content in features.lacking(self.contents())}
        if not absent:
            return
        sides = {False: down, True: across or ()}
        forwards = sum(
            features.key(content) in absent
            for slab in plan.loads()
            for content in set(sides[slab.across][slab.rows])
        )
        screen.warn(
            f"{len(absent):,} rows have no room in the store ({show_bytes(self.row_bytes())} each):"
            f" scoring takes {forwards:,} more forwards; a larger {setting('store_limit')} saves "
            "them"
        )

    def pinned(self, run: str, pooled: PooledRows | None = None) -> Pin:
        """Keep this collection's rows from eviction as long as the returned pin is held."""
        contents = self.contents()
        keys = [self.features.key(content) for content in contents]
        self._need_room(len(set(keys)))
        return self.features.store.pin(run, keys + (pooled.keys(contents) if pooled else []))

    def _need_room(self, rows: int) -> None:
        """Raise `LpipstoreError` if workers would need more rows than the store may hold."""
        store, need = self.features.store, rows * self.row_bytes()
        limit = store.limit
        if self.features.crew.elsewhere and limit is not None and need > limit:
            raise LpipstoreError(
                f"with {setting('dask')}, workers read all rows from the store: they take "
                f"{show_bytes(need)}, and its limit is {show_bytes(limit)}; raise "
                f"{setting('store_limit')}, or leave out {setting('dask')}"
            )

    def need_room(self, plan: MatrixPlan) -> MatrixPlan:
        """Return a plan; raises `UsageError` if the device has too little memory for it."""
        features = self.features
        placed(plan, self.row_bytes(), features.room(), features.extractor.device)
        return plan

    def warn_if_reading_is_slow(self, screen: Screen) -> None:
        """Say so if it would have been quicker to compute rows than to read them."""
        read, computed = self.features.row_seconds()
        if read is not None and computed is not None and read > computed:
            screen.warn(
                f"reading a row from the store took {read * 1e3:.1f} ms and computing one "
                f"{computed * 1e3:.1f} ms: a faster disk for {setting('store')} would help"
            )


def make_extractor(size: tuple[int, int], store: FeatureStore, settings: Settings) -> Extractor:
    """Load the backbone that the settings name, for images of `size` (height, width)."""
    check_settings(settings)
    device = choose_device(settings.device)
    backbone = load_backbone(
        settings.backbone,
        version=settings.lpips_version,
        weights=settings.weights,
        taps=settings.tap_names,
        table=store,
    )
    return Extractor(
        backbone,
        Preparation(size, settings.fit, settings.icc),
        row_dtype=settings.row_dtype,
        device=device,
        trunk_dtype=settings.trunk_dtype,
    )


def check_new(name: str, path: Path) -> None:
    """Raise `UsageError` if there is something at `path`: nobody's file is written over."""
    if os.path.lexists(path):
        raise UsageError(
            f"{setting(name, printable(str(path)))} exists: choose another, or remove it if it is "
            "not needed"
        )


def check_choice(name: str, choice: str, choices: Iterable[str]) -> None:
    """Raise `UsageError` with the choices that there are unless `choice` is one of them."""
    if choice not in tuple(choices):
        raise UsageError(f"unknown {setting(name)} {choice!r}: choose {', '.join(choices)}")
