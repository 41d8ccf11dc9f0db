"""ONNX files: write a graph with its metadata, open a file, run it in onnxruntime."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...cache.errors import LpipstoreError, UsageError, setting
from ..backbones.taps import first_line
from ..common.optional import optional
from .card import ModelCard
from .tracing import axis_names, input_names, output_names, quietly, trace

if TYPE_CHECKING:
    import onnx

OPSETS = range(18, 24)
"""Versions of ONNX's operators that torch's exporter writes."""
OPSET = 20

_LARGEST = 2_000_000_000  # bytes; protobuf stops at 2 GiB
_ERRORS_ONLY = 3  # onnxruntime's log_severity_level


def need_onnx() -> None:
    """Check that onnx, onnxscript and onnxruntime are installed.

    Raises
    ------
    UsageError
        One is not; the message names the extra that installs them.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        optional(name, f"ONNX files need the package {name}", "lpipstore[onnx]")


def check_opset(opset: int) -> None:
    """Raise `UsageError` for an opset that cannot be written."""
    if opset not in OPSETS:
        raise UsageError(
            f"There is no export to {setting('opset', opset)}: choose {OPSETS[0]} to {OPSETS[-1]}."
        )


def onnx_bytes(graph: nn.Module, card: ModelCard, opset: int = OPSET) -> bytes:
    """Return a graph as the bytes of an ONNX file, with `card` as its metadata.

    Parameters
    ----------
    graph
        A `PairGraph` or an `EmbeddingGraph`.
    opset
        One of `OPSETS`.

    Raises
    ------
    UsageError
        The opset is unknown.
    LpipstoreError
        onnx is not installed, torch cannot export this trunk, or it is larger than a file can be.
    """
    check_opset(opset)
    need_onnx()
    size = sum(tensor.nbytes for tensor in graph.state_dict().values())
    if size > _LARGEST:
        raise LpipstoreError(
            f"The weights of {card.backbone} take {size / 1e9:.1f} GB, and an ONNX file holds "
            f"2 GB: write {setting('to', 'pt2')}."
        )
    traced = trace(graph, card)
    try:
        with quietly():
            program = torch.onnx.export(
                traced,
                dynamo=True,
                opset_version=opset,
                input_names=input_names(card.form),
                output_names=output_names(card),
                dynamic_shapes=axis_names(card),
                verbose=False,
            )
            assert program is not None  # as it is with dynamo=True
            model = program.model_proto
    except (RuntimeError, ValueError) as error:
        raise LpipstoreError(
            f"torch cannot write the backbone {card.backbone} as ONNX: {first_line(error)}. "
            f"Another backbone or {setting('opset')} may do."
        ) from error
    written = {each.version for each in model.opset_import if each.domain in ("", "ai.onnx")}
    if written != {opset}:
        raise LpipstoreError(
            f"The model could not be converted to {setting('opset', opset)}: leave it out, or "
            "choose another."
        )
    return with_card(model, card)


def with_card(model: "onnx.ModelProto", card: ModelCard) -> bytes:
    """Return a model as bytes, with `card` as its metadata.

    What torch notes at each node, such as the source lines that it comes from, is left out.
    """
    for part in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    del model.graph.value_info[:]
    del model.metadata_props[:]
    for name, value in card.entries().items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, value
    model.producer_name, model.producer_version = "lpipstore", card.lpipstore_version
    return bytes(model.SerializeToString())


class OnnxModel:
    """A model in onnxruntime, on the CPU.

    Parameters
    ----------
    content
        The bytes of an ONNX file.
    shown
        Name of the file, for messages.
    threads
        Threads to run it with; None takes as many as torch does.

    Raises
    ------
    UsageError
        The file is no ONNX model, or is damaged, or onnxruntime is not installed.
    """

    def __init__(self, content: bytes, shown: str, threads: int | None = None) -> None:
        need_onnx()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = threads or torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base class of their own
            raise UsageError(
                f"{shown} is not an ONNX model that onnxruntime can open: it is damaged, "
                f"incomplete or of another version ({first_line(error)}). Export it again."
            ) from error
        self.size = len(content)
        self.entries: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        self._inputs = [each.name for each in self._session.get_inputs()]

    def __call__(self, *batches: NDArray[Any]) -> list[NDArray[np.float32]]:
        """Return the outputs for batches [B, 3, H, W] of pixels as the model takes them.

        Raises
        ------
        LpipstoreError
            onnxruntime cannot run the model.
        """
        try:
            return list(self._session.run(None, dict(zip(self._inputs, batches, strict=True))))
        except Exception as error:
            raise LpipstoreError(
                f"onnxruntime cannot run the model: {first_line(error)}"
            ) from error
