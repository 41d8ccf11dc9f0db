"""The metric as torch modules that `torch.export` can trace: no checks, no data-dependent steps.

Preprocessing (range of the pixels, scaling layer) is a part of them. Shapes: images [B, 3, H, W].
"""

import torch
from torch import Tensor, nn

from ...cache.errors import UsageError, setting
from ..backbones.backbone import Backbone
from ..backbones.trunk import SCALE, SHIFT
from ..distances.heads import Head, column_weights
from ..distances.maps import spatial_mean, upsample
from ..features.normalise import EPSILON

# Middle and half width of the range of pixels: (x - middle) / spread lies in [-1, 1]
_RANGES = {"signed": (0.0, 1.0), "unit": (0.5, 0.5), "uint8": (127.5, 127.5)}


class _Taps(nn.Module):
    """Pixels of one kind (see `PIXELS` in `card`) to unit-normalised taps, float32 [B, C, h, w]."""

    offset: Tensor
    factor: Tensor

    def __init__(self, backbone: Backbone, pixels: str) -> None:
        super().__init__()
        self.trunk = backbone.trunk
        scaled = backbone.version == "0.1"
        shift, scale = (SHIFT, SCALE) if scaled else ((0.0,) * 3, (1.0,) * 3)
        middle, spread = _RANGES[pixels]
        offset = torch.tensor([middle + spread * value for value in shift])
        factor = torch.tensor([1 / (spread * value) for value in scale])
        self.register_buffer("offset", offset.view(1, 3, 1, 1))
        self.register_buffer("factor", factor.view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        scaled = (images.to(torch.float32) - self.offset) * self.factor
        return [_normalise(tap) for tap in self.trunk(scaled)]


class PairGraph(nn.Module):
    """Distances of the pairs (first[b], second[b]).

    Both batches go through the trunk as one, so that a quantised trunk treats them alike. They must
    have the same shape.

    Parameters
    ----------
    backbone, head
        As loaded; the head may have weights of any sign.
    pixels
        "signed", "unit" or "uint8".
    spatial
        Also return the distance at each pixel.
    """

    def __init__(
        self, backbone: Backbone, head: Head, pixels: str, *, spatial: bool = False
    ) -> None:
        super().__init__()
        self.taps = _Taps(backbone, pixels)
        self.spatial = spatial
        self.weights = nn.ParameterList(
            nn.Parameter(torch.from_numpy(weight.copy()), requires_grad=False)
            for weight in head.weights
        )

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
        """Return the distances, float32 [B], and the map, float32 [B, 1, H, W], if spatial."""
        count = first.shape[0]
        maps = [
            _distance_map(tap[:count], tap[count:], weights)
            for tap, weights in zip(
                self.taps(torch.cat([first, second])), self.weights, strict=True
            )
        ]
        distance = _sum([spatial_mean(each) for each in maps]).flatten()
        if not self.spatial:
            return (distance,)
        size = (first.shape[2], first.shape[3])
        return distance, _sum([upsample(each, size) for each in maps])


class EmbeddingGraph(nn.Module):
    """Rows scaled by the square root of their column weights.

    The squared Euclidean distance of two rows is the LPIPS distance of their images.

    Parameters
    ----------
    size
        (height, width) of the images, on which the length of a row depends.

    Raises
    ------
    UsageError
        The head has negative weights, or the images are too small for the backbone.
    """

    def __init__(self, backbone: Backbone, head: Head, pixels: str, size: tuple[int, int]) -> None:
        super().__init__()
        if not head.nonnegative:
            raise UsageError(
                f"The head {head.name} has negative weights, so no embedding has its distances: "
                f"export {setting('form', 'pair')}, or choose other {setting('heads')}."
            )
        self.taps = _Taps(backbone, pixels)
        layout = backbone.layout(*size)
        roots = torch.from_numpy(column_weights(head, layout)).sqrt()
        self.roots = nn.ParameterList(
            # One weight for each channel: it is the same at all positions of a tap
            nn.Parameter(roots[columns].view(shape)[:, :1, :1].contiguous(), requires_grad=False)
            for columns, shape in zip(layout.slices, layout.taps, strict=True)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the rows, float32 [B, length], taps one after another in C, H, W order."""
        taps = zip(self.taps(images), self.roots, strict=True)
        return (torch.cat([(tap * root).flatten(1) for tap, root in taps], dim=1),)


def _normalise(tap: Tensor) -> Tensor:
    """Compute what `lpipstore.pipeline.features.normalise.unit_normalise` does, without gradients.

    One division at each position instead of one for each channel; where all channels are 0, the
    result is 0 * 1e10.
    """
    norm: Tensor = torch.linalg.vector_norm(tap, dim=1, keepdim=True)
    return tap * (norm + EPSILON).reciprocal()


def _distance_map(first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
    """Compute what `lpipstore.pipeline.distances.maps.distance_map` does, [B, 1, h, w].

    Written for onnxruntime, which would transpose each tap for that function and square by a power.
    """
    difference = first - second
    squared = (difference * difference).flatten(2)
    height, width = first.shape[2:]
    return (weights.view(1, 1, -1) @ squared).view(-1, 1, height, width)


def _sum(parts: list[Tensor]) -> Tensor:
    return sum(parts[1:], start=parts[0])
