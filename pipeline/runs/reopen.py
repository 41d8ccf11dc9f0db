"""What a finished run was made of, found again from what it left: images, backbone, rows.

A manifest names the weights of the trunk by their digest, so that rows that are in the store are
found without the weights; these are loaded once a row has to be computed.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ...cache.errors import LpipstoreError, UsageError
from ..backbones.backbone import PREFIX, Backbone, layout_of
from ..backbones.layout import LPIPS_BACKBONES, RowLayout
from ..backbones.taps import checked_channels, empty_model, extractor
from ..backbones.weights import RANDOM_ORIGIN
from ..common.text import printable, unprinted
from ..features.extractor import TRUNK_DTYPES, Extractor
from ..images.survey import ImageRecord
from .files import FORMAT, IMAGES, MANIFEST
from .run import Run

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
)


@dataclass(frozen=True)
class Recipe:
    """What a manifest says of how rows and distances were made, checked for being there."""

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

    @property
    def pixels(self) -> tuple[int, int]:
        """(height, width) of the images."""
        height, width = self.size.split("x")
        return int(height), int(width)

    @property
    def own_taps(self) -> str:
        """The taps as somebody names them: those of the three of LPIPS are not named."""
        return "" if self.backbone in LPIPS_BACKBONES else self.taps

    @property
    def weights_choice(self) -> str:
        """What to write for ``--weights`` to get the weights that the run had."""
        if self.weights_origin == RANDOM_ORIGIN:
            return "random"
        origin = os.path.join(self.folder, self.weights_origin)
        return origin if os.path.isfile(origin) else "imagenet"

    @property
    def row_choice(self) -> str:
        """What to write for ``--row-dtype`` to get the rows that the run had."""
        return "uint16" if self.row_dtype == "int16" else self.row_dtype


def reopen_kind(run: Run, asked: str) -> str:
    """Tell what kind of distances a run has.

    Returns
    -------
    str
        "pairs" (all of a collection), "groups" (those within folders), "close", "compare" (two
        folders, all against all), "paired" (two folders, namesakes) or "score" (a list).

    Raises
    ------
    UsageError
        It has none; `asked` is what wanted some.
    """
    manifest = run.manifest
    command = manifest.get("command")
    if command == "pairs":
        close = "below" in manifest or "top_k" in manifest
        return "groups" if manifest.get("group_by") else "close" if close else "pairs"
    if command == "compare":
        return "paired" if manifest.get("paired") else "compare"
    if command == "score":
        return "score"
    raise UsageError(
        f"{printable(str(run.path))} is a run of lpipstore {printable(str(command))}, and {asked} "
        "takes runs of pairs, compare and score"
    )


def reopen_recipe(run: Run) -> Recipe:
    """Read the recipe of a run from its manifest.

    Raises
    ------
    LpipstoreError
        The manifest is of another format, or damaged; the message says what it lacks.
    """
    manifest, shown = run.manifest, printable(str(run.path / MANIFEST))
    if manifest.get("format") != FORMAT:
        raise LpipstoreError(
            f"{shown} is of format {manifest.get('format')!r}, and this lpipstore reads {FORMAT}"
        )
    wrong = [name for name in _NEEDED if not isinstance(manifest.get(name), str)]
    if wrong:
        raise LpipstoreError(f"{shown} is damaged: no text under {', '.join(wrong)}")
    recipe = Recipe(**{name: manifest[name] for name in _NEEDED})
    if not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", recipe.size):
        raise LpipstoreError(f"{shown} is damaged: {printable(recipe.size)!r} is no size")
    if recipe.backbone not in LPIPS_BACKBONES and not recipe.backbone.startswith(PREFIX):
        raise LpipstoreError(f"{shown} is damaged: no backbone {printable(recipe.backbone)!r}")
    if recipe.trunk_dtype not in TRUNK_DTYPES:
        raise LpipstoreError(f"{shown} is damaged: no number is a {printable(recipe.trunk_dtype)}")
    return recipe


def reopen_records(run: Run) -> list[ImageRecord]:
    """Return the images of a run, in its order; paths are made absolute where they were not.

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
                unprinted(os.path.join(folder, path)) if path else "",  # a list gave none
                None if content is None else bytes.fromhex(content),
                width,
                height,
                size,
                error,
            )
            for path, error, content, width, height, size in zip(*columns, strict=True)
        ]


@contextmanager
def reading(run: Run, table: str) -> Iterator[None]:
    """Turn what goes wrong with what a table of a run holds into an `LpipstoreError`."""
    try:
        yield
    except UsageError:
        raise  # there is no such table
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise LpipstoreError(
            f"the {table} in {printable(str(run.path))} is damaged: "
            f"{printable(str(error).splitlines()[0])}"
        ) from error


@dataclass(frozen=True, eq=False)
class ReopenedBackbone(Backbone):
    """A backbone that a manifest names; its weights are loaded when the trunk is asked for."""

    def layout(self, height: int, width: int) -> RowLayout:
        """Shapes of the taps for images of `height` by `width` pixels, without any weights."""
        if self.name in LPIPS_BACKBONES:
            return layout_of(self.name, None, height, width)
        trunk = extractor(empty_model(self.name.removeprefix(PREFIX)), self.name, self.taps)
        return layout_of(self.name, trunk, height, width)


def reopen_extractor(
    run: Run, load: Callable[[], Backbone], device: torch.device, *, batch: int | None = None
) -> Extractor:
    """Return the extractor that made the rows of a run.

    Parameters
    ----------
    load
        Loads the backbone with its weights; called when a row has to be computed, and only then.
    device
        Where the trunk would run.

    Raises
    ------
    LpipstoreError
        The manifest is damaged, or this version makes rows in another way. Later, when `load` was
        called: its weights are not those of the run.
    """
    recipe = reopen_recipe(run)
    spec = LPIPS_BACKBONES.get(recipe.backbone)
    taps = tuple(recipe.taps.split(","))
    if spec is None:
        trunk = extractor(empty_model(recipe.backbone.removeprefix(PREFIX)), recipe.backbone, taps)

    def make_trunk() -> torch.nn.Module:
        backbone = load()
        if backbone.weights_digest != recipe.weights:
            raise LpipstoreError(
                "rows have to be computed, and the weights from "
                f"{printable(backbone.weights_origin)} are not those of the run "
                f"({printable(recipe.weights_origin)}): name them with --weights FILE"
            )
        return backbone.trunk

    backbone = ReopenedBackbone(
        name=recipe.backbone,
        taps=taps,
        channels=spec.channels if spec else checked_channels(trunk, recipe.backbone, taps),
        signed=spec is None,
        minimum_side=spec.minimum_side if spec else 1,
        version=recipe.lpips_version,
        weights_digest=recipe.weights,
        weights_origin=recipe.weights_origin,
        trained=recipe.weights_origin != RANDOM_ORIGIN,
        make_trunk=make_trunk,
    )
    made = Extractor(
        backbone,
        recipe.pixels,
        row_dtype=recipe.row_choice,
        device=device,
        trunk_dtype=recipe.trunk_dtype,
        batch=batch,
    )
    asked = {**made.spec.recipe, "row_dtype": made.spec.dtype}
    different = [name for name, value in asked.items() if run.manifest.get(name) != value]
    if different:
        raise LpipstoreError(
            f"the run in {printable(str(run.path))} made its rows in another way than this version "
            f"of lpipstore ({', '.join(different)}): score its images anew"
        )
    return made
