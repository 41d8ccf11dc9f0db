"""Run a trunk: scaling layer, `channels_last`, one tap after another."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import torch
import xxhash
from torch import Tensor, nn
from torch.nn import functional

from ..common.precision import ieee_float32
from .small_maps import gains_in_nchw
from .strided import dense_convolution, gains_if_dense
from .weights import TrunkWeights

# Shift and scale of the scaling layer on RGB in [-1, 1]: ImageNet's mean and standard deviation
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


def run_trunk(trunk: nn.Module, images: Tensor, *, scaled: bool) -> list[Tensor]:
    """Apply the scaling layer (if `scaled`) and the trunk: see `Backbone.taps_of`."""
    like = next(trunk.parameters())
    images = images.to(like.device)
    if scaled:
        images = images if images.dtype == torch.float64 else images.float()
        shift = images.new_tensor(SHIFT).view(1, 3, 1, 1)
        scale = images.new_tensor(SCALE).view(1, 3, 1, 1)
        images = (images - shift) / scale
    return list(each_tap(trunk, images))


def each_tap_of_pixels(trunk: nn.Module, pixels: Tensor, *, scaled: bool) -> Iterator[Tensor]:
    """Apply the scaling layer (if `scaled`) and the trunk to decoded images.

    Parameters
    ----------
    pixels : Tensor
        [n, height, width, 3], uint8 from 0 to 255, or floating from -1 to 1.
    """
    pixels = pixels.to(next(trunk.parameters()).device)
    count, height, width, _ = pixels.shape
    # Whole lines of pixels: a vector of three channels would be too short for vector units
    offset, factor = _scaling(pixels.dtype == torch.uint8, scaled, width, pixels.device)
    lines = pixels.reshape(count * height, 3 * width)
    lines = (lines.to(torch.float32) - offset).mul_(factor)
    return each_tap(trunk, lines.view(count, height, width, 3).permute(0, 3, 1, 2))


@lru_cache(maxsize=8)
def _scaling(
    from_bytes: bool, scaled: bool, width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return what lines of pixels are shifted by and multiplied with.

    Kept, because a copy from pageable memory to a GPU waits until the GPU is idle.
    """
    middle, spread = (127.5, 127.5) if from_bytes else (0.0, 1.0)
    shift, scale = (SHIFT, SCALE) if scaled else ((0.0,) * 3, (1.0,) * 3)
    with torch.inference_mode(mode=False):  # for callers of both kinds
        offset = torch.tensor([middle + spread * x for x in shift], device=device).repeat(width)
        factor = torch.tensor([1 / (spread * x) for x in scale], device=device).repeat(width)
    return offset, factor


def each_tap(trunk: nn.Module, images: Tensor, *, as_rows: bool = True) -> Iterator[Tensor]:
    """Run the trunk on scaled images, in `channels_last`; yield the taps in turn.

    In NCHW, max-pooling and convolutions take up to 3 times as long (measured on CPUs, for alex,
    vgg and squeeze). With `as_rows`, and without gradients, sums run in the order of stored rows,
    to the bit; without it, small maps go the way that `small_maps` describes.
    """
    with ieee_float32():  # TF32 would change distances by 1e-3 of their value
        images = _as_trunk(trunk, images).contiguous(memory_format=torch.channels_last)
        if isinstance(trunk, SlicedFeatures):
            small = not as_rows and images.device.type == "cpu"
            yield from trunk.each_tap(images, dense=_needs_dense(images), small=small)
        else:
            yield from trunk(images)


def recorded_taps(trunk: nn.Module, images: Tensor) -> list[Tensor]:
    """Run the trunk as `each_tap` does, where torch does not compute now (see `computes_now`).

    The switches of torch for TF32 and the like stay as they are: a compiled or exported module
    follows those that hold when it runs.
    """
    images = _as_trunk(trunk, images)
    if not torch._C._functorch.is_batchedtensor(images):  # vmap knows no memory format
        images = images.contiguous(memory_format=torch.channels_last)
    return list(trunk(images))


def _as_trunk(trunk: nn.Module, images: Tensor) -> Tensor:
    return images.to(next(trunk.parameters()).dtype)


def _needs_dense(images: Tensor) -> bool:
    return images.device.type == "cpu" and torch.is_grad_enabled() and images.requires_grad


class ScalingLayer(nn.Module):
    """Subtract ImageNet's mean and divide by its standard deviation, per channel, in float32.

    Float64 images stay in float64. The constants follow the module to its device and keep their
    dtype; they are in no state_dict.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._make(torch.device("cpu"))

    def _make(self, device: torch.device) -> None:
        for name, values in (("shift", SHIFT), ("scale", SCALE)):
            constant = torch.tensor(values, device=device).view(1, 3, 1, 1)
            self.register_buffer(name, constant, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ScalingLayer":
        """Move to the device that `fn` moves tensors to; made anew, constants lose no digits."""
        self._make(fn(self.shift).device)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Scale RGB images in [-1, 1], of shape (B, 3, H, W)."""
        images = images if images.dtype == torch.float64 else images.float()
        return (images - self.shift) / self.scale


class SlicedFeatures(nn.Module):
    """The layers of torchvision's ``features`` up to the last tap, under the same names."""

    def __init__(self, features: nn.Sequential, stops: Sequence[int]) -> None:
        super().__init__()
        self.features = features[: stops[-1] + 1]
        self.stops = frozenset(stops)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return all taps."""
        taps = []
        for index, layer in enumerate(self.features):
            images = _pool_for_all_sizes(layer, images) if _rounds_up(layer) else layer(images)
            if index in self.stops:
                taps.append(images)
        return tuple(taps)

    def each_tap(
        self, images: Tensor, *, dense: bool = False, small: bool = False
    ) -> Iterator[Tensor]:
        """Yield each tap before the next one is computed, so that it can be used and released.

        `dense` runs strided convolutions as `dense_convolution` where that speeds up gradients,
        and `small` runs prepared convolutions of small maps in NCHW.
        """
        for index, layer in enumerate(self.features):
            if small and gains_in_nchw(layer, images):
                images = images.contiguous()
            if dense and gains_if_dense(layer):
                images = dense_convolution(layer, images)
            else:
                images = layer(images)
            if index in self.stops:
                yield images


def _rounds_up(layer: nn.Module) -> bool:
    """Return whether a layer's output size, when exported, would depend on the parity of sides."""
    return isinstance(layer, nn.MaxPool2d) and layer.ceil_mode and torch.compiler.is_exporting()


def _pool_for_all_sizes(layer: nn.Module, images: Tensor) -> Tensor:
    """Apply a max-pool of kernel 3 and stride 2 that rounds up, in a form for all sizes.

    A line of zeros at the end, which no maximum of activations after a ReLU notices, makes rounding
    down the same.
    """
    assert isinstance(layer, nn.MaxPool2d)
    assert (layer.kernel_size, layer.stride, layer.padding) == (3, 2, 0)
    return functional.max_pool2d(functional.pad(images, (0, 1, 0, 1)), 3, 2)


def wanted_tensors(trunk: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that determine the taps: all but batch counters, which old files lack."""
    return {
        name: tensor
        for name, tensor in trunk.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def fill(trunk: nn.Module, weights: TrunkWeights) -> None:
    """Load weights into a trunk on the meta device, and freeze it."""
    counters = {
        name: torch.zeros(tensor.shape, dtype=tensor.dtype)
        for name, tensor in trunk.state_dict().items()
        if name not in weights.state
    }
    trunk.load_state_dict({**weights.state, **counters}, strict=True, assign=True)
    trunk.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def digest_of(weights: TrunkWeights) -> str:
    """Return the xxh3-128 over name, dtype, shape and bytes of each tensor, sorted by name."""
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(weights.state.items()):
        digest.update(f"{name};{tensor.dtype};{tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
