"""From two taps to their distance map in one step, with a backward pass of few steps.

Between convolutions, gradients cost what memory traffic costs. Recorded operation by operation, the
backward pass of normalising and comparing a tap writes about ten tensors of its size; here it is
three.
"""

from typing import Any

import torch
from torch import Tensor

from ..common.eager import computes_now
from ..common.precision import without_autocast
from ..features.normalise import EPSILON, divisor, length, unit_normalise, widen
from .maps import distance_map, weighted_sum


def tap_distances(first: Tensor, second: Tensor, weights: Tensor, dropout: float = 0.0) -> Tensor:
    """Normalise two taps and compute their distance map; differentiable, any number of times.

    Parameters
    ----------
    first, second : Tensor
        Activations of shape (B, C, H, W), of any floating dtype; a batch of one broadcasts.
    weights : Tensor
        One weight per channel, of shape (C,), of any sign.
    dropout : float
        Probability with which a squared difference is left out (the others grow accordingly).

    Returns
    -------
    Tensor
        (B, 1, H, W), as `distance_map` of the two results of `unit_normalise`; in float32, also
        under autocast, or in float64 if a tap is.
    """
    with without_autocast(first.device.type):
        asked = torch.is_grad_enabled() and (first.requires_grad or second.requires_grad)
        if asked and not dropout and computes_now(first, second, weights):
            distances: Tensor = _TapDistances.apply(first, second, weights)
            return distances
        return _by_operations(first, second, weights, dropout)


def _by_operations(first: Tensor, second: Tensor, weights: Tensor, dropout: float = 0.0) -> Tensor:
    return distance_map(unit_normalise(first), unit_normalise(second), weights, dropout)


class _TapDistances(torch.autograd.Function):
    """The formula of `_by_operations`, with its first derivative by hand."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, weights: Tensor) -> Tensor:  # noqa: ANN401 - torch's
        sides = [widen(first), widen(second)]
        norms = [length(side) for side in sides]
        normal = [side / divisor(norm) for side, norm in zip(sides, norms, strict=True)]
        difference = normal[0] - normal[1]
        kept = [
            tensor if wanted else None
            for tensors in (normal, norms)
            for tensor, wanted in zip(tensors, ctx.needs_input_grad, strict=False)
        ]
        del sides, normal
        ctx.save_for_backward(first, second, weights, difference, *kept)
        return weighted_sum(difference.square(), weights)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        first, second, weights, difference, *kept = ctx.saved_tensors
        if torch.is_grad_enabled():  # with create_graph: the gradient has a gradient, too
            return _derived_twice((first, second, weights), ctx.needs_input_grad, upstream)
        by_weights = None
        if ctx.needs_input_grad[2]:
            by_weights = torch.einsum("bchw,bchw,bihw->c", difference, difference, upstream)
            by_weights = by_weights.to(weights.dtype)
        # In place from here on: fresh pages cost more than the arithmetic
        flow = difference * (2 * weights.to(difference.dtype)).view(1, -1, 1, 1)
        flow.mul_(upstream)
        gradients: list[Tensor | None] = [None, None]
        for side, tap in enumerate((first, second)):
            if ctx.needs_input_grad[side]:
                last = side == 1 or not ctx.needs_input_grad[1]
                signed = flow if last else flow.clone()
                signed = signed.neg_() if side else signed
                gradient = _through_length(signed, kept[side], kept[2 + side], len(tap))
                gradients[side] = gradient.to(tap.dtype)
        return (*gradients, by_weights)


def _through_length(flow: Tensor, normal: Tensor, norm: Tensor, batch: int) -> Tensor:
    """Turn the gradient g by a normalised tap u into that by the tap, in place.

    ``(g - u * <g, u> * (norm + epsilon) / norm) / (norm + epsilon)``, summed over the batch if the
    tap was broadcast.
    """
    if len(flow) != batch:
        flow = flow.sum(dim=0, keepdim=True)
    along = (flow * normal).sum(dim=1, keepdim=True)
    along.mul_(1 + EPSILON / norm.masked_fill(norm == 0, torch.inf))
    return flow.addcmul_(normal, along, value=-1).div_(divisor(norm))


def _derived_twice(
    inputs: tuple[Tensor, Tensor, Tensor], wanted: tuple[bool, ...], upstream: Tensor
) -> tuple[Tensor | None, ...]:
    asked = [tensor for tensor, needed in zip(inputs, wanted, strict=True) if needed]
    with without_autocast(upstream.device.type):
        value = _by_operations(*inputs)
        found = iter(torch.autograd.grad(value, asked, upstream, create_graph=True))
    return tuple(next(found) if needed else None for needed in wanted)
