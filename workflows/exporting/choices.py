"""What a person chooses for an exported model, checked before anything is computed."""

from dataclasses import dataclass, replace
from pathlib import Path

from ...cache.errors import UsageError, setting
from ...pipeline.common.text import printable
from ...pipeline.graphs.card import FORMS, PIXELS
from ...pipeline.graphs.onnx_file import check_opset
from ..session.collection import check_choice, check_new, check_settings
from ..session.settings import Settings, parse_size

TO = ("onnx", "pt2")
QUANTIZE = ("int8",)


@dataclass(frozen=True)
class ExportChoices:
    """The options of an export.

    Attributes
    ----------
    to
        "onnx" or "pt2"; None goes by the ending of the file, else "onnx".
    form
        "pair" or "embedding".
    spatial
        Also return the map of distances (pairs only).
    pixels
        "signed", "unit" or "uint8": how the model takes images.
    opset
        Version of ONNX's operators; None takes the default.
    quantize
        "int8" or None.
    calibrate
        Images to calibrate int8 on; every second one is held out for the report.
    judgements
        A table or folder of judgements, to report what int8 changes.
    images
        Folder that paths in the table of judgements start from.
    samples
        Images to check the model on; None draws some.
    """

    to: str | None = None
    form: str = "pair"
    spatial: bool = False
    pixels: str = "signed"
    opset: int | None = None
    quantize: str | None = None
    calibrate: str | None = None
    judgements: Path | None = None
    images: Path | None = None
    samples: str | None = None


def checked_choices(choices: ExportChoices, out: Path, settings: Settings) -> ExportChoices:
    """Return choices with `to` decided.

    Raises
    ------
    UsageError
        A choice is unknown, or two contradict each other.
    """
    check_settings(settings)
    ending = out.suffix.lstrip(".")
    to = choices.to or (ending if ending in TO else "onnx")
    check_choice("to", to, TO)
    check_choice("form", choices.form, FORMS)
    check_choice("pixels", choices.pixels, PIXELS)
    if ending in set(TO) - {to}:
        raise UsageError(f"{setting('to', to)} contradicts {setting('out', printable(str(out)))}")
    check_new("out", out)
    if choices.opset is not None:
        if to != "onnx":
            raise UsageError(f"{setting('opset')} is for {setting('to', 'onnx')} only")
        check_opset(choices.opset)
    if choices.form == "embedding":
        _check_embedding(choices, settings)
    _check_quantize(choices, to)
    return replace(choices, to=to)


def _check_embedding(choices: ExportChoices, settings: Settings) -> None:
    if choices.spatial:
        raise UsageError(
            f"an embedding has no map: {setting('spatial', value=True)} is for "
            f"{setting('form', 'pair')}"
        )
    if parse_size(settings.size) is None:
        raise UsageError(
            "the length of an embedding depends on the size of the images: choose one, such as "
            f"{setting('size', 224)}"
        )


def _check_quantize(choices: ExportChoices, to: str) -> None:
    if choices.quantize is None:
        for name in ("calibrate", "judgements", "images"):
            if getattr(choices, name) is not None:
                raise UsageError(f"{setting(name)} is for {setting('quantize', 'int8')} only")
        return
    if choices.quantize == "dynamic":
        raise UsageError(
            "dynamic quantisation does nothing for convolutions, of which these networks are made: "
            f"choose {setting('quantize', 'int8')}, which is static, with {setting('calibrate')}"
        )
    check_choice("quantize", choices.quantize, QUANTIZE)
    if to != "onnx":
        raise UsageError(f"{setting('quantize', 'int8')} is for {setting('to', 'onnx')} only")
    if choices.calibrate is None:
        raise UsageError(
            f"{setting('quantize', 'int8')} needs images to find the ranges of activations: name "
            f"about a hundred with {setting('calibrate')}"
        )
    if choices.images is not None and choices.judgements is None:
        raise UsageError(f"{setting('images')} is for {setting('judgements')} only")
