"""From pixels to rows: one backbone, one image size, batches of constant size."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError, UsageError, setting
from ...cache.keys import PoolSpec
from ..backbones.backbone import Backbone, BackboneChoice
from ..backbones.layout import RowLayout
from ..backbones.load import load_choice
from ..common.device import devices_of, here
from ..common.plane import Ask
from ..common.precision import exact_arithmetic
from ..images.preparation import Preparation
from .far import weights_from
from .rows import ROW_VERSION, VERSION_ENTRY, RowWriter

TRUNK_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
# Bytes of a batch's rows in float32; the trunk's own activations take a few times as much. On a CPU
# larger batches are slower: with 32 images of 224 px instead of 8, SqueezeNet takes twice as long
# per image, because the C library returns memory to the system after every layer.
_BATCH_BYTES = {"cpu": 64 << 20, "cuda": 256 << 20}
_BATCH_LIMITS = (4, 32)
_BITS = {"uint16": np.int16, "int16": np.int16, "float32": np.float32}  # the dtype that torch gets


@dataclass(frozen=True)
class ExtractorSpec:
    """An extractor as plain data, from which any process can load it; see `Extractor.portable`."""

    backbone: BackboneChoice
    preparation: Preparation
    row_dtype: str
    device: str
    trunk_dtype: str
    batch: int


class Extractor:
    """Compute rows from pixels, for one backbone, one image size and one row dtype.

    Every batch that goes through the trunk has the same number of images (the last one is padded
    with black images). The trunk's kernels are chosen by the shape of the batch, and a row must not
    depend on which images share its batch.

    Parameters
    ----------
    backbone
        From `load_backbone`.
    size
        (height, width) of the images in pixels, or a `Preparation` that says more.
    row_dtype
        ``"uint16"``: fixed point, 65535 stands for 1 (for backbones with signed taps int16, 32767
        stands for 1); ``"float32"``: as computed.
    device
        Device of the trunk.
    trunk_dtype
        Precision of the trunk; taps are always normalised in float32.
    batch
        Images per batch; None chooses by the length of a row.
    """

    def __init__(
        self,
        backbone: Backbone,
        size: tuple[int, int] | Preparation,
        *,
        row_dtype: str = "uint16",
        device: torch.device | str = "cpu",
        trunk_dtype: str = "float32",
        batch: int | None = None,
    ) -> None:
        self.preparation = size if isinstance(size, Preparation) else Preparation(size)
        self.size = self.preparation.size
        self.layout: RowLayout = backbone.layout(*self.size)
        self.device = torch.device(device)
        self.backbone = backbone.to(device=self.device, dtype=TRUNK_DTYPES[trunk_dtype])
        if row_dtype == "uint16" and backbone.signed:
            row_dtype = "int16"
        fitting = _BATCH_BYTES[self.device.type] // (4 * self.layout.length)
        least, most = _BATCH_LIMITS
        self.batch = batch or max(least, min(most, fitting))
        self._writer = RowWriter(row_dtype, self.device)
        self._busy = Lock()
        self._trunk_dtype = trunk_dtype
        height, width = self.size
        self.spec = PoolSpec(
            name=f"{backbone.name.replace(':', '-')}-{height}x{width}",
            length=self.layout.length,
            dtype=row_dtype,
            recipe={
                "backbone": backbone.name,
                "taps": ",".join(backbone.taps),
                "weights": backbone.weights_digest,
                "lpips_version": backbone.version,
                "trunk_dtype": trunk_dtype,
                **self.preparation.recipe(),
                "range": "-1..1",
                VERSION_ENTRY: ROW_VERSION,
            },
        )

    @exact_arithmetic()
    @torch.inference_mode()
    def rows(
        self, pixels: torch.Tensor, room: NDArray[np.generic] | None = None
    ) -> NDArray[np.generic]:
        """Compute the rows of up to `batch` images.

        Parameters
        ----------
        pixels
            [n, height, width, 3], uint8 from 0 to 255, or float32 from -1 to 1.
        room
            [at least n, length], of the row dtype: where to write the rows. None allocates memory;
            first touching it costs a tenth of the time.

        Returns
        -------
        ndarray of shape (n, length), of the row dtype

        Raises
        ------
        LpipstoreError
            The trunk produced a value that is not finite (half precision overflows).
        """
        count = len(pixels)
        if count < self.batch:
            filled = pixels.new_zeros((self.batch, *pixels.shape[1:]))
            filled[:count] = pixels
            pixels = filled
        if room is None:
            room = np.empty((count, self.layout.length), self.spec.dtype)
        kept = torch.from_numpy(room[:count].view(_BITS[self.spec.dtype]))
        rows = kept if self.device.type == "cpu" else torch.empty_like(kept, device=self.device)
        with self._busy:  # the writer serves one thread at a time
            taps = zip(self.backbone.each_tap(pixels), self.layout.slices, strict=True)
            norms = [self._writer.write(tap[:count], rows[:, columns]) for tap, columns in taps]
        if not bool(torch.isfinite(torch.stack(norms)).all()):
            raise LpipstoreError(
                f"{self.backbone.name} produced values that are not finite; "
                f"if it runs in half precision, use {setting('trunk_dtype', 'float32')}"
            )
        if rows is not kept:
            kept.copy_(rows)
        return room[:count]

    @exact_arithmetic()
    def taps(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Return the taps of a whole batch of images as the trunk gives them; see `rows`."""
        with self._busy:
            return [tap.clone() for tap in self.backbone.each_tap(pixels)]

    def portable(self) -> ExtractorSpec:
        """Return the spec from which another process loads this extractor.

        Raises
        ------
        UsageError
            The weights of the backbone were given as tensors.
        """
        choice = self.backbone.choice
        if choice is None:
            raise UsageError(
                f"{setting('weights')} as tensors stay in their process: save them to a file"
            )
        dtype = "uint16" if self.spec.dtype == "int16" else self.spec.dtype
        device, trunk_dtype = str(self.device), self._trunk_dtype
        return ExtractorSpec(choice, self.preparation, dtype, device, trunk_dtype, self.batch)

    @contextmanager
    def memory_errors(self) -> Iterator[None]:
        """Turn out-of-memory errors into a message that suggests a remedy."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "allocate" not in str(error):
                raise
            height, width = self.size
            raise LpipstoreError(
                f"not enough memory for {self.batch} images of {width}×{height} pixels through "
                f"{self.backbone.name}: choose a smaller {setting('size')} or another "
                f"{setting('backbone')}"
            ) from error


@lru_cache(maxsize=2)
def extractor_of(spec: ExtractorSpec, ask: Ask | None = None) -> Extractor:
    """Return the extractor of a spec; a process keeps the two that it used last.

    With `ask`, weights are those of the coordinator.

    Raises
    ------
    UsageError, LpipstoreError
        The weights of the spec are not there, or others.
    """
    drawn = spec.backbone.weights == "random"
    state = None if ask is None or drawn else weights_from(ask, spec.backbone)
    return Extractor(
        load_choice(spec.backbone, state=state),
        spec.preparation,
        row_dtype=spec.row_dtype,
        device=here(spec.device),
        trunk_dtype=spec.trunk_dtype,
        batch=spec.batch,
    )


def extract_rows(
    extractor: Extractor | ExtractorSpec,
    pixels: torch.Tensor | NDArray[np.generic],
    room: NDArray[np.generic] | None = None,
) -> NDArray[np.generic]:
    """Compute the rows of a batch of decoded images; see `Extractor.rows`.

    In another process, `extractor` is a spec: it is loaded there, and kept for the next batch.

    Raises
    ------
    UsageError, LpipstoreError
        As for `Extractor.rows`; or the weights of the spec are not there, or others.
    """
    if isinstance(extractor, ExtractorSpec):
        extractor = extractor_of(extractor)
    return extractor.rows(torch.as_tensor(pixels), room)


def choose_device(choice: str) -> torch.device:
    """Return the device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` stands for.

    Of several GPUs (``cuda:0,1``, ``cuda:all``) it is the first.

    Raises
    ------
    UsageError
        The name is unknown, or there is no such GPU.
    """
    names = devices_of(choice)
    if len(names) > 1:
        first, *_ = map(choose_device, names)
        return first
    choice = names[0]
    if choice == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(choice)
    except RuntimeError as error:
        raise UsageError(f"unknown device {choice!r}; use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"unknown device {choice!r}; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {choice!r} is not there: torch sees {torch.cuda.device_count()} GPU(s); "
            f"use {setting('device', 'cpu')}"
        )
    return device
