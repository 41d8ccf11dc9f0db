"""Export the metric as one file, run the file, and keep it only if it computes the same."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError, UsageError, setting
from ...pipeline.backbones.backbone import Backbone
from ...pipeline.backbones.load import load_backbone
from ...pipeline.common.text import printable
from ...pipeline.distances.heads import Head, load_head
from ...pipeline.graphs.card import ModelCard
from ...pipeline.graphs.graph import EmbeddingGraph, PairGraph
from ...pipeline.graphs.onnx_file import OPSET, OnnxModel, need_onnx, onnx_bytes
from ...pipeline.graphs.pt2_file import Pt2Model, pt2_bytes
from ...pipeline.graphs.reference import LARGEST_DEVIATION, Reference, deviation
from ...pipeline.runs.export import writing_file
from ...pipeline.sources.sources import Sources
from ..session.collection import check_settings
from ..session.screen import Lines, Screen
from ..session.session import warn_of_own_trunk
from ..session.settings import Settings, parse_size, show_bytes, source_options
from .choices import ExportChoices, checked_choices
from .int8 import Int8Report, judgements_of, quantise_model
from .samples import Batch, sample_batches

Model = Callable[..., list[NDArray[np.float32]]]

_PIXELS = {
    "signed": "float32 in [-1, 1]",
    "unit": "float32 in [0, 1]",
    "uint8": "uint8, 0 to 255",
}


@dataclass(frozen=True)
class Check:
    """How far a model is from the same computation in float64.

    Attributes
    ----------
    deviation
        The largest, of all outputs: see `lpipstore.pipeline.graphs.reference.deviation`.
    images
        Number of images, or of pairs, that the model was given.
    sizes
        Their sizes, "HEIGHTxWIDTH".
    """

    deviation: float
    images: int
    sizes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the deviation is within what is allowed; False if it is not a number."""
        return self.deviation <= LARGEST_DEVIATION

    def text(self, what: str) -> str:
        """Return the check as text for people."""
        return (
            f"{self.images} {what} at {', '.join(self.sizes)}: largest deviation "
            f"{self.deviation:.1e} ({LARGEST_DEVIATION:.0e} is allowed)"
        )


@dataclass(frozen=True)
class ExportedModel:
    """An exported model, or one that was checked again.

    Attributes
    ----------
    path
        The file.
    to
        "onnx" or "pt2".
    bytes
        Its size.
    card
        Its metadata.
    check
        Its check; of an int8 model, that of the float32 model that it was made from.
    smallest_side
        Smallest height and width that it takes; 1 where it depends on layers of torchvision.
    int8
        What quantisation changed; None for float32.
    """

    title: ClassVar[str] = "Exported model"
    path: Path
    to: str
    bytes: int
    card: ModelCard
    check: Check
    smallest_side: int
    int8: Int8Report | None = None

    def entries(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            "file": printable(str(self.path)),
            "to": self.to,
            "bytes": self.bytes,
            "metadata": self.card.entries(),
            "smallest_side": self.smallest_side,
            "deviation": self.check.deviation,
            "checked": self.check.images,
            "sizes": list(self.check.sizes),
            "int8": None if self.int8 is None else self.int8.entries(),
            "failed": 0,
        }

    def lines(self) -> Lines:
        """Return lines for people."""
        card = self.card
        outputs = "distance" + (" and map" if card.spatial == "yes" else "")
        what = f"two images -> {outputs}" if card.form == "pair" else "image -> embedding"
        trunk = "" if card.trained == "yes" else ", UNTRAINED: distances mean little"
        least = f" from {self.smallest_side} px" if self.smallest_side > 1 else ""
        size = f"one height and width{least}" if card.fixed_size is None else card.size
        checked = self.check.text("images" if card.form == "embedding" else "pairs")
        before = "" if card.quantised == "no" else "float32, before quantisation: "
        lines = [
            ("file", f"{printable(str(self.path))} ({show_bytes(self.bytes)})"),
            ("model", f"{what}: {card.backbone}, LPIPS {card.lpips_version}{trunk}"),
            ("input", f"{_PIXELS[card.pixels]}, [B, 3, H, W], {size}"),
            ("checked", before + checked),
        ]
        return lines + (self.int8.lines() if self.int8 else [])


@dataclass(frozen=True)
class CheckedModel(ExportedModel):
    """A file that was checked again; the deviation of an int8 model is its own."""

    title: ClassVar[str] = "Checked model"

    def lines(self) -> Lines:
        """Return lines for people."""
        lines = super().lines()
        if self.card.quantised == "no":
            return lines
        error = f"int8: largest deviation {self.check.deviation:.1e} from float64 (no bound)"
        return [*lines[:-1], ("checked", error)]


def export_model(
    out: Path, choices: ExportChoices, settings: Settings, screen: Screen
) -> ExportedModel:
    """Write the metric to one file for other programs, and check it by running it.

    Parameters
    ----------
    out
        The new file. It is there afterwards only if it computes what lpipstore does.
    choices
        Format, inputs, outputs and quantisation.
    settings
        Backbone, version, head, weights, size, and how images are read.

    Raises
    ------
    UsageError
        Choices are unknown or contradict each other, or a package is missing.
    LpipstoreError
        The file cannot be written, or it deviates too much.
    """
    choices = checked_choices(choices, out, settings)
    if choices.to == "onnx":
        need_onnx()
    judgements = judgements_of(choices.judgements, choices.images)
    backbone, head = _metric(settings)
    if not backbone.trained:
        screen.warn(
            f"the trunk is untrained ({setting('weights', 'random')}): distances mean little"
        )
    if settings.heads is not None:
        warn_of_own_trunk([settings.heads], settings.weights, screen)
    card = _card(backbone, head, choices, settings)
    with closing(Sources(source_options(settings))) as sources:
        names = None if choices.samples is None else _names(choices.samples, "samples", sources)
        pictures = choices.calibrate and _names(choices.calibrate, "calibrate", sources)
        batches = sample_batches(names, sources, card, backbone, settings, screen)
        with writing_file(out) as file:
            content, smallest = _written(backbone, head, card, choices)
            model = OnnxModel(content, "the model") if choices.to == "onnx" else Pt2Model(content)
            check = _checked(model, backbone, head, card, batches, screen)
            if not check.passed:
                raise LpipstoreError(
                    f"the model deviates from lpipstore: {check.text('inputs')}. "
                    f"{printable(str(out))} was not written; report it with these versions: "
                    f"torch {version('torch')}, lpipstore {card.lpipstore_version}"
                )
            report = None
            if pictures:
                card = replace(card, quantised="int8")
                content, report = quantise_model(
                    content, card, pictures, judgements, sources, settings, screen
                )
            file.write(content)
    return ExportedModel(out, str(choices.to), len(content), card, check, smallest, report)


def check_model(
    path: Path, samples: str | None, settings: Settings, screen: Screen
) -> CheckedModel:
    """Run an ONNX file that lpipstore has written, and compare it with the same computation.

    Parameters
    ----------
    path
        The file. Its metadata say which backbone, version and inputs it has.
    samples
        Images to run it on; None draws some.
    settings
        Weights and head that it should have been made from.

    Raises
    ------
    UsageError
        There is no such file, it is no whole ONNX model of lpipstore, or it was made from another
        backbone, head or weights than the settings name.
    LpipstoreError
        It deviates too much.
    """
    check_settings(settings)
    shown = printable(str(path))
    model = OnnxModel(_read(path, shown), shown)
    card = ModelCard.of_entries(model.entries, shown)
    backbone, head = _metric(_as_in(card, settings, shown))
    for name, what, found, wanted in (
        ("weights", "weights", card.weights_digest, backbone.weights_digest),
        ("heads", "a head", card.head_digest, head.digest),
    ):
        if found != wanted:
            raise UsageError(
                f"{shown} was made from {what} with the digest {found}, and {wanted} came: name "
                f"those that it was made from with {setting(name)}"
            )
    with closing(Sources(source_options(settings))) as sources:
        names = None if samples is None else _names(samples, "samples", sources)
        batches = sample_batches(names, sources, card, backbone, settings, screen)
        check = _checked(model, backbone, head, card, batches, screen)
    if card.quantised == "no" and not check.passed:
        raise LpipstoreError(f"{shown} deviates from lpipstore: {check.text('inputs')}")
    smallest = min(card.fixed_size or (backbone.outline.minimum_side,))
    return CheckedModel(path, "onnx", model.size, card, check, smallest)


def _metric(settings: Settings) -> tuple[Backbone, Head]:
    backbone = load_backbone(
        settings.backbone,
        version=settings.lpips_version,
        weights=settings.weights,
        taps=settings.tap_names,
    )
    head = load_head(settings.heads, backbone.name, backbone.channels, backbone.version)
    return backbone, head


def _card(backbone: Backbone, head: Head, choices: ExportChoices, settings: Settings) -> ModelCard:
    size = parse_size(settings.size) if choices.form == "embedding" else None
    return ModelCard(
        form=choices.form,
        spatial="yes" if choices.spatial else "no",
        pixels=choices.pixels,
        size="any" if size is None else f"{size[0]}x{size[1]}",
        backbone=backbone.name,
        taps=",".join(backbone.taps),
        weights_digest=backbone.weights_digest,
        head_digest=head.digest,
        trained="yes" if backbone.trained else "no",
        lpips_version=backbone.version,
        lpipstore_version=version("lpipstore"),
    )


def _written(
    backbone: Backbone, head: Head, card: ModelCard, choices: ExportChoices
) -> tuple[bytes, int]:
    """Return the content of the file, and the smallest side that it takes."""
    graph: PairGraph | EmbeddingGraph
    if card.fixed_size is not None:
        graph = EmbeddingGraph(backbone, head, card.pixels, card.fixed_size)
        smallest = min(card.fixed_size)
    else:
        graph = PairGraph(backbone, head, card.pixels, spatial=choices.spatial)
        smallest = backbone.outline.minimum_side
    if choices.to == "onnx":
        return onnx_bytes(graph, card, choices.opset or OPSET), smallest
    content = pt2_bytes(graph, card)
    return content, max(smallest, Pt2Model(content).smallest_side)


def _checked(
    model: Model,
    backbone: Backbone,
    head: Head,
    card: ModelCard,
    batches: list[Batch],
    screen: Screen,
) -> Check:
    reference = Reference(backbone, head, card)
    worst = []
    for number, batch in enumerate(batches, 1):
        worst.append(deviation(model(*batch), reference(*batch), card.form))
        screen.report("check", number, len(batches))
    sizes = dict.fromkeys(f"{b[0].shape[2]}x{b[0].shape[3]}" for b in batches)
    return Check(float(np.max(worst)), sum(len(b[0]) for b in batches), tuple(sizes))


def _names(place: str, name: str, sources: Sources) -> list[str]:
    """Return the names of the images at a place that an option names."""
    found = sources.find([place])
    if not found.names:
        raise LpipstoreError(f"no images in {setting(name, printable(place))}")
    return list(found.names)


def _read(path: Path, shown: str) -> bytes:
    if path.suffix == ".pt2":
        raise UsageError(
            f"{shown} is no ONNX file, and loading one of torch.export can run what is in it: "
            "only ONNX files are checked again"
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{shown} cannot be read: {error.strerror or error}") from error


def _as_in(card: ModelCard, settings: Settings, shown: str) -> Settings:
    """Return settings with the backbone of a file, unless they name another one."""
    for name, value in (("backbone", card.backbone), ("lpips_version", card.lpips_version)):
        asked = getattr(settings, name)
        if name in settings.given and asked != value:
            raise UsageError(f"{shown} holds a model with {setting(name, value)}, not {asked}")
    named = card.backbone.startswith("torchvision:")
    return replace(
        settings,
        backbone=card.backbone,
        lpips_version=card.lpips_version,
        taps=card.taps if named else "",
    )
