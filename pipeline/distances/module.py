"""LPIPS as a torch module: two batches of images in, differentiable distances out."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, overload

import torch
from torch import Tensor, nn

from ..backbones.load import load_backbone
from ..backbones.small_maps import prepare_small_maps
from ..backbones.trunk import ScalingLayer, each_tap, recorded_taps
from ..backbones.weights import WeightsChoice
from ..common.eager import computes_now
from .fused import tap_distances
from .heads import Head, make_head
from .maps import spatial_mean, upsample
from .masks import by_area, weighted_mean
from .module_arguments import check_net, check_reduction, chosen_head, trunk_weights
from .module_checks import (
    check_batches,
    check_mask,
    check_range,
    check_size,
    check_weights,
    warn_of_range,
)

_TOGETHER = 1 << 20  # up to this many values, both batches go through the trunk together
_DROPOUT = 0.5  # of lpips


class LPIPS(nn.Module):
    """Learned perceptual image patch similarity of two batches of images.

    Returns the same distances as ``lpips.LPIPS`` (Zhang et al., CVPR 2018). For many pairs of the
    same images, `lpipstore.distance_matrix` is orders of magnitude faster.

    Trunk and head are frozen unless asked for: only the images receive gradients, and an optimiser
    over ``metric.parameters()`` changes nothing. The trunk stays in evaluation mode, even after
    ``train()``.

    `torch.compile` takes the module in one graph, `torch.export` and ``torch.onnx.export`` with
    dynamic batch, height and width, from 48 pixels (the two images share their dimensions). torch
    2.8 exports pooling layers, hence this module, for one height and width and any batch.
    Distances are computed in float32, whatever autocast or the dtype of the trunk are. Convolutions
    of a float32 trunk are, too, except that in a compiled or exported module torch's switches for
    TF32 decide.

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
        Reject values outside the range, which costs a pass over the images. Values are looked at
        in eager mode and on the CPU only: never on an accelerator, where it would wait for the
        device, nor under `torch.compile`, `torch.export`, ``torch.func`` and with fake tensors.
        Switch it off if training produces values outside the range.
    reduction : str
        "none" keeps the distance of each pair; "mean" and "sum" reduce all to one number, as
        torch's losses do.
    pretrained : bool
        If False, the head is random (torch's global seed decides), to be trained.
    pnet_rand : bool
        If True, the same as ``weights="random"``.
    pnet_tune : bool
        If True, the trunk receives gradients.
    use_dropout : bool
        Whether half of the squared differences are left out in training mode; acts only with
        ``eval_mode=False``.
    model_path : str or Path, optional
        The same as `heads`.
    eval_mode : bool
        If False, the module is there to be trained: the head receives gradients, and the module
        starts in training mode. If True, ``train()`` does not change the distances (in ``lpips``
        it switches on dropout).
    verbose : bool
        Accepted for ``lpips``, and ignored: nothing is printed.

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
        reduction: Literal["none", "mean", "sum"] = "none",
        pretrained: bool = True,
        pnet_rand: bool = False,
        pnet_tune: bool = False,
        use_dropout: bool = True,
        model_path: str | Path | None = None,
        eval_mode: bool = True,
        verbose: bool = False,
    ) -> None:
        super().__init__()
        check_net(net)
        check_reduction(reduction)
        weights = trunk_weights(weights, random=pnet_rand)
        backbone = load_backbone(net, version=version, weights=weights, taps=taps)
        head = chosen_head(
            net,
            version,
            backbone.channels,
            lpips=lpips,
            heads=heads,
            model_path=model_path,
            pretrained=pretrained,
        )
        self.net = net
        self.taps = backbone.taps
        self.version = version
        self.lpips = lpips
        self.spatial = spatial
        self.check_range = check_range
        self.reduction = reduction
        self.weights_origin = backbone.weights_origin
        self.trained = backbone.trained
        self.dropout = _DROPOUT if use_dropout and lpips and not eval_mode else 0.0
        self._warned_of_range = False
        self._head_name = head.name
        self.scaling = ScalingLayer()
        self.trunk = backbone.trunk.requires_grad_(pnet_tune)
        if net == "alex":  # not faster for the others
            prepare_small_maps(self.trunk)
        self.head_weights = nn.ParameterList(
            nn.Parameter(torch.from_numpy(weight.copy()), requires_grad=not eval_mode and lpips)
            for weight in head.weights
        )
        self.train(not eval_mode)

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
        mask: Tensor | None = None,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        in0: Tensor,
        in1: Tensor,
        retPerLayer: Literal[True],  # noqa: N803
        normalize: bool = False,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]: ...

    @overload
    def forward(
        self,
        in0: Tensor,
        in1: Tensor,
        retPerLayer: bool,  # noqa: N803
        normalize: bool = False,
        mask: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, list[Tensor]]: ...

    def forward(
        self,
        in0: Tensor,
        in1: Tensor,
        retPerLayer: bool = False,  # noqa: N803
        normalize: bool = False,
        mask: Tensor | None = None,
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
        mask : Tensor, optional
            A finite weight of 0 or more for each pixel, of shape (B or 1, 1, H, W), of any real
            dtype or bool. It is averaged over the area of each position of a tap; the distance is
            the weighted mean over the positions, and 0 (with gradients of 0) if all weights are.
            Pixels of weight 0 still reach a distance through the receptive fields of their
            neighbours. With `spatial`, the map is multiplied by the mask instead.

        Returns
        -------
        Tensor or (Tensor, list of Tensor)
            float32 of shape (B, 1, 1, 1), or (B, 1, H, W) when spatial; of shape () if the module
            has a `reduction`.

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
        check_batches(in0, in1)
        if mask is not None:
            check_mask(mask, in0, in1)
            mask = mask if mask.dtype == torch.float64 else mask.float()
        if computes_now(in0, in1):
            self._check_numbers(in0, in1, mask, normalize=normalize)
        size = (in0.shape[2], in0.shape[3])
        in0, in1 = in0.expand(-1, 3, -1, -1), in1.expand(-1, 3, -1, -1)
        if normalize:
            in0, in1 = 2 * in0 - 1, 2 * in1 - 1
        dropout = self.dropout if self.training else 0.0
        # By their numbers: torch 2.8 compiles no loop over a ParameterList
        heads = [self.head_weights[number] for number in range(len(self.head_weights))]
        layers = [
            self._contribution(tap_distances(*sides, weights, dropout), size, mask)
            for sides, weights in zip(self._pairs_of_taps(in0, in1), heads, strict=True)
        ]
        value = sum(layers[1:], start=layers[0])
        return (value, layers) if retPerLayer else value

    def extra_repr(self) -> str:
        """Return the settings that ``print(metric)`` shows."""
        return (
            f"net={self.net!r}, version={self.version!r}, lpips={self.lpips}, "
            f"spatial={self.spatial}, weights={self.weights_origin!r}"
        )

    def _pairs_of_taps(self, in0: Tensor, in1: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
        """Return the taps of both batches, run through the trunk together if that is faster.

        The batches are run separately if only one of them needs gradients (the other's would be
        computed in vain), if their dtypes differ, or if they are large (activations would leave the
        caches). A compiled or exported module, which is for many sizes, does not ask for the size.
        In eager mode each pair is there before the next tap is computed, and can be released.
        """
        now = computes_now(in0, in1)
        run = partial(each_tap, as_rows=False) if now else recorded_taps
        differ = torch.is_grad_enabled() and in0.requires_grad != in1.requires_grad
        large = now and in0.numel() + in1.numel() > _TOGETHER
        if differ or in0.dtype != in1.dtype or large:
            sides = [run(self.trunk, self._scaled(images)) for images in (in0, in1)]
            return zip(*sides, strict=True)
        counts = [in0.shape[0], in1.shape[0]]
        together = run(self.trunk, self._scaled(torch.cat([in0, in1])))
        # Not by slices: the gradient of each would be filled up with zeros, and the two added
        pairs = (
            (first, second) for first, second in (tap.split_with_sizes(counts) for tap in together)
        )
        return pairs if now else list(pairs)

    def _scaled(self, images: Tensor) -> Tensor:
        images = images.to(next(self.trunk.parameters()).device)
        scaled: Tensor = self.scaling(images) if self.version == "0.1" else images
        return scaled

    def _contribution(
        self, distances: Tensor, size: tuple[int, int], mask: Tensor | None
    ) -> Tensor:
        """Turn a tap's distance map into its part of the result."""
        mask = None if mask is None else mask.to(distances)
        if self.spatial:
            distances = upsample(distances, size)
            distances = distances if mask is None else distances * mask
        elif mask is None:
            distances = spatial_mean(distances)
        else:
            place = (distances.shape[2], distances.shape[3])
            distances = weighted_mean(distances, by_area(mask, place))
        if self.reduction == "none":
            return distances
        return distances.mean() if self.reduction == "mean" else distances.sum()

    def _check_numbers(
        self, in0: Tensor, in1: Tensor, mask: Tensor | None, *, normalize: bool
    ) -> None:
        """Check the size of the images, and on the CPU their values and those of the mask."""
        check_size(self.net, self.taps, in0.shape[2], in0.shape[3])
        if not self.check_range:
            return
        if in0.device.type == "cpu" and in1.device.type == "cpu":
            looks_normalized = check_range(in0, in1, normalize=normalize)
            if looks_normalized and not self._warned_of_range:
                self._warned_of_range = True
                warn_of_range()
        if mask is not None and mask.device.type == "cpu" and computes_now(mask):
            check_weights(mask)
