"""Row layouts, and the constants of the three LPIPS backbones."""

import math
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class RowLayout:
    """Where each tap lies in a flat row: taps one after another, each in C, H, W order.

    Attributes
    ----------
    taps : tuple of (int, int, int)
        Channels, height and width of each tap.
    """

    taps: tuple[tuple[int, int, int], ...]

    @property
    def length(self) -> int:
        """Number of values in a row."""
        return sum(math.prod(tap) for tap in self.taps)

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each tap."""
        return tuple(channels for channels, _, _ in self.taps)

    @property
    def slices(self) -> tuple[slice, ...]:
        """The part of a row that each tap occupies."""
        ends = list(accumulate(math.prod(tap) for tap in self.taps))
        return tuple(slice(start, end) for start, end in zip([0, *ends], ends, strict=False))


@dataclass(frozen=True)
class Window:
    """A convolution or pool that shrinks an image (`ceil`: a partial last window counts)."""

    kernel: int
    stride: int
    padding: int = 0
    ceil: bool = False

    def __call__(self, side: int) -> int:
        """Return the output side for an input side, as torch's Conv2d and MaxPool2d define it."""
        room = side + 2 * self.padding - self.kernel
        if self.ceil:
            outputs = -(-room // self.stride) + 1
            # The last window must begin inside the image
            return outputs - ((outputs - 1) * self.stride >= side + self.padding)
        return room // self.stride + 1


@dataclass(frozen=True)
class LpipsBackbone:
    """One of the three LPIPS backbones, cut from the ``features`` of a torchvision model.

    Attributes
    ----------
    torchvision_name, hub_file : str
        Model name, and file name of its ImageNet weights (IMAGENET1K_V1) in the torch.hub cache.
    stops : tuple of int
        Indices in ``features`` whose outputs are the taps.
    channels : tuple of int
        Channels per tap.
    windows : tuple of Window or None
        The layer that shrinks the image before each tap, or None; all other layers keep its size.
    minimum_side : int
        Smallest height and width of an image, in pixels.
    longer_names : tuple of str
        Other models whose names start with this model's name.
    """

    torchvision_name: str
    hub_file: str
    stops: tuple[int, ...]
    channels: tuple[int, ...]
    windows: tuple[Window | None, ...]
    minimum_side: int
    longer_names: tuple[str, ...] = ()

    def layout(self, height: int, width: int) -> RowLayout:
        """Return tap shapes for images of `height` by `width` pixels (`minimum_side` or more)."""
        taps = []
        for channels, window in zip(self.channels, self.windows, strict=True):
            if window is not None:
                height, width = window(height), window(width)
            taps.append((channels, height, width))
        return RowLayout(tuple(taps))


_POOL2 = Window(2, 2)
_POOL3 = Window(3, 2)
_POOL3_CEIL = Window(3, 2, ceil=True)

LPIPS_BACKBONES = {
    "alex": LpipsBackbone(
        torchvision_name="alexnet",
        hub_file="alexnet-owt-7be5be79.pth",
        stops=(1, 4, 7, 9, 11),
        channels=(64, 192, 384, 256, 256),
        windows=(Window(11, 4, 2), _POOL3, _POOL3, None, None),
        minimum_side=31,
    ),
    "vgg": LpipsBackbone(
        torchvision_name="vgg16",
        hub_file="vgg16-397923af.pth",
        stops=(3, 8, 15, 22, 29),
        channels=(64, 128, 256, 512, 512),
        windows=(None, _POOL2, _POOL2, _POOL2, _POOL2),
        minimum_side=16,
        longer_names=("vgg16_bn",),
    ),
    "squeeze": LpipsBackbone(
        torchvision_name="squeezenet1_1",
        hub_file="squeezenet1_1-b8a52dc0.pth",
        stops=(1, 4, 7, 9, 10, 11, 12),
        channels=(64, 128, 256, 384, 384, 512, 512),
        windows=(Window(3, 2), _POOL3_CEIL, _POOL3_CEIL, _POOL3_CEIL, None, None, None),
        minimum_side=17,
    ),
}
