"""Static int8 quantisation of an ONNX model, calibrated on images.

Weights become signed 8-bit numbers with a scale per channel, activations unsigned ones with the
range that calibration finds (QDQ format of onnxruntime). Only the trunk is quantised: differences
of normalised taps need float32.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ...cache.errors import LpipstoreError
from ..backbones.taps import first_line
from .card import ModelCard
from .onnx_file import need_onnx, with_card
from .tracing import input_names, quietly

if TYPE_CHECKING:
    import onnx

_QUANTISED = ("Conv", "Relu", "MaxPool", "AveragePool", "Concat", "Add")
_NORM = "ReduceL2"  # the first operator behind a tap
_CPU = Path("/proc/cpuinfo")
_VNNI = {"avx512_vnni", "avx_vnni"}

Batch = Sequence[NDArray[Any]]


def has_vnni(cpuinfo: Path = _CPU) -> bool:
    """Return whether the CPU multiplies 8-bit numbers without overflow (VNNI).

    Without it AVX2 adds two products in 16 bits, and weights must keep to 7 bits.
    """
    try:
        text = cpuinfo.read_text()
    except OSError:  # not Linux
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return bool(_VNNI & set(flags.split()))


class _Images:
    """Batches for onnxruntime's calibration: a ``CalibrationDataReader``."""

    def __init__(self, batches: Iterator[Batch], names: Sequence[str]) -> None:
        self._batches = batches
        self._names = names

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """Return the next batch by input, None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else dict(zip(self._names, batch, strict=True))


def quantise(
    content: bytes, card: ModelCard, batches: Iterator[Batch], *, reduce_range: bool
) -> bytes:
    """Return a float32 model as int8.

    Parameters
    ----------
    content
        The bytes of an ONNX file.
    card
        Metadata of the result.
    batches
        Inputs of the model, from which the ranges of activations are found (MinMax).
    reduce_range
        Keep weights to 7 bits, for processors without VNNI.

    Raises
    ------
    UsageError
        onnx or onnxruntime is not installed.
    LpipstoreError
        onnxruntime cannot quantise this model.
    """
    need_onnx()
    import onnx
    from onnxruntime import quantization

    names = input_names(card.form)
    with tempfile.TemporaryDirectory(prefix="lpipstore-") as scratch:
        given, before, after = (Path(scratch, f"{n}.onnx") for n in ("given", "fused", "int8"))
        given.write_bytes(content)
        try:
            with quietly():
                quantization.quant_pre_process(given, before, skip_symbolic_shape=True)
                quantization.quantize_static(
                    before,
                    after,
                    _Images(batches, names),
                    quant_format=quantization.QuantFormat.QDQ,
                    nodes_to_quantize=_trunk_nodes(onnx.load(before).graph),
                    per_channel=True,
                    reduce_range=reduce_range,
                    activation_type=quantization.QuantType.QUInt8,
                    weight_type=quantization.QuantType.QInt8,
                    calibrate_method=quantization.CalibrationMethod.MinMax,
                )
                return with_card(onnx.load(after), card)
        except Exception as error:  # onnxruntime's share no base class of their own
            raise LpipstoreError(
                f"onnxruntime cannot quantise the backbone {card.backbone}: {first_line(error)}"
            ) from error


def _trunk_nodes(graph: "onnx.GraphProto") -> list[str]:
    """Return the names of the trunk's nodes: from its first convolution to the norms of the taps.

    Concatenated images, rows and sums of distances have operators that the trunk has, too.
    """
    before, trunk, after = range(3)
    stages: dict[str, int] = {}
    names = []
    for node in graph.node:  # in topological order
        stage = max((stages.get(name, before) for name in node.input), default=before)
        if node.op_type == _NORM:
            stage = after
        elif node.op_type == "Conv":
            stage = max(stage, trunk)
        stages.update(dict.fromkeys(node.output, stage))
        if stage == trunk and node.op_type in _QUANTISED:
            names.append(node.name)
    return names
