"""Quantise a model to int8, and report what that changes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from ...cache.errors import LpipstoreError, setting
from ...pipeline.common.text import printable
from ...pipeline.graphs.card import ModelCard
from ...pipeline.graphs.onnx_file import OnnxModel
from ...pipeline.graphs.quantised import has_vnni, quantise
from ...pipeline.images.data import header_of
from ...pipeline.images.preparation import Preparation
from ...pipeline.images.survey import ImageRecord
from ...pipeline.judgements.pair_features import number_pairs
from ...pipeline.judgements.scores import average_precision, majority_agreement
from ...pipeline.judgements.table import CHOICES, Judgements, read_judgements
from ...pipeline.sources.source import ImageError
from ...pipeline.sources.sources import Sources
from ..session.screen import Lines, Screen
from ..session.settings import Settings, choose_size, show_bytes
from .samples import inputs_of, read_images

_IMAGES = 256  # at most, half of them held out
_FEWEST = 8
_PAIRS = 1000
_AT_ONCE = 16  # images or pairs in a batch
_ROUNDS = 9

Distances = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Agreement:
    """Scores of both models on judgements of one kind.

    `score` is "agreement" (with the majority) for choices between two images and "average
    precision" for pairs judged the same.
    """

    score: str
    judgements: int
    float32: float
    int8: float


@dataclass(frozen=True)
class Int8Report:
    """How an int8 model differs from the float32 model that it was made from.

    Attributes
    ----------
    calibrated, held_out, pairs
        Number of images for calibration and for the figures below, and of pairs of the latter.
    size
        "HEIGHTxWIDTH" of these images.
    reduce_range
        Whether weights have 7 bits, for processors without VNNI.
    bytes, float32_bytes
        Sizes of the two files.
    speed
        Time of float32 over that of int8: medians of rounds that take turns.
    rank_correlation, mean_error, largest_error
        Spearman's, and absolute differences, of the distances of the pairs.
    agreements
        On judgements, if there are any.
    """

    calibrated: int
    held_out: int
    pairs: int
    size: str
    reduce_range: bool
    bytes: int
    float32_bytes: int
    speed: float
    rank_correlation: float
    mean_error: float
    largest_error: float
    agreements: tuple[Agreement, ...]

    def entries(self) -> dict[str, Any]:
        """Return the figures for ``--json``."""
        return asdict(self)

    def lines(self) -> Lines:
        """Return the figures as lines for people."""
        bits = "; weights of 7 bits, as this CPU lacks VNNI" if self.reduce_range else ""
        lines = [
            (
                "int8",
                f"calibrated on {self.calibrated:,} images of {self.size}, {self.held_out:,} held "
                f"out{bits}",
            ),
            (
                "size",
                f"{show_bytes(self.bytes)}, {self.bytes / self.float32_bytes:.3f} of float32",
            ),
            ("speed", f"{self.speed:.2f} times that of float32 in onnxruntime, on this machine"),
            (
                "distances",
                f"rank correlation {self.rank_correlation:.4f} with float32 over {self.pairs:,} "
                f"held-out pairs, mean error {self.mean_error:.4f}, largest "
                f"{self.largest_error:.4f}",
            ),
        ]
        return lines + [
            (
                each.score,
                f"{each.int8:.4f} on {each.judgements:,} judgements, float32 {each.float32:.4f} "
                f"({each.int8 - each.float32:+.4f})",
            )
            for each in self.agreements
        ]


def quantise_model(
    content: bytes,
    card: ModelCard,
    names: Sequence[str],
    judgements: Sequence[Judgements],
    sources: Sources,
    settings: Settings,
    screen: Screen,
) -> tuple[bytes, Int8Report]:
    """Quantise a float32 model on one half of the images, and measure it on the other.

    Parameters
    ----------
    content
        The float32 model.
    card
        The metadata of the int8 model.
    names
        Images that `sources` can read.
    judgements
        Of each kind; see `judgements_of`.

    Raises
    ------
    LpipstoreError
        Too few images can be read, or the model cannot be quantised.
    """
    chosen = _spread(names)
    size = card.fixed_size or _size_of(chosen, sources, settings, screen)
    how = Preparation(size, settings.fit, settings.icc)
    images, _ = read_images(chosen, sources, how, card.pixels, screen)
    if len(images) < _FEWEST:
        raise LpipstoreError(
            f"{setting('calibrate')} has {len(images)} usable images: {_FEWEST} at least are "
            "needed, and a hundred do better"
        )
    seen, held = images[::2], images[1::2]
    narrow = not has_vnni()
    batches = (
        inputs_of(seen[start : start + _AT_ONCE], card.form)
        for start in range(0, len(seen), _AT_ONCE)
    )
    quantised = quantise(content, card, batches, reduce_range=narrow)
    models = OnnxModel(content, "the model"), OnnxModel(quantised, "the int8 model")
    left, right = _pairs(len(held))
    exact, rough = (distances_of(model, card, held, screen)(left, right) for model in models)
    error = np.abs(rough - exact)
    report = Int8Report(
        calibrated=len(seen),
        held_out=len(held),
        pairs=len(left),
        size=f"{size[0]}x{size[1]}",
        reduce_range=narrow,
        bytes=len(quantised),
        float32_bytes=len(content),
        speed=_speed(*models, held[:_AT_ONCE], card.form),
        rank_correlation=float(spearmanr(exact, rough).statistic),
        mean_error=float(error.mean()),
        largest_error=float(error.max()),
        agreements=tuple(
            _agreement(each, models, card, how, sources, screen) for each in judgements
        ),
    )
    return quantised, report


def judgements_of(table: Path | None, images: Path | None) -> list[Judgements]:
    """Read a table or a folder of judgements, one of each kind; none without a table.

    Raises
    ------
    UsageError
        See `lpipstore.pipeline.judgements.table.read_judgements`.
    """
    if table is None:
        return []
    return list(read_judgements([table], images=images, split="val", chosen_by=None).values())


def distances_of(
    model: OnnxModel, card: ModelCard, images: NDArray[Any], screen: Screen
) -> Distances:
    """Return a function from the numbers of images to their distances, float64 [n], by a model."""
    if card.form == "embedding":
        rows = np.concatenate([model(part)[0] for part in _parts(images)])

        def between_rows(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
            pairs = zip(left.tolist(), right.tolist(), strict=True)
            return np.array([np.square(rows[i] - rows[j]).sum(dtype=np.float64) for i, j in pairs])

        return between_rows

    def between_images(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
        found = np.empty(len(left))
        for start in range(0, len(left), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            found[part] = model(images[left[part]], images[right[part]])[0]
            screen.report("pairs", min(part.stop, len(left)), len(left))
        return found

    return between_images


def _parts(images: NDArray[Any]) -> list[NDArray[Any]]:
    return [images[start : start + _AT_ONCE] for start in range(0, len(images), _AT_ONCE)]


def _spread(names: Sequence[str]) -> list[str]:
    """Return up to `_IMAGES` names in an order of chance, the same each time.

    Neighbours in a folder are often alike, and halves should not be.
    """
    order = np.random.default_rng(0).permutation(len(names))[:_IMAGES]
    return [names[number] for number in order.tolist()]


def _size_of(
    names: Sequence[str], sources: Sources, settings: Settings, screen: Screen
) -> tuple[int, int]:
    """Return the size (height, width) that the settings stand for with these images."""
    records = []
    for name in names:
        try:
            header = header_of(sources.read(name))
        except ImageError:  # named when its pixels are read
            continue
        records.append(ImageRecord(name, width=header.width, height=header.height))
    if not records:
        raise LpipstoreError(
            f"none of {len(names):,} files of {setting('calibrate')} can be used as an image, such "
            f"as {printable(names[0])}"
        )
    size, line = choose_size(settings.size, records)
    if line:
        screen.say(line)
    return size


def _pairs(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return up to `_PAIRS` pairs of `count` images, the same ones each time."""
    left, right = np.triu_indices(count, 1)
    chosen = np.random.default_rng(0).permutation(len(left))[:_PAIRS]
    return left[chosen], right[chosen]


def _speed(exact: OnnxModel, rough: OnnxModel, images: NDArray[Any], form: str) -> float:
    """Return how many times as fast `rough` is: both take turns, so that load falls on both."""
    seconds: tuple[list[float], list[float]] = ([], [])
    batch = inputs_of(images, form)
    for number in range(_ROUNDS + 1):
        for model, taken in zip((exact, rough), seconds, strict=True):
            begin = time.perf_counter()
            model(*batch)
            if number:  # the first round only warms up
                taken.append(time.perf_counter() - begin)
    return float(np.median(seconds[0]) / np.median(seconds[1]))


def _agreement(
    judgements: Judgements,
    models: tuple[OnnxModel, OnnxModel],
    card: ModelCard,
    how: Preparation,
    sources: Sources,
    screen: Screen,
) -> Agreement:
    """Score both models on those judgements whose images can be read."""
    images, places = read_images(judgements.paths, sources, how, card.pixels, screen)
    number = np.full(len(judgements.paths), -1)
    number[places] = np.arange(len(places))
    used = judgements.only(np.asarray((number[judgements.images] >= 0).all(axis=1)))
    if not len(used):
        raise LpipstoreError(
            f"no judgement of {setting('judgements')} can be used: images of each are broken"
        )
    first, *others = number[used.images].T
    pairs, place = number_pairs(np.concatenate([first] * len(others)), np.concatenate(others))
    by_judgement = place.reshape(len(others), -1)
    scores = []
    for model in models:
        distances = distances_of(model, card, images, screen)(pairs[:, 0], pairs[:, 1])
        found = distances[by_judgement]
        scores.append(
            float(np.nanmean(majority_agreement(found[0], found[1], used.answers)))
            if used.kind == CHOICES
            else average_precision(found[0], used.answers)
        )
    name = "agreement" if used.kind == CHOICES else "average precision"
    return Agreement(name, len(used), *scores)
