"""LPIPS and diversity as metrics of torchmetrics: ``lpipstore.torchmetrics``.

The first one takes the place of torchmetrics' own class of the same name; both take the weights of
the trunk from a file where there is no network.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from ...cache.errors import UsageError, setting
from ...pipeline.backbones.backbone import Backbone
from ...pipeline.backbones.layout import LPIPS_BACKBONES
from ...pipeline.backbones.load import load_backbone
from ...pipeline.backbones.weights import WeightsChoice
from ...pipeline.distances.heads import column_weights, load_head
from ...pipeline.distances.module import LPIPS
from ...pipeline.distances.panels import Columns
from ...pipeline.distances.totals import distance_totals
from ...pipeline.features.extractor import Extractor
from ...pipeline.matrix.summary import mean_and_error
from ..session.settings import parse_bytes, show_bytes

__all__ = ["Diversity", "LearnedPerceptualImagePatchSimilarity"]

Net = Literal["alex", "vgg", "squeeze"]
Reduction = Literal["mean", "sum", "none"]

_REDUCTIONS = ("mean", "sum", "none", None)
_ROW_DTYPE = torch.uint16
_NO_SIZE = -(1 << 31)


class LearnedPerceptualImagePatchSimilarity(Metric):
    """LPIPS of pairs of images, with the arguments and results of torchmetrics' own class.

    Parameters
    ----------
    net_type
        "alex", "vgg" or "squeeze".
    reduction
        "mean" or "sum" over all pairs; "none" or None for the distance of each.
    normalize
        Whether images are in [0, 1] rather than in [-1, 1].
    weights
        Weights of the trunk: "imagenet", "random", a file, or the tensors.
    heads
        A head file to use instead of the stock head, or "none" for the unweighted baseline.
    **kwargs
        Those of `torchmetrics.Metric`.

    Attributes
    ----------
    all_scores
        The state: the distances of each update, float32 [B].

    Raises
    ------
    UsageError
        An argument is invalid; also a ValueError, as torchmetrics raises.
    LpipstoreError
        The weights are missing.

    Examples
    --------
    >>> import torch
    >>> from lpipstore.torchmetrics import LearnedPerceptualImagePatchSimilarity
    >>> metric = LearnedPerceptualImagePatchSimilarity("squeeze", weights="random")
    >>> images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    >>> metric.update(images[:2], images[:2])
    >>> metric.update(images[2:], images[2:])
    >>> metric.compute()
    tensor(0.)
    """

    is_differentiable = True
    higher_is_better = False
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    feature_network = "net"

    all_scores: list[Tensor]

    def __init__(
        self,
        net_type: Net = "alex",
        reduction: Reduction | None = "mean",
        normalize: bool = False,
        *,
        weights: WeightsChoice = "imagenet",
        heads: str | Path | None = None,
        **kwargs: Any,  # noqa: ANN401 - those of torchmetrics
    ) -> None:
        super().__init__(**kwargs)
        _check_choices(net_type, normalize)
        if reduction not in _REDUCTIONS:
            raise UsageError(f"reduction must be one of {_REDUCTIONS}, and {reduction!r} came")
        self.reduction = reduction
        self.normalize = normalize
        self.net = LPIPS(net_type, weights=weights, heads=heads, check_range=False)
        self.add_state("all_scores", default=[], dist_reduce_fx="cat")

    def update(self, img1: Tensor, img2: Tensor) -> None:
        """Score the pairs (img1[b], img2[b]).

        Parameters
        ----------
        img1, img2
            Floating-point images [B, 3, H, W].

        Raises
        ------
        UsageError
            Shape or range is wrong; the message shows what was received.
        """
        for name, images in (("img1", img1), ("img2", img2)):
            _check_images(name, images, normalize=self.normalize)
        self.all_scores.append(self.net(img1, img2, normalize=self.normalize).flatten())

    def compute(self) -> Tensor:
        """Return the distances of all pairs since the last reset, reduced: float32."""
        scores: Tensor = dim_zero_cat(self.all_scores)
        if self.reduction == "mean":
            return scores.mean()
        return scores.sum() if self.reduction == "sum" else scores

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Any = None) -> Any:  # noqa: ANN401 - as torchmetrics has it
        """Draw one value or several; None draws what `compute` returns. See `Metric.plot`."""
        return self._plot(val, ax)


class Diversity(Metric):
    """Mean LPIPS distance over all pairs of the images seen since the last reset.

    Each image goes through the trunk once. Its row is kept (16 bits a number: 64 kB with alex at 64
    pixels, 240 kB with squeeze), and the mean over all pairs takes two passes over the rows. The
    result does not depend on how the images are spread over updates and processes.

    Parameters
    ----------
    net_type
        "alex", "vgg" or "squeeze".
    normalize
        Whether floating-point images are in [0, 1] rather than in [-1, 1].
    weights
        Weights of the trunk: "imagenet", "random", a file, or the tensors.
    heads
        A head file to use instead of the stock head, or "none" for the unweighted baseline.
    memory
        Bytes that the rows of one process may take, such as "4GB".
    **kwargs
        Those of `torchmetrics.Metric`. ``compute_on_cpu=True`` keeps the rows in main memory where
        the trunk runs on a GPU.

    Attributes
    ----------
    rows
        A state: stored rows end to end, as bytes (uint8), which every backend of
        `torch.distributed` can gather.
    size
        A state: (H, W, -H, -W) of the images, int64.

    Raises
    ------
    UsageError
        An argument is invalid; also a ValueError.
    LpipstoreError
        The weights are missing.

    Examples
    --------
    >>> import torch
    >>> from lpipstore.torchmetrics import Diversity
    >>> metric = Diversity("squeeze", normalize=True, weights="random")
    >>> images = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> metric.update(images[:4])
    >>> metric.update(images[4:])
    >>> sorted(metric.compute())
    ['diversity', 'diversity_stderr']
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0

    rows: list[Tensor] | Tensor
    size: Tensor

    def __init__(
        self,
        net_type: Net = "alex",
        normalize: bool = False,
        *,
        weights: WeightsChoice = "imagenet",
        heads: str | Path | None = None,
        memory: str | int = "4GB",
        **kwargs: Any,  # noqa: ANN401 - those of torchmetrics
    ) -> None:
        super().__init__(**kwargs)
        _check_choices(net_type, normalize)
        self.net_type = net_type
        self.normalize = normalize
        self.weights = weights
        self.memory = parse_bytes(str(memory))
        self._backbone: Backbone | None = load_backbone(net_type, weights=weights)
        self._extractor: Extractor | None = None
        self.head = load_head(heads, net_type, self._backbone.channels)
        self.add_state("rows", default=[], dist_reduce_fx="cat")
        self.add_state("size", default=torch.full((4,), _NO_SIZE), dist_reduce_fx="max")

    def __getstate__(self) -> dict[str, Any]:
        """Leave the trunk here: the copy loads it again."""
        return {**super().__getstate__(), "_backbone": None, "_extractor": None}

    def update(self, imgs: Tensor) -> None:
        """Take images: run them through the trunk and keep their rows.

        Parameters
        ----------
        imgs
            [B, 3, H, W], uint8 from 0 to 255 or floating point; all of one size.

        Raises
        ------
        UsageError
            Shape, range or size is wrong, or the rows take more than `memory`.
        """
        if isinstance(imgs, Tensor) and imgs.dtype == torch.uint8 and imgs.ndim == 4:
            pixels = imgs
        else:
            _check_images("imgs", imgs, normalize=self.normalize)
            pixels = (2 * imgs - 1 if self.normalize else imgs).to(torch.float32)
        if pixels.shape[1] != 3 or not len(pixels):
            raise UsageError(f"imgs must have the shape [B, 3, H, W], and {list(imgs.shape)} came")
        height, width = imgs.shape[2:]
        size = torch.tensor([height, width, -height, -width], device=self.size.device)
        if int(self.size[0]) != _NO_SIZE and not torch.equal(self.size, size):
            raise _several_sizes(self.size.tolist(), (height, width))
        extractor = self._extractor_for(height, width)
        self._check_memory(len(imgs), extractor)
        pixels = pixels.detach().permute(0, 2, 3, 1).to(extractor.device)
        kept = self.rows
        assert isinstance(kept, list)  # it is a tensor only while it is synced
        for some in torch.split(pixels, extractor.batch):
            stored = torch.from_numpy(extractor.rows(some)).view(torch.uint8)
            kept.append(stored.flatten().to(self.device))
        self.size = size

    def sync(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Gather the states of all processes; see `Metric.sync`.

        A process that has seen no image takes part with no rows.
        """
        if isinstance(self.rows, list) and not self.rows:
            self.rows.append(torch.empty(0, dtype=torch.uint8, device=self.device))
        super().sync(*args, **kwargs)

    def compute(self) -> dict[str, Tensor]:
        """Return the mean over pairs and its standard error (the jackknife over images).

        Returns
        -------
        dict
            ``diversity`` and ``diversity_stderr``, float32 []; NaN for fewer than two images, and
            for fewer than three.

        Raises
        ------
        UsageError
            The images of several processes differ in size.
        """
        height, width, *negative = self.size.tolist()
        mean = error = None
        if height != _NO_SIZE:
            if [-height, -width] != negative:
                raise _several_sizes((height, width), (-negative[0], -negative[1]))
            extractor = self._extractor_for(height, width)
            stored = dim_zero_cat(self.rows).view(_ROW_DTYPE).view(-1, extractor.layout.length)
            weights = column_weights(self.head, extractor.layout)
            columns = Columns.of(weights, extractor.spec.dtype, stored.device)
            mean, error = mean_and_error(distance_totals(stored, columns).cpu().numpy())
        found = {"diversity": mean, "diversity_stderr": error}
        return {
            name: torch.tensor(math.nan if value is None else value, device=self.device)
            for name, value in found.items()
        }

    def plot(self, val: Any = None, ax: Any = None) -> Any:  # noqa: ANN401 - as torchmetrics has it
        """Draw one value or several; None draws what `compute` returns. See `Metric.plot`."""
        return self._plot(val, ax)

    def _extractor_for(self, height: int, width: int) -> Extractor:
        on_gpu = self.device.type == "cuda"
        device = self.device if on_gpu else torch.device("cpu")
        held = self._extractor
        if held is None or (held.size, held.device) != ((height, width), device):
            if self._backbone is None:
                self._backbone = load_backbone(self.net_type, weights=self.weights)
            held = Extractor(self._backbone, (height, width), device=device)
            self._extractor = held
        return held

    def _check_memory(self, more: int, extractor: Extractor) -> None:
        row = extractor.spec.row_bytes
        need = sum(map(len, self.rows)) + more * row
        if need > self.memory:
            raise UsageError(
                f"{setting('memory')} is too small: the rows of {need // row:,} images take "
                f"{show_bytes(need)}, {show_bytes(row)} each; allow more, or give smaller images"
            )


def _check_choices(net_type: object, normalize: object) -> None:
    if net_type not in LPIPS_BACKBONES:
        raise UsageError(f"net_type must be one of {(*LPIPS_BACKBONES,)}, and {net_type!r} came")
    if not isinstance(normalize, bool):
        raise UsageError(f"normalize must be True or False, and {normalize!r} came")


def _check_images(name: str, images: object, *, normalize: bool) -> None:
    """Raise `UsageError` for what torchmetrics rejects as well: values over 1 pass in [-1, 1]."""
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3:
        came = list(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise UsageError(f"{name} must be a tensor [B, 3, H, W], and {came} came")
    if not images.is_floating_point() or not len(images):
        raise UsageError(
            f"{name} must hold floating-point images, and {len(images)} of {images.dtype} came"
        )
    low, high = torch.stack(images.detach().aminmax()).tolist()
    lowest = 0.0 if normalize else -1.0
    if not low >= lowest or (normalize and not high <= 1):
        raise UsageError(
            f"{name} must lie in {'[0, 1]' if normalize else '[-1, 1]'} with "
            f"normalize={normalize}, and values from {low:.6g} to {high:.6g} came"
        )


def _several_sizes(one: Sequence[int], other: Sequence[int]) -> UsageError:
    return UsageError(
        f"images of {one[0]}×{one[1]} and of {other[0]}×{other[1]} pixels (height × width) came, "
        "and rows of several sizes cannot be compared: scale the images to one size"
    )
