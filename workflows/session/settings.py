"""What a person can choose, and what the choices mean in bytes, pixels and folders."""

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from ...cache.errors import LpipstoreError, UsageError, setting
from ...pipeline.common.text import printable

if TYPE_CHECKING:
    from ...pipeline.images.survey import ImageRecord
    from ...pipeline.sources.source import SourceOptions

STORE_VARIABLE = "LPIPSTORE_STORE"
CACHE_VARIABLE = "LPIPSTORE_CACHE"
DEFAULT_SIZE = (224, 224)
DEFAULT_LIMIT = 10_000_000_000
SCHEDULER = re.compile(r"(?:tcp|tls|ucx|ws|wss)://\S+")
"""The address of a Dask scheduler."""
_OF_SOURCES = ("value_range", "image_column", "every")


@dataclass(frozen=True)
class Settings:
    """The options that commands share, as typed.

    `given` names those that somebody chose, if only to say what is the default anyway.
    """

    backbone: str = "alex"
    taps: str = ""
    lpips_version: str = "0.1"
    heads: str | None = None
    weights: str = "imagenet"
    size: str = "auto"
    fit: str = "stretch"
    icc: str = "ignore"
    store: Path | None = None
    store_limit: str | None = None
    remote: str | None = None
    row_dtype: str = "uint16"
    compress: bool = False
    durable: bool = False
    rehash: bool = False
    value_range: str | None = None
    image_column: str | None = None
    every: str | None = None
    trunk_dtype: str = "float32"
    memory: str = "4GB"
    device_memory: str = "auto"
    precision: str = "exact"
    device: str = "auto"
    workers: int | None = None
    dask: str | None = None
    dry_run: bool = False
    quiet: bool = False
    given: frozenset[str] = frozenset()

    @property
    def tap_names(self) -> tuple[str, ...]:
        """The layers that `taps` names."""
        return tuple(tap.strip() for tap in self.taps.split(",") if tap.strip())

    def source_choices(self) -> dict[str, str]:
        """The choices that say how sources are read, but for those left open."""
        chosen = {name: getattr(self, name) for name in _OF_SOURCES}
        return {name: value for name, value in chosen.items() if value is not None}


def parse_bytes(text: str) -> int:
    """Parse a size such as ``500MB``, ``20GB``, ``4GiB`` or a plain number, in bytes.

    Raises
    ------
    UsageError
        It is none of those, or not above 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kMGT]?)(i?)B?)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise UsageError(f"{text!r} is no size: write 500MB, 20GB, 4GiB or a number of bytes")
    power = " KMGT".index(match[2].upper() or " ") if match[2] is not None else 0
    count = int(Decimal(match[1]) * (1024 if match[3] else 1000) ** power)
    if count <= 0:
        raise UsageError(f"{text!r} is no size: it must be more than 0")
    return count


def show_bytes(count: int) -> str:
    """Return bytes as people write them: the inverse of `parse_bytes`, to three digits."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"


def parse_size(choice: str) -> tuple[int, int] | None:
    """Parse an image size such as ``224`` or ``240x320``: (height, width), None for auto, native.

    Raises
    ------
    UsageError
        It is none of those.
    """
    if choice in ("auto", "native"):
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", choice)
    if match is None:
        raise UsageError(
            f"unknown {setting('size')} {choice!r}: write auto, native, 224 or 240x320"
        )
    return int(match[1]), int(match[2] or match[1])


def parse_dask(choice: str) -> int | None:
    """Return the number of processes that ``local:N`` starts; None for a scheduler that runs.

    Raises
    ------
    UsageError
        It is neither that, nor an address, nor a scheduler file.
    """
    match = re.fullmatch(r"local:([1-9]\d{0,3})", choice)
    if match is not None:
        return int(match[1])
    if not SCHEDULER.fullmatch(choice) and not os.path.isfile(choice):
        raise UsageError(
            f"unknown {setting('dask')} {printable(choice)!r}: write local:4 for four processes on "
            "this machine, the address of a scheduler such as tcp://10.0.0.1:8786, or the path of "
            "its scheduler file"
        )
    return None


def choose_size(
    choice: str, records: "Sequence[ImageRecord]"
) -> tuple[tuple[int, int], str | None]:
    """Return ((height, width), a line that people should see or None) for the setting ``size``.

    ``auto`` takes the images' own size when all have the same one, otherwise 224×224; ``native``
    insists on one size; ``N`` or ``HEIGHTxWIDTH`` scales all images, aspect ratio not kept.

    Raises
    ------
    UsageError
        The option is written wrong, or is ``native`` and the images have different sizes.
    """
    wanted = parse_size(choice)
    if wanted is not None:
        return wanted, None
    sizes: dict[tuple[int, int], str] = {}
    for record in records:
        sizes.setdefault((record.height, record.width), record.path)
    if len(sizes) == 1:
        return next(iter(sizes)), None
    if choice == "auto":
        height, width = DEFAULT_SIZE
        return DEFAULT_SIZE, (
            f"the images have {len(sizes)} different sizes: all are scaled to {width}×{height} "
            f"(bilinear, antialiased); {setting('size')} chooses another size"
        )
    first, second = list(sizes.items())[:2]
    examples = " and ".join(
        f"{printable(path)} ({width}×{height})" for (height, width), path in (first, second)
    )
    raise UsageError(
        f"{setting('size', 'native')} needs images of one size, but there are {len(sizes)} sizes, "
        f"such as {examples}: choose {setting('size', 'auto')} or a number"
    )


def source_options(settings: Settings) -> "SourceOptions":
    """Return how sources are read.

    Raises
    ------
    UsageError
        A choice is written wrong.
    """
    from ...pipeline.sources.arrays import take_range
    from ...pipeline.sources.formats.video_index import parse_step
    from ...pipeline.sources.source import SourceOptions

    parse_step(settings.every)
    wanted = settings.value_range
    return SourceOptions(
        value_range=None if wanted is None else take_range(wanted.split(",")),
        image_column=settings.image_column,
        every=settings.every,
    )


def store_path(choice: Path | None) -> Path:
    """Return the store's folder: the option, else $LPIPSTORE_STORE, else the user's cache."""
    if choice is not None:
        return choice.expanduser()
    if os.environ.get(STORE_VARIABLE):
        return Path(os.environ[STORE_VARIABLE]).expanduser()
    return cache_folder() / "store"


def cache_folder() -> Path:
    """Return the folder of what can be made or fetched again: $LPIPSTORE_CACHE, else the user's.

    It holds the default store, catalogues of remote stores, and runs on their way to a URL.
    """
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE]).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("lpipstore")


def first_limit(path: Path) -> int:
    """Return the limit of a new store in bytes: 10 GB, or half of the free space.

    The store keeps it from then on, until ``store_limit`` says another.

    Raises
    ------
    LpipstoreError
        The disk is as good as full.
    """
    from ...cache.store import SMALLEST_LIMIT

    folders = (path, *path.absolute().parents)
    existing = next(folder for folder in folders if os.path.exists(folder))  # never raises
    free = shutil.disk_usage(existing).free
    limit = min(DEFAULT_LIMIT, free // 2)
    if limit < SMALLEST_LIMIT:
        raise LpipstoreError(
            f"the disk of the store has {show_bytes(free)} free ({path}): make room, or choose "
            f"another folder ({setting('store')})"
        )
    return limit
