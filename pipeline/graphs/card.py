"""What a file says of itself: which metric it computes, and from what it was made."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from ...cache.errors import UsageError

FORMS = ("pair", "embedding")
PIXELS = ("signed", "unit", "uint8")
"""How a file takes images: float32 in [-1, 1], float32 in [0, 1], or uint8."""

_PREFIX = "lpipstore."


@dataclass(frozen=True)
class ModelCard:
    """The metadata of an exported file.

    Attributes
    ----------
    form
        "pair": two batches of images in, their distances out; "embedding": one batch in, rows out
        whose squared Euclidean distance is the distance of the images.
    spatial
        Whether a file of pairs also returns the map of distances.
    pixels
        One of `PIXELS`.
    size
        "HEIGHTxWIDTH", or "any" where both are dynamic.
    backbone, taps
        Name of the backbone and its taps, with commas.
    weights_digest, head_digest
        xxh3-128 in hexadecimal, as in the manifest of a run.
    trained
        "yes", or "no" for random weights.
    lpips_version, lpipstore_version
        Versions of the metric and of this package.
    quantised
        "no" or "int8".
    """

    form: str
    spatial: str
    pixels: str
    size: str
    backbone: str
    taps: str
    weights_digest: str
    head_digest: str
    trained: str
    lpips_version: str
    lpipstore_version: str
    quantised: str = "no"

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """(height, width) of the images; None where both are dynamic."""
        if self.size == "any":
            return None
        height, width = map(int, self.size.split("x"))
        return height, width

    def entries(self) -> dict[str, str]:
        """Return the metadata as a file keeps them."""
        return {_PREFIX + name: value for name, value in asdict(self).items()}

    @classmethod
    def of_entries(cls, entries: Mapping[str, str], shown: str) -> "ModelCard":
        """Return the card of a file with such metadata.

        Raises
        ------
        UsageError
            lpipstore did not write the file called `shown`.
        """
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if _PREFIX + name not in entries]
        if missing:
            raise UsageError(
                f"{shown} was not exported by this version of lpipstore: its metadata lack "
                f"{', '.join(_PREFIX + name for name in missing[:3])}. Export the model again."
            )
        card = cls(**{name: entries[_PREFIX + name] for name in names})
        known = card.form in FORMS and card.pixels in PIXELS
        if not known or re.fullmatch(r"any|\d{1,5}x\d{1,5}", card.size) is None:
            raise UsageError(
                f"{shown} holds a model that this version of lpipstore does not know: form "
                f"{card.form!r}, pixels {card.pixels!r}, size {card.size!r}. Export it again."
            )
        return card
