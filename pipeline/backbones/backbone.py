"""A backbone: a frozen CNN, the taps read from it, and their layout in a row.

The LPIPS backbones are torchvision's AlexNet, VGG-16 and SqueezeNet 1.1, read after ReLUs (Zhang et
al., CVPR 2018); any other torchvision classification model can be read at named taps.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn

from ...cache.errors import UsageError
from .layout import LPIPS_BACKBONES, RowLayout
from .taps import first_line, tap_shapes
from .trunk import each_tap_of_pixels, run_trunk

PREFIX = "torchvision:"


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen trunk and its taps; created by `load_backbone`.

    Attributes
    ----------
    name : str
        "alex", "vgg", "squeeze" or "torchvision:NAME".
    taps : tuple of str
        Names of the taps, in row order.
    channels : tuple of int
        Channels per tap.
    signed : bool
        Whether taps can be negative (False for the LPIPS backbones, which are read after ReLUs).
    minimum_side : int
        Smallest height and width of an image, in pixels.
    version : str
        "0.1" (with the scaling layer) or "0.0" (without).
    weights_digest : str
        xxh3-128 over the tensors that the taps use, as loaded, in hexadecimal.
    weights_origin : str
        Where the weights come from, for display.
    trained : bool
        False for random weights.
    make_trunk : function
        Builds the trunk; use `trunk`, which caches it.
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
        """The frozen trunk in evaluation mode: maps scaled images to a tuple of taps.

        Built on first use: a run whose rows are all in the store does not need it.
        """
        return self.make_trunk()

    @property
    def device(self) -> torch.device:
        """Device of the trunk."""
        return next(self.trunk.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the trunk."""
        return next(self.trunk.parameters()).dtype

    def layout(self, height: int, width: int) -> RowLayout:
        """Return the tap shapes for images of `height` by `width` pixels; see `layout_of`."""
        trunk = None if self.name in LPIPS_BACKBONES else self.trunk
        return layout_of(self.name, trunk, height, width)

    def taps_of(self, images: Tensor) -> list[Tensor]:
        """Run the trunk, differentiably with respect to the images.

        Parameters
        ----------
        images : Tensor
            RGB of shape (B, 3, H, W) in [-1, 1], of any floating dtype, on any device.

        Returns
        -------
        list of Tensor
            (B, C, H_l, W_l) for each tap, not normalised, on the trunk's device and in its dtype.
        """
        return run_trunk(self.trunk, images, scaled=self.version == "0.1")

    def each_tap(self, pixels: Tensor) -> Iterator[Tensor]:
        """Run the trunk on decoded images; the taps equal those of `taps_of` up to rounding.

        Parameters
        ----------
        pixels : Tensor
            [n, height, width, 3], uint8 from 0 to 255, or floating from -1 to 1.

        Returns
        -------
        iterator of Tensor
            What `taps_of` returns, tap by tap; alex, vgg and squeeze yield each once computed.
        """
        return each_tap_of_pixels(self.trunk, pixels, scaled=self.version == "0.1")

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Backbone":
        """Return a copy on another device or in another floating dtype; `self` is unchanged."""

        def make_trunk() -> nn.Module:
            return copy.deepcopy(self.trunk).to(device=device, dtype=dtype)

        return replace(self, make_trunk=make_trunk)


def layout_of(name: str, trunk: nn.Module | None, height: int, width: int) -> RowLayout:
    """Return the tap shapes for images of `height` by `width` pixels; no tap is computed.

    Parameters
    ----------
    name : str
        The backbone.
    trunk : nn.Module or None
        Its trunk; not needed for alex, vgg and squeeze.

    Raises
    ------
    UsageError
        The images are too small, or the backbone does not take images of this size.
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
