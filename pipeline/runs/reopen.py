"""Reopen a finished run: its images, backbone and rows.

A manifest identifies the weights of the trunk by digest, so rows in the store are found without the
weights, which are loaded only if a row has to be computed.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch

from ...cache.errors import LpipstoreError, UsageError, setting
from ..backbones.backbone import Backbone
from ..backbones.load import FAMILIES, choice_of, family_of, load_backbone
from ..backbones.weights import RANDOM_ORIGIN
from ..common.text import printable, unprinted
from ..features.extractor import TRUNK_DTYPES, Extractor
from ..images.preparation import Preparation
from ..images.survey import ImageRecord
from ..sources.identity import FileTable
from ..sources.names import is_there, joined
from ..sources.source import SourceOptions
from .files import FORMAT, IMAGES, MANIFEST
from .run import FinishedRun

_NEEDED = (
    "command",
    "collection",
    "backbone",
    "taps",
    "weights",
    "lpips_version",
    "trunk_dtype",
    "size",
    "weights_origin",
    "row_dtype",
    "head",
    "head_digest",
    "precision",
    "folder",
    "resize",
)


@dataclass(frozen=True)
class Recipe:
    """How the rows and distances of a run were made, from its manifest; no entry is missing."""

    command: str
    collection: str
    backbone: str
    taps: str
    weights: str
    lpips_version: str
    trunk_dtype: str
    size: str
    weights_origin: str
    row_dtype: str
    head: str
    head_digest: str
    precision: str
    folder: str
    resize: str
    colours: str | None = None

    @property
    def preparation(self) -> Preparation:
        """Size, fit and colours of the images."""
        height, width = self.size.split("x")
        return Preparation.of_recipe((int(height), int(width)), self.resize, self.colours)

    @property
    def own_taps(self) -> str:
        """The taps as a user names them: empty for alex, vgg and squeeze, whose taps are fixed."""
        return self.taps if family_of(self.backbone).named_taps else ""

    @property
    def weights_choice(self) -> str:
        """The setting ``weights`` that gives the weights of the run."""
        if self.weights_origin == RANDOM_ORIGIN:
            return "random"
        origin = os.path.join(self.folder, self.weights_origin)
        return origin if os.path.isfile(origin) else "imagenet"

    @property
    def head_choice(self) -> str | None:
        """The setting ``heads`` that gives the head of the run; None is the default."""
        if self.head.startswith("none ("):
            return "none"
        path = os.path.join(self.folder, self.head)
        return path if os.path.isfile(path) else None

    @property
    def row_choice(self) -> str:
        """The setting ``row_dtype`` that gives the rows of the run."""
        return "uint16" if self.row_dtype == "int16" else self.row_dtype


def reopen_kind(run: FinishedRun, asked: str) -> str:
    """Return the kind of distances that a run has.

    Returns
    -------
    str
        "pairs" (all pairs of a collection), "groups" (pairs within folders), "close" (close pairs),
        "compare" (two collections, all against all), "across" (the same, close pairs), "paired"
        (the same, images of the same name) or "score" (a list).

    Raises
    ------
    UsageError
        The run is of another command; the message says that `asked` cannot use it.
    """
    manifest = run.manifest
    command, close = manifest.get("command"), "below" in manifest or "top_k" in manifest
    if command == "pairs":
        return "groups" if manifest.get("group_by") else "close" if close else "pairs"
    if command == "compare":
        return "paired" if manifest.get("paired") else "across" if close else "compare"
    if command == "score":
        return "score"
    raise UsageError(
        f"{printable(str(run.path))} is a run of lpipstore {printable(str(command))}, and {asked} "
        "takes runs of pairs, compare and score"
    )


def reopen_recipe(run: FinishedRun) -> Recipe:
    """Read the recipe of a run from its manifest.

    Raises
    ------
    LpipstoreError
        The manifest has another format or is damaged; the message names the wrong entry.
    """
    manifest, shown = run.manifest, printable(str(run.path / MANIFEST))
    if manifest.get("format") != FORMAT:
        raise LpipstoreError(
            f"{shown} is of format {manifest.get('format')!r}, and this lpipstore reads {FORMAT}"
        )
    wrong = [name for name in _NEEDED if not isinstance(manifest.get(name), str)]
    if wrong:
        raise LpipstoreError(f"{shown} is damaged: no text under {', '.join(wrong)}")
    recipe = Recipe(**{name: manifest[name] for name in _NEEDED}, colours=manifest.get("colours"))
    if not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", recipe.size):
        raise LpipstoreError(f"{shown} is damaged: {printable(recipe.size)!r} is no size")
    if not any(family.takes(recipe.backbone) for family in FAMILIES):
        raise LpipstoreError(f"{shown} is damaged: no backbone {printable(recipe.backbone)!r}")
    if recipe.trunk_dtype not in TRUNK_DTYPES:
        raise LpipstoreError(f"{shown} is damaged: no number is a {printable(recipe.trunk_dtype)}")
    return recipe


def reopen_source_choices(run: FinishedRun) -> dict[str, str]:
    """Return how the sources of a run were read; see `lpipstore.pipeline.sources.source`.

    Raises
    ------
    LpipstoreError
        The manifest is damaged.
    """
    choices, known = run.manifest.get("sources", {}), {f.name for f in fields(SourceOptions)}
    if not isinstance(choices, dict) or not known.issuperset(choices):
        shown = printable(str(run.path / MANIFEST))
        raise LpipstoreError(f"{shown} is damaged: unknown sources {printable(str(choices))}")
    return {name: str(value) for name, value in choices.items()}


def reopen_records(run: FinishedRun) -> list[ImageRecord]:
    """Return the images of a run in order, with absolute paths.

    Relative paths are resolved against the folder that the run was started in. An image without a
    path in a list keeps an empty path.

    Raises
    ------
    LpipstoreError
        The table of images is damaged.
    """
    folder = str(run.manifest["folder"])
    names = ("path", "error", "content_hash", "width", "height", "bytes")
    with reading(run, IMAGES):
        columns = [run.images.column(name).to_pylist() for name in names]
        return [
            ImageRecord(
                unprinted(joined(folder, path), is_there) if path else "",  # a list left it empty
                None if content is None else bytes.fromhex(content),
                width,
                height,
                size,
                error,
            )
            for path, error, content, width, height, size in zip(*columns, strict=True)
        ]


@contextmanager
def reading(run: FinishedRun, table: str) -> Iterator[None]:
    """Turn errors in the contents of a run's table into `LpipstoreError`."""
    try:
        yield
    except UsageError:
        raise  # there is no such table
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise LpipstoreError(
            f"the {table} in {printable(str(run.path))} is damaged: "
            f"{printable(str(error).splitlines()[0])}"
        ) from error


def reopen_extractor(
    run: FinishedRun,
    weights: str,
    device: torch.device,
    table: FileTable | None = None,
) -> Extractor:
    """Return the extractor that made the rows of a run.

    Parameters
    ----------
    weights
        As for `load_backbone`; loaded only if a row has to be computed.
    device
        Device of the trunk.
    table
        As for `load_backbone`.

    Raises
    ------
    LpipstoreError
        The manifest is damaged, or this version makes rows differently. Later, when the trunk is
        first used: the weights are not those of the run.
    """
    recipe = reopen_recipe(run)
    own_taps = tuple(recipe.own_taps.split(",")) if recipe.own_taps else ()

    def make_trunk() -> torch.nn.Module:
        backbone = load_backbone(
            recipe.backbone,
            version=recipe.lpips_version,
            weights=weights,
            taps=own_taps,
            table=table,
        )
        if backbone.weights_digest != recipe.weights:
            raise LpipstoreError(
                "rows have to be computed, and the weights from "
                f"{printable(backbone.weights_origin)} are not those of the run "
                f"({printable(recipe.weights_origin)}): name them with "
                f"{setting('weights', 'FILE')}"
            )
        return backbone.trunk

    family, taps = family_of(recipe.backbone), tuple(recipe.taps.split(","))
    backbone = Backbone(
        outline=family.outline(recipe.backbone, taps),
        version=recipe.lpips_version,
        weights_digest=recipe.weights,
        weights_origin=recipe.weights_origin,
        trained=recipe.weights_origin != RANDOM_ORIGIN,
        make_trunk=make_trunk,
        choice=choice_of(recipe.backbone, recipe.lpips_version, weights, own_taps, recipe.weights),
    )
    made = Extractor(
        backbone,
        recipe.preparation,
        row_dtype=recipe.row_choice,
        device=device,
        trunk_dtype=recipe.trunk_dtype,
    )
    asked = {**made.spec.recipe, "row_dtype": made.spec.dtype}
    different = [name for name, value in asked.items() if run.manifest.get(name) != value]
    if different:
        raise LpipstoreError(
            f"the run in {printable(str(run.path))} made its rows in another way than this version "
            f"of lpipstore ({', '.join(different)}): score its images anew"
        )
    return made
