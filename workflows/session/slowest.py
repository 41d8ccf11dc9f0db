"""Which part of an extraction is the slowest, and what would make it faster."""

from collections.abc import Mapping

from ...cache.errors import setting
from ...pipeline.images.loader import available_cores, cores
from .settings import Settings

_PARTS = {
    "decode": "decoding",
    "copy": "copying to the device",
    "forward": "the trunk",
    "write": "writing to the store",
}
_LEAST_SECONDS = 1.0  # before that, what only happens once is the slowest


def show_slowest(seconds: Mapping[str, float], settings: Settings) -> str | None:
    """Return the slowest part of an extraction as people read it, and an option that helps.

    Parameters
    ----------
    seconds
        What was waited for, by stage: that for decoding, those of
        `lpipstore.pipeline.features.flow.compute_rows`, and perhaps others. Parts overlap, and the
        slowest is the one that is waited for most.
    settings
        Of the extraction.

    Returns
    -------
    str or None
        None if it is too early to say, or workers of a cluster did it.
    """
    spent = {stage: seconds.get(stage, 0.0) for stage in _PARTS}
    if settings.dask is not None or sum(spent.values()) < _LEAST_SECONDS:
        return None
    stage = max(_PARTS, key=lambda stage: spent[stage])
    remedy = _remedy(stage, settings)
    return f"{_PARTS[stage]} is the slowest part" + (f": {remedy}" if remedy else "")


def _remedy(stage: str, settings: Settings) -> str | None:
    threads = cores() if settings.workers is None else settings.workers
    if stage == "decode" and threads < available_cores():
        return setting("workers", available_cores())
    if stage == "write":
        return f"a faster disk for {setting('store')}"
    return None
