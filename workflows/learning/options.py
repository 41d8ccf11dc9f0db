"""Training options."""

import math
from dataclasses import dataclass
from pathlib import Path

from ...cache.errors import UsageError, setting
from ...pipeline.training.augmentation import AUGMENTATIONS
from ...pipeline.training.models import LOSSES
from ...pipeline.training.trainer import SCHEDULES, Hyperparameters
from ..session.collection import check_choice
from .judged import check_folder

_AT_ONCE = 16


@dataclass(frozen=True)
class TrainOptions:
    """Training options; None selects a suitable default.

    `held_out` is the share of judgements to hold out, unless `held_out_from` names the judgements
    to hold out.
    """

    held_out: float = 0.1
    held_out_from: Path | None = None
    images: Path | None = None
    split: str = "train"
    use_votes: bool = True
    loss: str = "bce"
    epochs: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    schedule: str | None = None
    patience: int = 10
    dropout: float = 0.0
    seed: int = 0
    tune_trunk: bool = False
    augment: str = ""
    independent: bool = False
    at_once: int = _AT_ONCE
    clip: float | None = None

    @property
    def changes(self) -> tuple[str, ...]:
        """The augmentations that `augment` names."""
        return tuple(name.strip() for name in self.augment.split(",") if name.strip())

    @property
    def through_network(self) -> bool:
        """Whether images go through the trunk in every epoch."""
        return self.tune_trunk or bool(self.changes)

    def recipe(self) -> Hyperparameters:
        """Return the hyperparameters: the paper's small steps through the network, else large ones.

        Without the network, 60 epochs of large steps with a cosine schedule take seconds.
        """
        network = self.through_network
        batch = self.batch or (50 if network else 256)
        return Hyperparameters(
            epochs=self.epochs or (10 if network else 60),
            batch=batch,
            at_once=self.at_once if network else batch,
            learning_rate=self.learning_rate or (1e-4 if network else 0.1),
            betas=(0.5, 0.999) if network else (0.9, 0.999),
            schedule=self.schedule or ("paper" if network else "cosine"),
            patience=self.patience,
            clip=self.clip,
            seed=self.seed,
        )


def check_options(options: TrainOptions) -> None:
    """Raise `UsageError` if an option is invalid."""
    check_choice("loss", options.loss, LOSSES)
    check_folder("images", options.images)
    if options.schedule is not None:
        check_choice("schedule", options.schedule, SCHEDULES)
    for change in options.changes:
        check_choice("augment", change, AUGMENTATIONS)
    if options.independent and not options.changes:
        raise UsageError(
            f"{setting('independent')} is about {setting('augment')}: name the changes, too"
        )
    if not 0 <= options.held_out < 1:
        raise UsageError(f"{setting('held_out', options.held_out)} must lie in [0, 1)")
    if not 0 <= options.dropout < 1:
        raise UsageError(f"{setting('dropout', options.dropout)} must lie in [0, 1)")
    if options.learning_rate is not None and not 0 < options.learning_rate < math.inf:
        raise UsageError(
            f"{setting('learning_rate', options.learning_rate)} must be more than 0 and finite"
        )
    if options.clip is not None and not options.clip > 0:
        raise UsageError(f"{setting('clip', options.clip)} must be more than 0")
