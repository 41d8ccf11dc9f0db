"""Demonstrate lpipstore in seconds, on drawn pictures and without network access."""

import io
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ..cache.errors import LpipstoreError, UsageError, setting
from ..pipeline.backbones.load import load_backbone
from ..pipeline.backbones.weights import WeightsMissing
from ..pipeline.common.text import printable
from ..pipeline.runs.run import open_run
from .scoring.all_pairs import score_pairs
from .session.screen import Screen
from .session.settings import Settings

SIDE = 64
SCENES = 4
STRENGTHS = (1, 2, 3, 4)
DISTORTIONS = ("blur", "noise", "jpeg", "shift")


def draw_scene(number: int) -> Image.Image:
    """Draw picture `number`, the same each time: shapes over a colour gradient, SIDE×SIDE."""
    random = np.random.default_rng(number)
    corners = random.integers(40, 216, (2, 2, 3)).astype(np.uint8)
    picture = Image.fromarray(corners).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for _ in range(9):
        x, y = random.integers(0, SIDE, 2).tolist()
        width, height = random.integers(6, 26, 2).tolist()
        red, green, blue = random.integers(0, 256, 3).tolist()
        shape = pen.ellipse if random.random() < 0.5 else pen.rectangle
        shape((x, y, x + width, y + height), fill=(red, green, blue))
    return picture


def distort(picture: Image.Image, kind: str, strength: int) -> Image.Image:
    """Apply one of `DISTORTIONS` to a picture, stronger with each step of `strength` (1 to 4)."""
    if kind == "blur":
        return picture.filter(ImageFilter.GaussianBlur(0.4 * 2**strength))
    if kind == "jpeg":
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=(0, 60, 25, 10, 3)[strength])
        return Image.open(file).convert("RGB")
    pixels = np.asarray(picture).astype(np.int16)
    if kind == "noise":
        noise = np.random.default_rng(0).normal(0, 4 * 2**strength, pixels.shape)
        return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))
    return Image.fromarray(np.roll(pixels, 2**strength, axis=1).astype(np.uint8))


def draw_pictures(folder: Path) -> None:
    """Write the scenes and all their distortions to `folder` as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(SCENES):
        picture = draw_scene(number)
        picture.save(folder / f"scene{number}.png")
        for kind in DISTORTIONS:
            for strength in STRENGTHS:
                distort(picture, kind, strength).save(
                    folder / f"scene{number}-{kind}{strength}.png"
                )


def run_demo(folder: Path, screen: Screen) -> dict[str, Any]:
    """Draw pictures, score all their pairs twice, and compare distance with distortion strength.

    Everything is written below `folder`, which must be new or empty. Uses ImageNet weights if
    they are available, otherwise an untrained trunk.

    Returns
    -------
    dict
        ``first`` and ``second``: the summaries of both runs; ``distances``: for each kind of
        distortion the mean distance to the undistorted picture, by strength; ``weights``: where the
        trunk's weights come from.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        shown = printable(str(folder))
        raise UsageError(
            f"{shown} is not a new or empty folder: choose another for {setting('out')}"
        )
    pictures = folder / "pictures"
    try:
        draw_pictures(pictures)
    except OSError as error:
        raise LpipstoreError(
            f"cannot write pictures to {pictures}: {error.strerror}; choose another "
            f"{setting('out')}"
        ) from error
    settings = Settings(backbone="squeeze", store=folder / "store", store_limit="1GB")
    weights = _weights(screen)
    settings = replace(settings, weights=weights)
    first, second = (
        score_pairs([pictures], folder / name, settings, screen) for name in ("first", "second")
    )
    return {
        "first": first.entries(),
        "second": second.entries(),
        "distances": dict(_distances_by_strength(folder / "first")),
        "weights": open_run(folder / "first").manifest["weights_origin"],
    }


def _weights(screen: Screen) -> str:
    try:
        load_backbone("squeeze")
    except WeightsMissing:
        screen.say("ImageNet weights cannot be had (no file, no network): the trunk is untrained.")
        return "random"
    return "imagenet"


def _distances_by_strength(run_folder: Path) -> Iterator[tuple[str, list[float]]]:
    run = open_run(run_folder)
    matrix = np.asarray(run.distances)
    paths = run.images.column("path").to_pylist()
    place = {Path(path).stem: number for number, path in enumerate(paths)}
    for kind in DISTORTIONS:
        yield (
            kind,
            [
                float(
                    np.mean(
                        [
                            matrix[place[f"scene{n}"], place[f"scene{n}-{kind}{strength}"]]
                            for n in range(SCENES)
                        ]
                    )
                )
                for strength in STRENGTHS
            ],
        )


def demo_rows(outcome: dict[str, Any]) -> list[list[str]]:
    """Return one table row for each distortion: name, distance by strength, verdict."""
    rows = []
    for kind, distances in outcome["distances"].items():
        grows = all(a < b for a, b in pairwise(distances))
        rows.append([kind, *(f"{d:.4f}" for d in distances), "grows" if grows else "does not grow"])
    return rows


def demo_lines(outcome: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the summary lines of both runs, as (name, value) pairs."""
    first, second = outcome["first"], outcome["second"]
    trained = "" if first["trained"] else ": distances only show how it works"
    return [
        ("weights", printable(outcome["weights"]) + trained),
        ("pictures", f"{first['images']}, {first['pairs']:,} pairs"),
        ("first run", f"{first['forwards']} forwards, {first['seconds']['total']:.2f} s"),
        ("second run", f"{second['forwards']} forwards, {second['seconds']['total']:.2f} s"),
    ]
