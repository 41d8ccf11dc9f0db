"""Trace a graph with dynamic sizes, and keep the tools that do so quiet."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ...cache.errors import LpipstoreError
from ..backbones.taps import first_line
from .card import ModelCard

# No dimension is 1, nor one that a tap shrinks to 1: it would be taken for a constant
_EXAMPLES = 3
_EXAMPLE_SIZE = (227, 259)
_AXES = {0: "batch", 2: "height", 3: "width"}


def input_names(form: str) -> tuple[str, ...]:
    """Return the names of a file's inputs."""
    return ("first", "second") if form == "pair" else ("images",)


def output_names(card: ModelCard) -> tuple[str, ...]:
    """Return the names of a file's outputs."""
    if card.form == "embedding":
        return ("embedding",)
    return ("distance", "map") if card.spatial == "yes" else ("distance",)


def axis_names(card: ModelCard) -> tuple[dict[int, str], ...]:
    """Return the names of the dynamic axes of each input."""
    axes = _AXES if card.fixed_size is None else {0: _AXES[0]}
    return tuple(dict(axes) for _ in input_names(card.form))


def trace(graph: nn.Module, card: ModelCard) -> ExportedProgram:
    """Trace a graph by `torch.export`: the batch is dynamic, height and width if `card` says so.

    Raises
    ------
    LpipstoreError
        torch cannot trace this trunk.
    """
    height, width = card.fixed_size or _EXAMPLE_SIZE
    axes = dict.fromkeys(axis_names(card)[0], Dim.DYNAMIC)
    inputs = input_names(card.form)
    examples = tuple(_example(card, height, width) for _ in inputs)
    try:
        with quietly(), torch.no_grad():
            return torch.export.export(
                graph.eval(), examples, dynamic_shapes=tuple(dict(axes) for _ in inputs)
            )
    except (RuntimeError, ValueError) as error:
        raise LpipstoreError(
            f"torch cannot export the backbone {card.backbone} with "
            f"{'dynamic' if card.size == 'any' else 'fixed'} height and width: "
            f"{first_line(error)}. Another backbone may do."
        ) from error


def _example(card: ModelCard, height: int, width: int) -> Tensor:
    dtype = torch.uint8 if card.pixels == "uint8" else torch.float32
    return torch.zeros((_EXAMPLES, 3, height, width), dtype=dtype)


@contextmanager
def quietly() -> Iterator[None]:
    """Silence warnings and log messages below errors, of all libraries, within the block.

    torch's exporter and onnxruntime's quantiser tell of their own steps, which nobody who asked for
    a file can change.
    """
    before = logging.root.manager.disable
    # Without any handler, `logging.warning` would give the root logger one that prints
    root, silent = logging.getLogger(), logging.NullHandler()
    root.addHandler(silent)
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        root.removeHandler(silent)
