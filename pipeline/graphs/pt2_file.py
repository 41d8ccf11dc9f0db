"""Files of `torch.export`: write a graph with its metadata, and run it."""

import json
from io import BytesIO
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .card import ModelCard
from .tracing import quietly, trace

_CARD = "lpipstore.json"  # a file within the archive


def pt2_bytes(graph: nn.Module, card: ModelCard) -> bytes:
    """Return a graph as the bytes of a .pt2 file, with `card` in ``lpipstore.json``.

    Parameters
    ----------
    graph
        A `PairGraph` or an `EmbeddingGraph`.

    Raises
    ------
    LpipstoreError
        torch cannot export this trunk.
    """
    traced = trace(graph, card)
    traced.example_inputs = None  # zeros, of more bytes than the weights of some trunks
    file = BytesIO()
    with quietly():
        torch.export.save(traced, file, extra_files={_CARD: json.dumps(card.entries())})
    return file.getvalue()


class Pt2Model:
    """A model that this process has written, loaded back.

    Only for such: `torch.export.load` may unpickle what is in a file.

    Parameters
    ----------
    content
        The result of `pt2_bytes`.

    Attributes
    ----------
    size
        Bytes of the file.
    entries
        Its metadata.
    smallest_side
        Smallest height and width that it takes, if they are dynamic: torch excludes sizes at which
        a tap would have a single pixel.
    """

    def __init__(self, content: bytes) -> None:
        extra = {_CARD: ""}
        with quietly():
            program = torch.export.load(BytesIO(content), extra_files=extra)
            self._module = program.module()
        self.size = len(content)
        self.entries: dict[str, str] = json.loads(extra[_CARD])
        limits = [int(limit.lower) for limit in program.range_constraints.values()]
        self.smallest_side = max(limits, default=0)

    def __call__(self, *batches: NDArray[Any]) -> list[NDArray[np.float32]]:
        """Return the outputs for batches [B, 3, H, W] of pixels as the model takes them."""
        with torch.no_grad():
            outputs = self._module(*(torch.from_numpy(batch) for batch in batches))
        return [output.numpy() for output in outputs]
