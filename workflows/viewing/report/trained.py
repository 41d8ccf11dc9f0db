"""What a page shows of a training: its curves, its heads, and what it says of judgements."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr

from ....pipeline.backbones.layout import LPIPS_BACKBONES
from ....pipeline.backbones.load import family_of
from ....pipeline.distances.heads import HEAD, Head, load_head
from ....pipeline.runs.files import JUDGEMENTS
from ....pipeline.runs.reopen import reading, reopen_recipe
from ....pipeline.runs.run import FinishedRun

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """Some judgements of a training, the images by their places among the usable ones.

    Attributes
    ----------
    images
        int64 [judgements, 3]: ref, p0, p1.
    judge
        float64 [judgements]: share of the votes for p1; `votes` is their number.
    distances
        float64 [judgements, 2]: of p0 and of p1 to ref under the trained head; `before` under the
        head at the start.
    expected
        float64 [judgements]: the share of votes for p1 that the trained head expects.
    """

    images: NDArray[np.int64]
    judge: Numbers
    votes: Numbers
    distances: Numbers
    before: Numbers
    expected: Numbers

    def wrong(self, distances: Numbers) -> NDArray[np.bool_]:
        """Return for which judgements the distances disagree with the majority of the votes."""
        return np.asarray((self.judge - 0.5) * (distances[:, 0] - distances[:, 1]) < 0)

    def worst(self, most: int) -> NDArray[np.int64]:
        """Return what the votes speak against most, worst first: by the G-statistic of each.

        That is 2 · votes · KL(votes cast ‖ votes expected), so that many votes weigh more than one.
        """
        cast, expected = self.judge, np.clip(self.expected, 1e-6, 1 - 1e-6)
        against = 2 * self.votes * (rel_entr(cast, expected) + rel_entr(1 - cast, 1 - expected))
        ranked = np.argsort(-against, kind="stable")
        return ranked[self.wrong(self.distances)[ranked]][:most]

    def improved(self, most: int) -> NDArray[np.int64]:
        """Return what was wrong at the start and no longer is, the largest change first.

        Heads have scales of their own, so the change is that of d0 / (d0 + d1), times the majority
        in votes.
        """
        change = _lean(self.distances) - _lean(self.before)
        gain = change * (2 * self.judge - 1) * self.votes
        better = self.wrong(self.before) & ~self.wrong(self.distances) & (gain > 0)
        ranked = np.argsort(-gain, kind="stable")
        return ranked[better[ranked]][:most]


def _lean(distances: Numbers) -> Numbers:
    total = distances.sum(1)
    return np.asarray(np.divide(distances[:, 0], total, np.full(len(total), 0.5), where=total > 0))


class TrainingSeen:
    """A finished training, each part read when it is first asked for."""

    def __init__(self, run: FinishedRun) -> None:
        self.run = run

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """A line for each epoch and part, epoch 0 being the start."""
        lines: list[dict[str, Any]] = self.run.metrics.to_pylist()
        return lines

    @cached_property
    def heads(self) -> tuple[Head, Head | None]:
        """The trained head, and the one at the start if that came with LPIPS or was unweighted."""
        recipe = reopen_recipe(self.run)
        name, version = recipe.backbone, recipe.lpips_version
        channels = family_of(name).outline(name, tuple(recipe.taps.split(","))).channels
        trained = load_head(self.run.path / HEAD, name, channels, version)
        choices = ["none", *(["stock"] if name in LPIPS_BACKBONES else [])]
        known = (load_head(choice, name, channels, version) for choice in choices)
        start = (head for head in known if head.digest == recipe.head_digest)
        return trained, next(start, None)

    @cached_property
    def judged(self) -> tuple[str, Judged] | None:
        """The held-out judgements ("held_out"), or all ("train") if none was; None without."""
        if not (self.run.path / JUDGEMENTS).exists():
            return None
        table = self.run.judgements
        with reading(self.run, JUDGEMENTS):
            parts = table["part"].to_pylist()
            which = "held_out" if "held_out" in parts else "train"
            kept = table.filter(np.array([part == which for part in parts]))
            column = {
                name: np.asarray(kept[name].to_numpy(), np.float64)
                for name in kept.column_names
                if name != "part"
            }
            images = np.stack([column[name] for name in ("ref", "p0", "p1")], 1)
            return which, Judged(
                images.astype(np.int64),
                column["judge"],
                column["votes"],
                np.stack([column["d0"], column["d1"]], 1),
                np.stack([column["start_d0"], column["start_d1"]], 1),
                column["expected"],
            )


def training_tiles(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return (name, value, remark) of the main figures of a training."""
    part, where = ("held_out", "held out") if summary["held_out"] else ("train", "trained on")
    heads = {line["head"].partition(" ")[0]: line[part] for line in summary["heads"]}
    start, trained = heads["start"], heads["trained"]
    tiles = [
        (name, f"{trained[key]:.4f}", f"{start[key]:.4f} at the start; {where}")
        for name, key in (("Agreement", "agreement"), ("2AFC score", "choice"), ("Loss", "loss"))
    ]
    judged = f"{summary['held_out']:,} held out"
    tiles.append(("Judgements", f"{summary['judgements']:,}", judged))
    tiles.append(("Epochs", f"{summary['epochs']:,}", f"kept: number {summary['best_epoch']}"))
    tiles.append(("Images", f"{summary['images']:,}", ""))
    return tiles
