"""The figures of a run: what was measured, on how many images, with what result."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from .....cache.errors import spelled
from .....pipeline.common.text import printable
from .....pipeline.runs.files import SUMMARY
from ....learning.train import train_rows
from ..contract import Content, Subject
from ..trained import training_tiles

_BACKBONES = {"alex": "AlexNet", "vgg": "VGG-16", "squeeze": "SqueezeNet"}
_LEVELS = {
    "0.0": "smallest",
    "0.01": "1 %",
    "0.05": "5 %",
    "0.25": "25 %",
    "0.5": "median",
    "0.75": "75 %",
    "0.95": "95 %",
    "0.99": "99 %",
    "1.0": "largest",
}

_DISTANCES = (
    "LPIPS says how different two pictures look to a person: 0 is identical, and the larger the "
    "number, the more they differ."
)
_TRAINING = (
    "Agreement is the share of judgements in which the head sides with the majority; the 2AFC "
    "score is the mean share of votes that it sides with, and has a ceiling where people differ."
)


class RunFigures:
    """The main figures as tiles, what was measured as a list, the quantiles as a table."""

    name = "figures"
    title = "Figures"
    kinds = ()

    def content(self, subject: Subject) -> Content:
        """Return the figures that the run has."""
        summary = subject.run.summary
        return Content(
            _TRAINING if subject.kind == "train" else _DISTANCES,
            {
                "tiles": tiles_of(summary, _sides(subject)),
                "measured": _measured(subject),
                "quantiles": quantiles_of(summary),
                "untrained": summary.get("trained") is False,
                "heads": train_rows(summary) if subject.kind == "train" else [],
            },
        )


def quantiles_of(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (name, distance) of the quantiles of a run; none if it has no distances."""
    levels = summary.get("quantiles") or {}
    return [(name, f"{levels[level]:.4f}") for level, name in _LEVELS.items() if level in levels]


def _sides(subject: Subject) -> list[tuple[str, int]]:
    """Return name and usable images of the two collections compared; nothing for other runs."""
    if subject.kind not in ("compare", "across"):
        return []
    return [(name, len(side)) for name, side in zip(subject.side_names, subject.sides, strict=True)]


def tiles_of(
    summary: dict[str, Any], sides: Sequence[tuple[str, int]] = ()
) -> list[tuple[str, str, str]]:
    """Return (name, value, remark) of the main figures; `sides`: names and sizes of two sides."""
    if "heads" in summary:
        return training_tiles(summary)
    tiles = []
    if (groups := summary.get("groups")) and groups["mean"] is not None:
        stderr, scored = groups["stderr"], groups["scored"]
        remark = "" if stderr is None else f"± {stderr:.4f} standard error, "
        counted = f"{scored:,} group{'' if scored == 1 else 's'}"
        tiles.append(("Mean of groups", f"{groups['mean']:.4f}", remark + counted))
    if summary.get("mean") is not None:
        stderr = summary.get("stderr")
        remark = "" if stderr is None else f"± {stderr:.4f} standard error over images"
        remark = "of the listed pairs" if "listed" in summary else remark
        tiles.append(("Mean distance", f"{summary['mean']:.4f}", remark))
    if quantiles := summary.get("quantiles"):
        tiles.append(
            (
                "Median distance",
                f"{quantiles['0.5']:.4f}",
                f"from {quantiles['0.0']:.4f} to {quantiles['1.0']:.4f}",
            )
        )
    if summary.get("std") is not None:
        tiles.append(("Spread", f"{summary['std']:.4f}", "standard deviation over pairs"))
    if isinstance(summary.get("images"), int):
        failed = summary.get("failed", 0)
        same = summary["images"] - failed - summary.get("unique", summary["images"] - failed)
        remarks = [f"{failed:,} failed"] if failed else []
        remarks += [f"{same:,} identical to others"] if same > 0 else []
        remarks = [f"{count:,} of {name}" for name, count in sides] + remarks
        tiles.append(("Images", f"{summary['images']:,}", ", ".join(remarks) or "all usable"))
    if isinstance(summary.get("pairs"), int):
        alone = summary.get("only_in_first", 0) + summary.get("only_in_second", 0)
        remark = f"{summary['listed']:,} listed" if "listed" in summary else ""
        remark = f"{alone:,} images without a partner" if alone else remark
        tiles.append(("Pairs", f"{summary['pairs']:,}", remark))
    return tiles


def _measured(subject: Subject) -> list[tuple[str, str]]:
    """Return (name, value) of what was measured and how."""
    manifest, run = subject.run.manifest, subject.run
    backbone = str(manifest.get("backbone", ""))
    finished = datetime.fromtimestamp((run.path / SUMMARY).stat().st_mtime, UTC)
    size = str(manifest.get("size", "")).replace("x", " × ")
    entries = [
        ("Images from", subject.names[0]),
        ("Backbone", _BACKBONES.get(backbone, backbone)),
        ("Head", manifest.get("head")),
        ("Size", f"{size} px, {manifest.get('resize')}" if size else ""),
        ("LPIPS version", manifest.get("lpips_version")),
        ("Weights", manifest.get("weights_origin")),
        ("Precision", manifest.get("precision")),
        ("Finished", f"{finished:%Y-%m-%d %H:%M} UTC"),
        ("Made by", f"lpipstore {manifest.get('versions', {}).get('lpipstore', '')}"),
        ("Run", str(run.path)),
    ]
    return [(name, printable(spelled(str(value)))) for name, value in entries if value]
