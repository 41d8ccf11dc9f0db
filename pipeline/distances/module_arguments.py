"""The arguments of ``lpips.LPIPS``, in the terms of lpipstore."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from ...cache.errors import UsageError
from ..backbones.weights import WeightsChoice
from .heads import Head, load_head, make_head

REDUCTIONS = ("none", "mean", "sum")


def check_reduction(reduction: str) -> None:
    """Raise `UsageError` for a reduction that there is not."""
    if reduction not in REDUCTIONS:
        raise UsageError(f"There is no reduction {reduction!r}: choose none, mean or sum.")


def check_net(net: object) -> None:
    """Raise `UsageError` for ``LPIPS(True, "alex")``: in ``lpips``, `pretrained` comes first."""
    if isinstance(net, bool):
        raise UsageError(
            f"net must be the name of a backbone, and {net} came. lpips.LPIPS takes pretrained "
            f"as its first argument; here it is a keyword: pretrained={net}."
        )


def trunk_weights(weights: WeightsChoice, *, random: bool) -> WeightsChoice:
    """Return where the trunk's weights come from, given also `pnet_rand`."""
    if not random:
        return weights
    if isinstance(weights, str) and weights in ("imagenet", "random"):
        return "random"
    raise UsageError("pnet_rand=True is a random trunk, and weights names another: give one.")


def chosen_head(
    net: str,
    version: str,
    channels: Sequence[int],
    *,
    lpips: bool,
    heads: str | Path | None,
    model_path: str | Path | None,
    pretrained: bool,
) -> Head:
    """Load or draw the head that the arguments name.

    Raises
    ------
    UsageError
        They name two.
    LpipstoreError
        See `load_head`.
    """
    if heads is not None and model_path is not None:
        raise UsageError("heads and model_path name the same thing, a head file: give one.")
    heads = model_path if heads is None else heads
    if not lpips:
        if heads not in (None, "none"):
            raise UsageError(f"lpips=False is the baseline without a head; heads={heads!r} is one.")
        return load_head("none", net, channels, version)
    if pretrained:
        return load_head(heads, net, channels, version)
    if heads is not None:
        raise UsageError(
            f"pretrained=False is a random head, and {heads!r} names another: give one."
        )
    # As `lpips` leaves them: torch's own start of a 1x1 convolution, which may be negative
    drawn = [nn.Conv2d(count, 1, 1, bias=False).weight.detach().float() for count in channels]
    return make_head([weight.numpy() for weight in drawn], "random")
