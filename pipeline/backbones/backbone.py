"""A backbone: a frozen CNN, the taps read from it, and their layout in a row.

The LPIPS backbones are torchvision's AlexNet, VGG-16 and SqueezeNet 1.1, read after ReLUs (Zhang et
al., CVPR 2018); any other torchvision classification model can be read at named taps.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from ...cache.errors import UsageError, setting
from .layout import RowLayout
from .trunk import each_tap_of_pixels, run_trunk


@dataclass(frozen=True)
class Outline:
    """What is known of a backbone without its weights.

    Attributes
    ----------
    name : str
        Name of the backbone.
    taps : tuple of str
        Tap names, in row order.
    channels : tuple of int
        Channels per tap.
    signed : bool
        Whether taps can be negative (False for the LPIPS backbones, which are read after ReLUs).
    minimum_side : int
        Smallest image height and width, in pixels.
    shapes : function
        ``shapes(height, width)`` returns the shapes of the taps; use `layout`, which checks.
    """

    name: str
    taps: tuple[str, ...]
    channels: tuple[int, ...]
    signed: bool
    minimum_side: int
    shapes: Callable[[int, int], RowLayout]

    def layout(self, height: int, width: int) -> RowLayout:
        """Return the tap shapes for images of `height` by `width` pixels; computes nothing.

        Raises
        ------
        UsageError
            The images are too small for this backbone.
        """
        if min(height, width) < self.minimum_side:
            raise UsageError(
                f"Images of {width}x{height} pixels (width x height) are too small for the "
                f"backbone {self.name}: its smallest side is {self.minimum_side}. "
                f"Use {setting('size', self.minimum_side)} or more, or another backbone."
            )
        return self.shapes(height, width)


@dataclass(frozen=True)
class BackboneChoice:
    """From what `lpipstore.pipeline.backbones.load.load_choice` loads a backbone in any process.

    Attributes
    ----------
    name, version, taps
        As for `load_backbone`.
    weights : str
        "imagenet", "random" or a file, by its absolute path.
    digest : str
        The `weights_digest` of the backbone.
    """

    name: str
    version: str
    weights: str
    taps: tuple[str, ...]
    digest: str


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen trunk and its taps; created by `load_backbone`.

    Attributes
    ----------
    outline : Outline
        What does not depend on weights.
    version : str
        "0.1" (with the scaling layer) or "0.0" (without).
    weights_digest : str
        xxh3-128 over the loaded tensors that the taps use, in hexadecimal.
    weights_origin : str
        For people: where the weights come from.
    trained : bool
        False for random weights.
    make_trunk : function
        Builds the trunk; use `trunk`, which caches it.
    choice : BackboneChoice or None
        From what another process loads the same backbone; None if weights were given as tensors.
    """

    outline: Outline
    version: str
    weights_digest: str
    weights_origin: str
    trained: bool
    make_trunk: Callable[[], nn.Module]
    choice: BackboneChoice | None = None

    @property
    def name(self) -> str:
        """Return "alex", "vgg", "squeeze" or "torchvision:NAME"."""
        return self.outline.name

    @property
    def taps(self) -> tuple[str, ...]:
        """Return the tap names, in row order."""
        return self.outline.taps

    @property
    def channels(self) -> tuple[int, ...]:
        """Return the channels per tap."""
        return self.outline.channels

    @property
    def signed(self) -> bool:
        """Return whether taps can be negative."""
        return self.outline.signed

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
        """Return the tap shapes for images of `height` by `width` pixels; see `Outline.layout`."""
        return self.outline.layout(height, width)

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
