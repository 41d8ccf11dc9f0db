"""LPIPS as a torch module: two batches of images in, differentiable distances out."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, cast, overload

import torch
from torch import Tensor, nn

from ...cache.errors import UsageError
from ..backbones.load import family_of, load_backbone
from ..backbones.trunk import run_trunk
from ..backbones.weights import WeightsChoice
from ..features.normalise import unit_normalise
from .heads import Head, load_head, make_head
from .maps import distance_map, spatial_mean, upsample

# Tolerate the rounding of 2 * x - 1 and the like
_RANGE_SLACK = 1e-5
_LOOKS_NORMALIZED = (
    "No value of either batch is under 0, so the images look as if they were in [0, 1], and LPIPS "
    "expects [-1, 1]: call the metric with normalize=True, or scale them by 2 * images - 1. "
    "check_range=False switches this warning off."
)
_TOGETHER = 1 << 20  # up to this many values, both batches go through the trunk together


class LPIPS(nn.Module):
    """Learned perceptual image patch similarity of two batches of images.

    Returns the same distances as ``lpips.LPIPS`` (Zhang et al., CVPR 2018). For many pairs of the
    same images, `lpipstore.distance_matrix` is orders of magnitude faster.

    Trunk and head are frozen: only the images receive gradients, and an optimiser over
    ``metric.parameters()`` changes nothing. To train the head, set ``requires_grad_(True)`` on
    ``metric.head_weights``. The trunk stays in evaluation mode, even after ``train()``.

    Parameters
    ----------
    net : str
        "alex", "vgg", "squeeze", or "torchvision:NAME" with `taps`.
    version : str
        "0.1", or "0.0" without the scaling layer, with the heads of that version.
    lpips : bool
        If False, every channel has weight 1 (the baseline).
    spatial : bool
        If True, return a distance for each pixel instead of one per pair.
    weights : str, Path or Mapping
        Weights of the trunk: "imagenet", "random", a file, or the tensors.
    heads : str or Path, optional
        A head file to use instead of the stock head, or "none" for the baseline.
    taps : sequence of str
        Layers to read, for "torchvision:NAME" only.
    check_range : bool
        Reject values outside the range. Switch it off if training produces such values, or to
        avoid waiting for the GPU at each call.

    Raises
    ------
    UsageError
        An argument has an unknown value, or the arguments do not fit together.
    LpipstoreError
        The weights or the stock head are missing, or the stock head was changed.

    Examples
    --------
    >>> import torch
    >>> from lpipstore import LPIPS
    >>> metric = LPIPS(net="squeeze", weights="random")
    >>> images = torch.zeros(2, 3, 64, 64)
    >>> metric(images, images).flatten().tolist()
    [0.0, 0.0]
    """

    def __init__(
        self,
        net: str = "alex",
        version: str = "0.1",
        lpips: bool = True,
        spatial: bool = False,
        *,
        weights: WeightsChoice = "imagenet",
        heads: str | Path | None = None,
        taps: Sequence[str] = (),
        check_range: bool = True,
    ) -> None:
        super().__init__()
        if not lpips and heads not in (None, "none"):
            raise UsageError(f"lpips=False is the baseline without a head; heads={heads!r} is one.")
        backbone = load_backbone(net, version=version, weights=weights, taps=taps)
        head = load_head(heads if lpips else "none", net, backbone.channels, version)
        self.net = net
        self.taps = backbone.taps
        self.version = version
        self.lpips = lpips
        self.spatial = spatial
        self.check_range = check_range
        self.weights_origin = backbone.weights_origin
        self.trained = backbone.trained
        self._warned_of_range = False
        self._good_sizes: set[tuple[int, int]] = set()
        self._head_name = head.name
        self.trunk = backbone.trunk
        self.head_weights = nn.ParameterList(
            nn.Parameter(torch.from_numpy(weight.copy()), requires_grad=False)
            for weight in head.weights
        )

    def train(self, mode: bool = True) -> "LPIPS":
        """Set the mode of the module; the trunk stays in evaluation mode."""
        super().train(mode)
        self.trunk.eval()
        return self

    def head(self) -> Head:
        """Return the current head, for `lpipstore.pipeline.distances.heads.save_head`."""
        weights = [weight.detach().float().cpu().numpy() for weight in self.head_weights]
        return make_head(weights, self._head_name)

    @overload
    def forward(
        self,
        in0: Tensor,
        in1: Tensor,
        retPerLayer: Literal[False] = False,  # noqa: N803 - the name that users of lpips pass
        normalize: bool = False,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        in0: Tensor,
        in1: Tensor,
        retPerLayer: Literal[True],  # noqa: N803
        normalize: bool = False,
    ) -> tuple[Tensor, list[Tensor]]: ...

    @overload
    def forward(
        self,
        in0: Tensor,
        in1: Tensor,
        retPerLayer: bool,  # noqa: N803
        normalize: bool = False,
    ) -> Tensor | tuple[Tensor, list[Tensor]]: ...

    def forward(
        self,
        in0: Tensor,
        in1: Tensor,
        retPerLayer: bool = False,  # noqa: N803
        normalize: bool = False,
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Compute the distances of the pairs (in0[b], in1[b]).

        Parameters
        ----------
        in0, in1 : Tensor
            RGB images of shape (B, 3, H, W), or grey ones of shape (B, 1, H, W), floating, in
            [-1, 1]. A batch of one broadcasts against the other batch.
        retPerLayer : bool
            Also return the contribution of each tap; contributions add up to the distance.
        normalize : bool
            If True, the images are in [0, 1].

        Returns
        -------
        Tensor or (Tensor, list of Tensor)
            float32 of shape (B, 1, 1, 1), or (B, 1, H, W) when spatial.

        Raises
        ------
        UsageError
            Shape, dtype or range is wrong; the message shows what was received.

        Warns
        -----
        UserWarning
            Issued once, if neither batch has a negative value and `normalize` is False: the images
            are probably in [0, 1], which gives distances that are too small. Part of `check_range`.
        """
        self._check(in0, in1, normalize=normalize)
        in0, in1 = in0.expand(-1, 3, -1, -1), in1.expand(-1, 3, -1, -1)
        if normalize:
            in0, in1 = 2 * in0 - 1, 2 * in1 - 1
        layers = [
            self._layer(first, second, weights, (in0.shape[2], in0.shape[3]))
            for (first, second), weights in zip(
                self._pairs_of_taps(in0, in1), self.head_weights, strict=True
            )
        ]
        value = sum(layers[1:], start=layers[0])
        return (value, layers) if retPerLayer else value

    def extra_repr(self) -> str:
        """Return the settings that ``print(metric)`` shows."""
        return (
            f"net={self.net!r}, version={self.version!r}, lpips={self.lpips}, "
            f"spatial={self.spatial}, weights={self.weights_origin!r}"
        )

    def _pairs_of_taps(self, in0: Tensor, in1: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the taps of both batches, run through the trunk together if that is faster.

        The batches are run separately if only one of them needs gradients (the other's would be
        computed in vain), if their dtypes differ, or if they are large (activations would leave the
        caches).
        """
        scaled = self.version == "0.1"
        differ = torch.is_grad_enabled() and in0.requires_grad != in1.requires_grad
        if differ or in0.dtype != in1.dtype or in0.numel() + in1.numel() > _TOGETHER:
            sides = (run_trunk(self.trunk, images, scaled=scaled) for images in (in0, in1))
            yield from zip(*sides, strict=True)
            return
        for tap in run_trunk(self.trunk, torch.cat([in0, in1]), scaled=scaled):
            yield tap[: len(in0)], tap[len(in0) :]

    def _layer(
        self, first: Tensor, second: Tensor, weights: Tensor, size: tuple[int, int]
    ) -> Tensor:
        distances = distance_map(unit_normalise(first), unit_normalise(second), weights)
        return upsample(distances, size) if self.spatial else spatial_mean(distances)

    def _check(self, in0: Tensor, in1: Tensor, *, normalize: bool) -> None:
        for name, images in (("in0", in0), ("in1", in1)):
            _check_kind(name, images)
        if in0.shape[2:] != in1.shape[2:] or not _batches_meet(in0, in1):
            raise UsageError(
                f"Both batches must have the same shape, or one of them a batch of 1: "
                f"in0 is {tuple(in0.shape)}, in1 is {tuple(in1.shape)}."
            )
        size = (in0.shape[2], in0.shape[3])
        if size not in self._good_sizes:
            family_of(self.net).outline(self.net, self.taps).layout(*size)
            self._good_sizes.add(size)
        if self.check_range:
            lows = [
                _check_range(name, images, normalize=normalize)
                for name, images in (("in0", in0), ("in1", in1))
            ]
            if min(lows) >= 0 and not normalize and not self._warned_of_range:
                self._warned_of_range = True
                warnings.warn(_LOOKS_NORMALIZED, stacklevel=3)


def _batches_meet(in0: Tensor, in1: Tensor) -> bool:
    return in0.shape[0] == in1.shape[0] or 1 in (in0.shape[0], in1.shape[0])


def _check_kind(name: str, images: object) -> None:
    if not isinstance(images, Tensor):
        raise UsageError(f"{name} must be a torch.Tensor, and a {type(images).__name__} came.")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.shape[0] == 0:
        advice = ""
        if images.ndim == 3:
            advice = " One image needs images[None]."
        elif images.ndim == 4 and images.shape[3] == 3:
            advice = " Channels come second: images.permute(0, 3, 1, 2)."
        raise UsageError(
            f"{name} must have the shape (B, 3, H, W) or (B, 1, H, W), and {tuple(images.shape)} "
            f"came.{advice}"
        )
    if not images.is_floating_point():
        raise UsageError(
            f"{name} must be floating, in [-1, 1], and {images.dtype} came. For values 0 to 255: "
            "images.float() / 127.5 - 1."
        )


def _check_range(name: str, images: Tensor, *, normalize: bool) -> float:
    """Raise `UsageError` for values outside the range; return the lowest value."""
    lowest = 0.0 if normalize else -1.0
    low, high = cast(tuple[float, float], torch.stack(images.detach().aminmax()).tolist())
    if low >= lowest - _RANGE_SLACK and high <= 1 + _RANGE_SLACK:
        return low
    advice = "divide by 127.5 and subtract 1" if not normalize else "divide by 255"
    hint = f" For values 0 to 255, {advice}." if high > 2 else ""
    hint = " Without normalize=True the range is [-1, 1]." if normalize and low < 0 else hint
    raise UsageError(
        f"{name} must lie in [{lowest:.0f}, 1]{' with normalize=True' if normalize else ''}, "
        f"and values from {low:.6g} to {high:.6g} came.{hint} "
        "check_range=False switches this check off."
    )
