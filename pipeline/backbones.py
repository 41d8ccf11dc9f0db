"""Backbones: a frozen CNN, the taps that are read from it, and how they lie in a row.

The backbones of LPIPS are AlexNet, VGG-16 and SqueezeNet 1.1 of torchvision, read after ReLUs
(Zhang et al., CVPR 2018); any other classification model of torchvision can be read at named taps.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import torch
import xxhash
from torch import Tensor, nn

from ..cache.errors import LpipstoreError, UsageError
from ..cache.index import FileIdentity, FileRecord
from .files import FileTable, identify
from .layout import LPIPS_BACKBONES, RowLayout
from .precision import ieee_float32
from .taps import checked_channels, empty_model, extractor, first_line, tap_shapes
from .weights import (
    TrunkWeights,
    WeightsChoice,
    WeightsFile,
    find_weights,
    load_weights,
    names_in_torchvision,
)

# Shift and scale of the scaling layer on RGB in [-1, 1]: ImageNet's mean and spread
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
VERSIONS = ("0.1", "0.0")
PREFIX = "torchvision:"


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen trunk and its taps. Made by `load_backbone`.

    Attributes
    ----------
    name : str
        "alex", "vgg", "squeeze" or "torchvision:NAME".
    taps : tuple of str
        Names of the taps, in the order of the row.
    channels : tuple of int
        Channels per tap.
    signed : bool
        Whether taps can be under 0 (False for the three of LPIPS, which are read after ReLUs).
    minimum_side : int
        Smallest height and width of an image, in pixels.
    version : str
        "0.1" (with the scaling layer) or "0.0" (without).
    weights_digest : str
        xxh3-128 over the tensors that the taps use, as they were loaded, in hexadecimal.
    weights_origin : str
        For people: where the weights come from.
    trained : bool
        False for random weights.
    make_trunk : function
        Builds the trunk; use `trunk`, which keeps it.
    """

    name: str
    taps: tuple[str, ...]
    channels: tuple[int, ...]
    signed: bool
    minimum_side: int
    version: str
    weights_digest: str
    weights_origin: str
    trained: bool
    make_trunk: Callable[[], nn.Module]

    @cached_property
    def trunk(self) -> nn.Module:
        """In evaluation mode, without gradients of its own: scaled images in, a tuple of taps out.

        Built when it is first asked for: a run whose rows are all in the store needs none.
        """
        return self.make_trunk()

    @property
    def device(self) -> torch.device:
        """Where the trunk lies."""
        return next(self.trunk.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the trunk computes in."""
        return next(self.trunk.parameters()).dtype

    def layout(self, height: int, width: int) -> RowLayout:
        """Shapes of the taps for images of `height` by `width` pixels; see `layout_of`."""
        trunk = None if self.name in LPIPS_BACKBONES else self.trunk
        return layout_of(self.name, trunk, height, width)

    def taps_of(self, images: Tensor) -> list[Tensor]:
        """Run the trunk, differentiably in the images.

        Parameters
        ----------
        images : Tensor
            RGB of shape (B, 3, H, W) in [-1, 1], of any floating dtype, on any device.

        Returns
        -------
        list of Tensor
            Per tap (B, C, H_l, W_l), not normalised, on the device and in the dtype of the trunk.
        """
        return run_trunk(self.trunk, images, scaled=self.version == "0.1")

    def each_tap(self, pixels: Tensor) -> Iterator[Tensor]:
        """Run the trunk on decoded images; the numbers are those of `taps_of` up to rounding.

        Parameters
        ----------
        pixels : Tensor
            [n, height, width, 3], uint8 from 0 to 255, or floating from -1 to 1.

        Returns
        -------
        iterator of Tensor
            What `taps_of` returns, one by one: those of alex, vgg and squeeze as they are computed.
        """
        return each_tap_of_pixels(self.trunk, pixels, scaled=self.version == "0.1")

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Backbone":
        """Return a copy on another device or in another floating dtype; this one stays as it is."""

        def make_trunk() -> nn.Module:
            return copy.deepcopy(self.trunk).to(device=device, dtype=dtype)

        return replace(self, make_trunk=make_trunk)


def load_backbone(
    name: str,
    *,
    version: str = "0.1",
    weights: WeightsChoice = "imagenet",
    taps: Sequence[str] = (),
    table: FileTable | None = None,
) -> Backbone:
    """Build a trunk up to its last tap and load its weights, in float32 on the CPU.

    Parameters
    ----------
    name : str
        "alex", "vgg", "squeeze", or "torchvision:NAME" for a classification model of torchvision.
    version : str
        "0.1" (with the scaling layer) or, for the three of LPIPS only, "0.0" (without).
    weights : str, Path or Mapping
        See `lpipstore.pipeline.weights.load_weights`.
    taps : sequence of str
        For "torchvision:NAME": names of the layers to read, such as "layer1"; they must give
        tensors of shape (B, C, H, W).
    table : FileTable, optional
        Remembers the digest of a weights file, so that the next call reads neither the file nor
        torchvision before the trunk is needed (alex, vgg and squeeze only).

    Raises
    ------
    UsageError
        Unknown name, version or tap, or weights that do not fit.
    LpipstoreError
        The weights cannot be had.
    """
    check_backbone(name, version, taps)
    if name in LPIPS_BACKBONES:
        return _load_lpips(name, version, weights, table)
    return _load_torchvision(name, weights, tuple(taps))


def check_backbone(name: str, version: str, taps: Sequence[str]) -> None:
    """Raise `UsageError` for a name, version or taps that `load_backbone` cannot mean."""
    if version not in VERSIONS:
        raise UsageError(f"There is no LPIPS version {version!r}: choose 0.1 or 0.0.")
    if name in LPIPS_BACKBONES:
        if taps:
            raise UsageError(
                f"The backbone {name} has its own taps; name taps with {PREFIX}NAME only."
            )
    elif not name.startswith(PREFIX):
        raise UsageError(
            f"Unknown backbone {name!r}: choose alex, vgg, squeeze, or {PREFIX}NAME with taps, "
            f"such as {PREFIX}resnet50."
        )
    elif version != "0.1":
        raise UsageError(f"LPIPS version {version} is for alex, vgg and squeeze, not {name}.")


def layout_of(name: str, trunk: nn.Module | None, height: int, width: int) -> RowLayout:
    """Shapes of the taps for images of `height` by `width` pixels; nothing is computed.

    Parameters
    ----------
    name : str
        The backbone.
    trunk : nn.Module or None
        Its trunk; alex, vgg and squeeze do without.

    Raises
    ------
    UsageError
        The images are too small for this backbone.
    """
    spec = LPIPS_BACKBONES.get(name)
    least = spec.minimum_side if spec else 1
    if min(height, width) < least:
        raise UsageError(
            f"Images of {width}x{height} pixels (width x height) are too small for the "
            f"backbone {name}: its smallest side is {least}. "
            f"Use --size {least} or more, or another backbone."
        )
    if spec is not None:
        return spec.layout(height, width)
    try:
        shapes = tap_shapes(cast(nn.Module, trunk), height, width)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"The backbone {name} does not take images of {width}x{height} pixels "
            f"(width x height): {first_line(error)}. Try another --size, such as 224."
        ) from error
    return RowLayout(cast(tuple[tuple[int, int, int], ...], shapes))


def run_trunk(trunk: nn.Module, images: Tensor, *, scaled: bool) -> list[Tensor]:
    """Scaling layer (where `scaled`) and trunk: see `Backbone.taps_of`."""
    like = next(trunk.parameters())
    images = images.to(like.device)
    if scaled:
        images = images if images.dtype == torch.float64 else images.float()
        shift = images.new_tensor(SHIFT).view(1, 3, 1, 1)
        scale = images.new_tensor(SCALE).view(1, 3, 1, 1)
        images = (images - shift) / scale
    return list(_forward(trunk, images))


def each_tap_of_pixels(trunk: nn.Module, pixels: Tensor, *, scaled: bool) -> Iterator[Tensor]:
    """Run scaling layer (where `scaled`) and trunk on images as decoders give them.

    Parameters
    ----------
    pixels : Tensor
        [n, height, width, 3], uint8 from 0 to 255, or floating from -1 to 1.
    """
    pixels = pixels.to(next(trunk.parameters()).device)
    middle, spread = (127.5, 127.5) if pixels.dtype == torch.uint8 else (0.0, 1.0)
    shift, scale = (SHIFT, SCALE) if scaled else ((0.0,) * 3, (1.0,) * 3)
    count, height, width, _ = pixels.shape
    # Whole lines of pixels: a vector of three channels would be too short for vector units
    offset = torch.tensor([middle + spread * x for x in shift], device=pixels.device).repeat(width)
    factor = torch.tensor([1 / (spread * x) for x in scale], device=pixels.device).repeat(width)
    lines = pixels.reshape(count * height, 3 * width)
    lines = (lines.to(torch.float32) - offset).mul_(factor)
    return _forward(trunk, lines.view(count, height, width, 3).permute(0, 3, 1, 2))


def _forward(trunk: nn.Module, images: Tensor) -> Iterator[Tensor]:
    """Run the trunk in `channels_last`: in NCHW, max-pooling and convolutions take up to 3 times.

    Measured on CPUs, for alex, vgg and squeeze.
    """
    like = next(trunk.parameters())
    with ieee_float32():  # TF32 would move distances by 1e-3 of their value
        images = images.to(like.dtype).contiguous(memory_format=torch.channels_last)
        yield from trunk.each_tap(images) if isinstance(trunk, _SlicedFeatures) else trunk(images)


class _SlicedFeatures(nn.Module):
    """The layers of torchvision's ``features`` up to the last tap, under the same names."""

    def __init__(self, features: nn.Sequential, stops: Sequence[int]) -> None:
        super().__init__()
        self.features = features[: stops[-1] + 1]
        self.stops = frozenset(stops)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.each_tap(images))

    def each_tap(self, images: Tensor) -> Iterator[Tensor]:
        """Yield each tap before the next one is computed, so that it can be used and forgotten."""
        for index, layer in enumerate(self.features):
            images = layer(images)
            if index in self.stops:
                yield images


def _load_lpips(
    name: str, version: str, weights: WeightsChoice, table: FileTable | None
) -> Backbone:
    spec = LPIPS_BACKBONES[name]
    found = find_weights(
        spec.torchvision_name, weights, official=spec.hub_file, longer_names=spec.longer_names
    )

    def load() -> tuple[nn.Module, TrunkWeights]:
        from torchvision.models import get_model

        # On the meta device VGG's 400 MB classifier costs nothing
        with torch.device("meta"):
            model = get_model(spec.torchvision_name, weights=None)
        trunk = _SlicedFeatures(model.features, spec.stops)
        loaded = load_weights(
            spec.torchvision_name,
            weights,
            found=found,
            expected=_wanted(trunk),
            backbone=name,
            member="IMAGENET1K_V1",
        )
        _fill(trunk, loaded)
        return trunk, loaded

    def make(
        digest: str, origin: str, trained: bool, make_trunk: Callable[[], nn.Module]
    ) -> Backbone:
        return Backbone(
            name=name,
            taps=tuple(f"features.{stop}" for stop in spec.stops),
            channels=spec.channels,
            signed=False,
            minimum_side=spec.minimum_side,
            version=version,
            weights_digest=digest,
            weights_origin=origin,
            trained=trained,
            make_trunk=make_trunk,
        )

    known = _recall_digest(table, found, name)
    if found is not None and known is not None:

        def load_again() -> nn.Module:
            trunk, loaded = load()
            if _digest(loaded) != known:
                raise LpipstoreError(f"{found.path} changed during the run; run again")
            return trunk

        return make(known, found.origin, True, load_again)
    before = _identity(table, found)
    trunk, loaded = load()
    digest = _digest(loaded)
    # Who replaces the file meanwhile must not have its digest taken for that of the new file
    if table is not None and before is not None and _identity(table, found) == before:
        table.remember_files([(before, FileRecord(bytes.fromhex(digest), _note(name)))])
    return make(digest, loaded.origin, loaded.trained, lambda: trunk)


def _load_torchvision(name: str, weights: WeightsChoice, taps: tuple[str, ...]) -> Backbone:
    model_name = name.removeprefix(PREFIX)
    trunk = extractor(empty_model(model_name), name, taps)
    channels = checked_channels(trunk, name, taps)
    official, longer_names = names_in_torchvision(model_name)
    loaded = load_weights(
        model_name,
        weights,
        found=find_weights(model_name, weights, official=official, longer_names=longer_names),
        expected=_wanted(trunk),
        backbone=name,
    )
    _fill(trunk, loaded)

    return Backbone(
        name=name,
        taps=taps,
        channels=channels,
        signed=True,
        minimum_side=1,
        version="0.1",
        weights_digest=_digest(loaded),
        weights_origin=loaded.origin,
        trained=loaded.trained,
        make_trunk=lambda: trunk,
    )


def _recall_digest(table: FileTable | None, found: WeightsFile | None, name: str) -> str | None:
    """The digest of the tensors that backbone `name` takes from a file, if the table knows it."""
    identity = _identity(table, found)
    if table is None or identity is None:
        return None
    (record,) = table.recall_files([identity])
    return record.content.hex() if record is not None and record.note == _note(name) else None


def _identity(table: FileTable | None, found: WeightsFile | None) -> FileIdentity | None:
    """What tells a weights file from its other versions; None where nothing is remembered."""
    if table is None or found is None or not found.path.is_file():
        return None
    return identify(found.path)


def _note(name: str) -> str:
    return f"trunk of {name}"


def _wanted(trunk: nn.Module) -> dict[str, Tensor]:
    """Tensors that decide the taps; a counter of batches, which older files lack, does not."""
    return {
        name: tensor
        for name, tensor in trunk.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def _fill(trunk: nn.Module, weights: TrunkWeights) -> None:
    """Give the weights to a trunk on the meta device, and freeze it."""
    counters = {
        name: torch.zeros(tensor.shape, dtype=tensor.dtype)
        for name, tensor in trunk.state_dict().items()
        if name not in weights.state
    }
    trunk.load_state_dict({**weights.state, **counters}, strict=True, assign=True)
    trunk.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _digest(weights: TrunkWeights) -> str:
    """xxh3-128 over name, dtype, shape and bytes of each tensor, in the order of the names."""
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(weights.state.items()):
        digest.update(f"{name};{tensor.dtype};{tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
