"""The keyword arguments that the functions of the Python face share."""

import os
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

from typing_extensions import TypeIs

from ...cache.errors import UsageError
from ...cache.store import FeatureStore
from ...pipeline.runs.reopen import Recipe
from ...pipeline.sources.arrays import ValueRange, take_range
from .settings import Settings, parse_size

PathLike: TypeAlias = str | os.PathLike[str]


class OptionsWithoutHead(TypedDict, total=False):
    """What every function takes; what is left out is as at the prompt.

    Attributes
    ----------
    backbone
        "alex", "vgg", "squeeze", or "torchvision:NAME" with `taps`.
    version
        LPIPS version, "0.1" or "0.0".
    weights
        "imagenet", "random" or a file.
    taps
        Layers of a torchvision backbone: names, or text with commas.
    size
        "auto" (the images' own size; of several sizes 224×224), "native", a number of pixels, or
        (height, width), also written "HEIGHTxWIDTH".
    fit
        "stretch", "crop" or "pad": how images of another aspect ratio come to that size.
    icc
        "ignore" or "convert": embedded colour profiles.
    value_range
        (lowest, highest) possible value of floating-point images, such as (0, 1) or (-1, 1).
    image_column
        The column of a table that holds images.
    every
        Frames of a video: "0.5s" or "10f".
    store
        An open `FeatureStore`, or the folder of one; None is the one that the command uses:
        $LPIPSTORE_STORE, otherwise a folder in the user's cache.
    store_limit
        Bytes on disk that the store may take from now on, such as "20GB".
    remote
        URL of a remote store, such as "s3://bucket/rows": rows that the local store lacks are
        fetched from there before anything is computed.
    row_dtype
        "uint16" or "float32": how rows are kept.
    compress, durable, rehash
        As at the prompt.
    trunk_dtype
        "float32", "float16" or "bfloat16".
    memory
        For rows and tiles, such as "4GB".
    device_memory
        Of a GPU for rows and products, such as "16GB"; "auto" takes most of what is free.
    precision
        "exact" or "fast".
    device
        "auto", "cpu", "cuda" or "cuda:N"; "cuda:0,1" or "cuda:all" share the work among GPUs.
    workers
        Threads that decode; None is one for each core, 8 at most.
    dask
        A Dask cluster to compute on: "local:4" starts four processes on this machine, and the
        address of a scheduler or its scheduler file names one that runs.
    progress
        Draw progress on stderr.
    """

    backbone: str
    version: str
    weights: PathLike
    taps: str | Sequence[str]
    size: str | int | tuple[int, int]
    fit: str
    icc: str
    value_range: ValueRange | None
    image_column: str | None
    every: str | None
    store: PathLike | FeatureStore | None
    store_limit: str | int | None
    remote: str | None
    row_dtype: str
    compress: bool
    durable: bool
    rehash: bool
    trunk_dtype: str
    memory: str | int
    device_memory: str | int
    precision: str
    device: str
    workers: int | None
    dask: PathLike | None
    progress: bool


class Options(OptionsWithoutHead, total=False):
    """What functions take that score under one head.

    Attributes
    ----------
    heads
        None (those of the lpips package), "none" (the unweighted baseline), or a file.
    """

    heads: PathLike | None


def is_path(given: object) -> TypeIs[PathLike]:
    """Return whether something is a path rather than images or a list."""
    return isinstance(given, str | os.PathLike)


def distance_of(given: object) -> float | None:
    """Return the keyword `below` as a number of Python, which JSON knows; None stays None.

    Raises
    ------
    UsageError
        It is no number.
    """
    if not isinstance(given, Real | None):
        raise UsageError(f"below takes a distance such as 0.1, not {given!r}")
    return None if given is None else float(given)


def count_of(given: object) -> int | None:
    """Return the keyword `k` as a number of Python, which JSON knows; None stays None.

    Raises
    ------
    UsageError
        It is no whole number from 1 on.
    """
    if not isinstance(given, Integral | None) or (given is not None and int(given) < 1):
        raise UsageError(f"k takes a whole number from 1 on, not {given!r}")
    return None if given is None else int(given)


def settings_of(options: OptionsWithoutHead) -> Settings:
    """Return the settings that keyword arguments stand for.

    Raises
    ------
    TypeError
        There is no such keyword argument.
    UsageError
        `value_range` is not (lowest, highest).
    """
    for name in options.keys() - Options.__annotations__.keys():
        raise TypeError(f"there is no keyword argument {name!r}")
    chosen: dict[str, Any] = {k: v for k, v in options.items() if v is not None}
    chosen.pop("progress", None)
    if "version" in chosen:
        chosen["lpips_version"] = chosen.pop("version")
    if not isinstance(chosen.get("taps", ""), str):
        chosen["taps"] = ",".join(chosen["taps"])
    if "value_range" in chosen:
        low, high = take_range(chosen["value_range"]) or (0.0, 0.0)
        chosen["value_range"] = f"{low!r},{high!r}"
    if isinstance(chosen.get("size"), tuple | list):
        chosen["size"] = "x".join(map(str, chosen["size"]))
    for name in ("heads", "weights", "size", "store_limit", "memory", "device_memory", "dask"):
        if name in chosen:
            chosen[name] = str(chosen[name])
    if "store" in chosen:
        store = chosen["store"]
        chosen["store"] = Path(store.path if isinstance(store, FeatureStore) else store)
    return Settings(**chosen, quiet=True, given=frozenset(chosen))


def need_same(recipe: Recipe, options: OptionsWithoutHead) -> None:
    """Check options that a finished run has already decided.

    Raises
    ------
    UsageError
        One of them is not what the run was made with.
    """
    settings = settings_of(options)
    of_run: dict[str, object] = {
        "backbone": recipe.backbone,
        "lpips_version": recipe.lpips_version,
        "row_dtype": recipe.row_choice,
        "trunk_dtype": recipe.trunk_dtype,
        "precision": recipe.precision,
        "size": recipe.size,
    }
    for name in settings.given & of_run.keys():
        asked = getattr(settings, name)
        same = asked == of_run[name]
        if name == "size":
            size = parse_size(asked)
            same = size is None or f"{size[0]}x{size[1]}" == recipe.size
        if not same:
            raise UsageError(
                f"the run was made with {name.removeprefix('lpips_')} {of_run[name]}, and {asked} "
                "came: leave it out, or score the images anew"
            )
