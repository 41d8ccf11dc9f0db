"""Tell people what happens to images whose size, shape or colours are not those of the run."""

from collections import Counter
from collections.abc import Sequence

from ...cache.errors import setting
from ...pipeline.common.text import printable
from ...pipeline.images.preparation import Preparation
from ...pipeline.images.survey import ImageRecord
from .screen import Screen

_ENLARGED = 2.0  # times as long a side: what is added is blur
_RESHAPED = 1.5  # times the aspect ratio
_ROUNDED = 0.01  # 3:2 photographs of whole pixels, such as 500×333, are not beyond 3:2


def warn_of_shapes(records: Sequence[ImageRecord], how: Preparation, screen: Screen) -> None:
    """Count the images that are enlarged, reshaped or of other colours, each in one line."""
    good = [record for record in records if not record.error and record.width and record.height]
    height, width = how.size
    enlarged = [r for r in good if min(width / r.width, height / r.height) > _ENLARGED]
    if enlarged:
        screen.warn(
            f"{_of(enlarged, good)} enlarged more than {_ENLARGED:g} times to {width}×{height}, "
            f"such as {_example(enlarged[0])}: a smaller {setting('size')} compares them as they "
            "are"
        )
    reshaped = [r for r in good if _stretch(r, how) > _RESHAPED + _ROUNDED]
    if how.fit == "stretch" and reshaped:
        screen.warn(
            f"{_of(reshaped, good)} stretched more than {_RESHAPED:g} times in one direction, such "
            f"as {_example(reshaped[0])}: {setting('fit', 'crop')} or {setting('fit', 'pad')} "
            "keeps the aspect ratio"
        )
    profiles = Counter(record.profile for record in good if record.profile)
    if how.icc == "ignore" and profiles:
        ((name, _),) = profiles.most_common(1)
        count = profiles.total()
        images = "image has" if len(good) == 1 else "images has" if count == 1 else "images have"
        screen.say(
            f"{count:,} of {len(good):,} {images} a colour profile other than sRGB, such as "
            f"{printable(name)}: it is ignored; {setting('icc', 'convert')} takes it into account"
        )


def _stretch(record: ImageRecord, how: Preparation) -> float:
    """Return by how much an aspect ratio changes, as a factor of at least 1."""
    height, width = how.size
    ratio = (record.width / record.height) / (width / height)
    return max(ratio, 1 / ratio)


def _of(some: Sequence[ImageRecord], every: Sequence[ImageRecord]) -> str:
    images = "image" if len(every) == 1 else "images"
    return f"{len(some):,} of {len(every):,} {images} {'is' if len(some) == 1 else 'are'}"


def _example(record: ImageRecord) -> str:
    return f"{printable(record.path)} ({record.width}×{record.height})"
