"""Run a trunk: scaling layer, `channels_last`, one tap after another."""

from collections.abc import Iterator, Sequence

import torch
import xxhash
from torch import Tensor, nn

from ..common.precision import ieee_float32
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
    return list(_forward(trunk, images))


def each_tap_of_pixels(trunk: nn.Module, pixels: Tensor, *, scaled: bool) -> Iterator[Tensor]:
    """Apply the scaling layer (if `scaled`) and the trunk to decoded images.

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
    """Run the trunk in `channels_last`.

    In NCHW, max-pooling and convolutions take up to 3 times as long (measured on CPUs, for alex,
    vgg and squeeze).
    """
    like = next(trunk.parameters())
    with ieee_float32():  # TF32 would change distances by 1e-3 of their value
        images = images.to(like.dtype).contiguous(memory_format=torch.channels_last)
        yield from trunk.each_tap(images) if isinstance(trunk, SlicedFeatures) else trunk(images)


class SlicedFeatures(nn.Module):
    """The layers of torchvision's ``features`` up to the last tap, under the same names."""

    def __init__(self, features: nn.Sequential, stops: Sequence[int]) -> None:
        super().__init__()
        self.features = features[: stops[-1] + 1]
        self.stops = frozenset(stops)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return all taps."""
        return tuple(self.each_tap(images))

    def each_tap(self, images: Tensor) -> Iterator[Tensor]:
        """Yield each tap before the next one is computed, so that it can be used and released."""
        for index, layer in enumerate(self.features):
            images = layer(images)
            if index in self.stops:
                yield images


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
