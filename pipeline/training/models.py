"""Models trained on judgements: a head on pair statistics, a trunk before it, a judge after it."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..backbones.trunk import run_trunk
from ..distances.heads import Head, make_head
from ..features.normalise import unit_normalise

LOSSES = ("bce", "rank")
_MIDDLE = 32  # hidden channels of the ranking network
_RATIO_FLOOR = 0.1  # keeps ratios of small distances finite, as in the reference


class LogisticJudge(nn.Module):
    """A judge who votes p1 with odds exp((d0 - d1) / temperature); the temperature is learned."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(float(temperature)).log())

    def forward(self, d0: Tensor, d1: Tensor) -> Tensor:
        """Return the logit of a vote for p1: [B] and [B] -> [B]."""
        return (d0 - d1) * torch.exp(-self.log_temperature)


class RankingNetwork(nn.Module):
    """The small network that LPIPS was trained with (Zhang et al. 2018, appendix).

    Its inputs are d0, d1, d0 - d1, d0 / (d1 + 0.1) and d1 / (d0 + 0.1); two hidden layers of 32.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(5, _MIDDLE),
            nn.LeakyReLU(0.2),
            nn.Linear(_MIDDLE, _MIDDLE),
            nn.LeakyReLU(0.2),
            nn.Linear(_MIDDLE, 1),
        )

    def forward(self, d0: Tensor, d1: Tensor) -> Tensor:
        """Return the logit of a vote for p1: [B] and [B] -> [B]."""
        ratios = d0 / (d1 + _RATIO_FLOOR), d1 / (d0 + _RATIO_FLOOR)
        inputs = torch.stack([d0, d1, d0 - d1, *ratios], dim=1)
        return cast(Tensor, self.layers(inputs)).squeeze(1)


def make_judge(loss: str, temperature: float, seed: int) -> nn.Module:
    """Return the judge of a loss, one of `LOSSES`; that of ``rank`` is initialised from `seed`."""
    if loss == "bce":
        return LogisticJudge(temperature)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RankingNetwork()


class LinearHead(nn.Module):
    """A head with one weight per channel of all taps, on pair statistics: d = s · w.

    `dropout` is the share of channels dropped per judgement in training, the same channels for both
    of its pairs.
    """

    def __init__(self, head: Head, dropout: float = 0.0) -> None:
        super().__init__()
        self.channels = head.channels
        self.weights = nn.Parameter(torch.cat([torch.from_numpy(w.copy()) for w in head.weights]))
        self.dropout = dropout

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distances of two pairs per judgement: [B, channels] each -> [B] each."""
        if self.dropout and self.training:
            kept = functional.dropout(torch.ones_like(first), self.dropout)
            first, second = first * kept, second * kept
        return first @ self.weights, second @ self.weights

    @torch.no_grad()
    def project(self) -> None:
        """Clamp negative weights to 0, so that distances stay non-negative."""
        self.weights.clamp_(min=0)

    def head(self, name: str) -> Head:
        """Return the current weights as a `Head`."""
        parts = torch.split(self.weights.detach().cpu(), list(self.channels))
        return make_head([part.numpy() for part in parts], name)


class TripletStatistics(nn.Module):
    """Compute the pair statistics of triplets from their images, with a trunk.

    Parameters
    ----------
    trunk
        As `Backbone.trunk`; it stays in evaluation mode.
    scaled
        Whether the scaling layer comes first (LPIPS version 0.1).
    tune
        Whether the trunk is trained, too.
    precision
        Dtype that the trunk computes in; weights and everything after it stay as they are.
    """

    def __init__(
        self,
        trunk: nn.Module,
        *,
        scaled: bool,
        tune: bool,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.trunk = trunk.requires_grad_(tune)
        self.scaled = scaled
        self.precision = precision

    def train(self, mode: bool = True) -> "TripletStatistics":
        """Set the mode of the module; the trunk stays in evaluation mode."""
        super().train(mode)
        self.trunk.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return statistics of (ref, p0) and (ref, p1): [B, 3, 3, H, W] in [-1, 1] -> [B, C] each.

        The second dimension of the images is ref, p0, p1; C is the number of channels of all taps.
        """
        count = len(images)
        mixed = (
            nullcontext()
            if self.precision == torch.float32
            else torch.autocast(images.device.type, self.precision)
        )
        with mixed:
            taps = run_trunk(self.trunk, images.flatten(0, 1), scaled=self.scaled)
        sides: tuple[list[Tensor], list[Tensor]] = ([], [])
        for tap in taps:
            normal = unit_normalise(tap)
            normal = normal.view(count, 3, *normal.shape[1:])
            for place, side in enumerate(sides, start=1):
                side.append((normal[:, 0] - normal[:, place]).square().mean((2, 3)))
        first, second = (torch.cat(side, dim=1) for side in sides)
        return first, second


class HeadModel(nn.Module):
    """All that is trained: a head, the judge that only training needs, and optionally a trunk.

    `trunk` None means that inputs are known statistics.
    """

    def __init__(
        self, head: LinearHead, judge: nn.Module, trunk: TripletStatistics | None = None
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.judge = judge

    def distances(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the distances of p0 and of p1 to the reference, [B] each."""
        first, second = inputs if self.trunk is None else self.trunk(*inputs)
        d0, d1 = self.head(first, second)
        return d0, d1

    def forward(self, inputs: Sequence[Tensor], judge: Tensor, weight: Tensor) -> Tensor:
        """Return the loss of a batch: the weighted *sum* of the binary cross-entropies."""
        return self.loss(*self.distances(inputs), judge, weight)

    def loss(self, d0: Tensor, d1: Tensor, judge: Tensor, weight: Tensor) -> Tensor:
        """Return the loss of given distances; see `forward`."""
        return functional.binary_cross_entropy_with_logits(
            self.judge(d0, d1), judge, weight=weight, reduction="sum"
        )
