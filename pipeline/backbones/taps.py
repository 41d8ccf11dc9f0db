"""Cut a torchvision model down to named taps, and find tap shapes without computing taps."""

import difflib
from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from ...cache.errors import UsageError, setting


def tap_shapes(trunk: nn.Module, height: int, width: int) -> tuple[tuple[int, ...], ...]:
    """Return the tap shapes for one image, without the batch, by a run on the meta device.

    Raises
    ------
    RuntimeError or AssertionError
        The trunk does not take images of this size.
    """
    tensors = {**dict(trunk.named_parameters()), **dict(trunk.named_buffers())}
    outline = {name: tensor.to("meta") for name, tensor in tensors.items()}
    like = next(iter(outline.values()))
    image = torch.empty((1, 3, height, width), dtype=like.dtype, device="meta")
    with torch.no_grad():
        taps = torch.func.functional_call(trunk, outline, (image,))
    return tuple(tuple(tap.shape[1:]) for tap in taps)


def first_line(error: BaseException) -> str:
    """Return the first line of a torch error message, without the stack trace."""
    return str(error).strip().split("\n", 1)[0].rstrip(".") or type(error).__name__


def empty_model(model_name: str) -> nn.Module:
    """Build a torchvision classification model on the meta device, in evaluation mode.

    Raises
    ------
    UsageError
        torchvision has no model of that name.
    """
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if model_name not in known:
        close = difflib.get_close_matches(model_name, known, n=4, cutoff=0.3)
        raise UsageError(
            f"torchvision has no classification model {model_name!r}"
            f"{'; did you mean ' + ', '.join(close) + '?' if close else '.'}"
        )
    options = {"init_weights": False} if model_name in ("googlenet", "inception_v3") else {}
    try:
        with torch.device("meta"):
            model = torchvision.models.get_model(model_name, weights=None, **options)
    except NotImplementedError:  # RegNet computes its widths with tensors
        with torch.random.fork_rng(devices=[]):
            model = torchvision.models.get_model(model_name, weights=None).to("meta")
    if hasattr(model, "transform_input"):
        model.transform_input = True  # torchvision sets it when it loads weights
    return cast(nn.Module, model.eval())


def extractor(model: nn.Module, name: str, taps: tuple[str, ...]) -> nn.Module:
    """Cut `model` down to the layers that lead to `taps`; the result returns a tuple of taps.

    Raises
    ------
    UsageError
        No tap, a repeated tap, or an unknown tap; the message lists some valid names.
    """
    from torchvision.models.feature_extraction import (
        create_feature_extractor,
        get_graph_node_names,
    )

    nodes = get_graph_node_names(model, suppress_diff_warning=True)[1][1:]
    unknown = [tap for tap in taps if not any(f"{n}.".startswith(f"{tap}.") for n in nodes)]
    if not taps or unknown or len(set(taps)) < len(taps):
        trouble = "names a tap twice" if taps else "needs taps"
        trouble = f"has no tap {', '.join(unknown)}" if unknown else trouble
        raise UsageError(
            f"The backbone {name} {trouble}: name layers with {setting('taps')}, from "
            f"{', '.join(_layer_names(nodes))}."
        )
    cut = create_feature_extractor(model, list(taps), suppress_diff_warning=True)
    graph = cut.eval().graph
    for node in graph.nodes:
        # In-place operations would change a tap after it was taken (tracing already undoes +=)
        if node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
        if node.op == "output":
            node.args = (tuple(node.args[0][tap] for tap in taps),)
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    return torch.fx.GraphModule(model, graph)


def _layer_names(nodes: Sequence[str], most: int = 12) -> list[str]:
    """Return up to `most` names, at the coarsest depth that gives at least six."""
    for depth in (1, 2, 3):
        names = list(dict.fromkeys(".".join(node.split(".")[:depth]) for node in nodes))
        if len(names) >= 6:
            break
    return names[:most] + ["..."] * (len(names) > most)


def checked_channels(trunk: nn.Module, name: str, taps: tuple[str, ...]) -> tuple[int, ...]:
    """Check at two image sizes that every tap is (B, C, H, W); return the channels per tap.

    Raises
    ------
    UsageError
        A tap has another shape, or cannot be computed.
    """
    try:
        shapes = tap_shapes(trunk, 224, 224)
        higher = tap_shapes(trunk, 288, 224) if all(len(s) == 3 for s in shapes) else shapes
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"The backbone {name} cannot be read at {', '.join(taps)}; it has to be convolutional, "
            f"with taps of channels, height and width ({first_line(error)})."
        ) from error
    for tap, shape, other in zip(taps, shapes, higher, strict=True):
        # Channels do not grow with the image; if dimension 1 does, channels come last
        if len(shape) != 3 or shape[0] != other[0]:
            raise UsageError(
                f"The tap {tap} of {name} gives {('B', *shape)} for images of 224x224, not "
                "(B, C, H, W): choose a tap with channels, height and width."
            )
    return tuple(shape[0] for shape in shapes)
