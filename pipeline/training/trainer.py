"""Train a head, and optionally a trunk: run epochs of steps and keep the best epoch."""

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ...cache.errors import LpipstoreError, setting
from ..common.progress import Report, silent
from ..judgements.scores import choice_scores, majority_agreement
from .data import TrainingData
from .distributed import Processes
from .models import HeadModel
from .sampler import share, shuffled, steps

SCHEDULES = ("constant", "cosine", "paper")
Numbers = NDArray[np.int64]
_GUESSING = math.log(2)  # the loss of always predicting 0.5, whatever the answers are
_SHOWN = 5e-5  # half a unit of the last digit of a loss that is shown


@dataclass(frozen=True)
class Hyperparameters:
    """Hyperparameters of a training.

    Attributes
    ----------
    epochs : int
        Maximum number of epochs.
    batch : int
        Judgements per step, over all processes.
    at_once : int
        Judgements per forward in one process; gradients accumulate over a step.
    learning_rate : float
        Learning rate of Adam.
    betas : (float, float)
        Betas of Adam; the paper has 0.5 and 0.999.
    schedule : str
        "constant"; "cosine" to 0; "paper": constant for the first half of the epochs, then linearly
        to 0.
    patience : int
        Stop after this many epochs without a lower held-out loss.
    clip : float or None
        Largest norm of a step's gradient; None for no clipping.
    seed : int
        Seed of the order of the judgements, of dropout and of augmentation.
    """

    epochs: int
    batch: int
    at_once: int
    learning_rate: float
    betas: tuple[float, float]
    schedule: str
    patience: int
    clip: float | None
    seed: int


@dataclass(frozen=True)
class HeadFigures:
    """Metrics of a model on some judgements.

    `loss` is the mean binary cross-entropy, weighted by votes; `choice` the 2AFC score; `agreement`
    the share of judgements with a majority in which the distances agree with it; `count` the number
    of judgements.
    """

    loss: float
    choice: float
    agreement: float
    count: int


def rate_of(schedule: str, epochs: int, epoch: int) -> float:
    """Return the factor on the learning rate in an epoch, counted from 0."""
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * epoch / epochs))
    if schedule == "paper":
        return min(1.0, (epochs - epoch) / (epochs // 2)) if epochs > 1 else 1.0
    return 1.0


@dataclass
class Training:
    """A training after some epoch; `state` and `restore` save and resume it.

    `history` has one mapping per epoch and part (train, held_out); epoch 0 is the start.
    """

    model: HeadModel
    recipe: Hyperparameters
    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_loss: float = math.inf
    best_state: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        learning = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(
            learning, lr=self.recipe.learning_rate, betas=self.recipe.betas
        )
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser,
            lambda epoch: rate_of(self.recipe.schedule, self.recipe.epochs, epoch),
        )
        trunk = self.model.trunk
        half = trunk is not None and trunk.precision == torch.float16
        self.scaler = torch.amp.GradScaler(learning[0].device.type, enabled=half)
        self.generator = torch.Generator().manual_seed(self.recipe.seed)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or none was better for `patience` epochs."""
        waited = self.epoch - self.best_epoch
        return self.epoch >= self.recipe.epochs or waited >= self.recipe.patience

    def state(self) -> dict[str, Any]:
        """Return all that another process needs to resume: tensors, numbers and strings only."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": self.generator.get_state(),
            "epoch": self.epoch,
            "history": self.history,
            "best_epoch": self.best_epoch,
            "best_loss": self.best_loss,
            "best": self.best_state,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Resume from what `state` returned.

        Raises
        ------
        LpipstoreError
            `state` belongs to another training, or is not a training's state.
        """
        try:
            self._restore(state)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise LpipstoreError("it does not belong to this training") from error

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        self.generator.set_state(state["random"])
        self.epoch, self.history = state["epoch"], list(state["history"])
        self.best_epoch, self.best_loss = state["best_epoch"], state["best_loss"]
        self.best_state = dict(state["best"])

    def take_best(self) -> None:
        """Load the weights of the best epoch into the model."""
        self.model.load_state_dict(self.best_state)


@dataclass(frozen=True)
class Split:
    """The judgements of a training, split into those to learn from and those held out.

    Attributes
    ----------
    data : TrainingData
        All judgements.
    learn, held : ndarray
        Numbers of the judgements to learn from, and of those held out (perhaps none).
    shown : ndarray
        Numbers of the judgements to learn from on which the training metrics are computed.
    weights : ndarray
        float64 [all judgements]: the votes.
    """

    data: TrainingData
    learn: Numbers
    held: Numbers
    shown: Numbers
    weights: NDArray[np.float64]


def teach(
    training: Training,
    split: Split,
    processes: Processes,
    after_epoch: Callable[[], None],
    report: Report = silent,
) -> None:
    """Train until `Training.finished`; a restored training continues.

    `after_epoch` is called after each epoch, and after the evaluation of the start, when `training`
    may be saved.

    Raises
    ------
    LpipstoreError
        The loss is no longer finite.
    """
    model = training.model
    # Sums gradients over the processes in each step; wrapped once, as it leaves hooks behind
    together = model if processes.world == 1 else DistributedDataParallel(model)
    if not training.history:
        look(training, split, processes, 0.0)
        after_epoch()
    while not training.finished:
        start = time.perf_counter()
        run_epoch(training, split, processes, together, report)
        training.epoch += 1
        look(training, split, processes, time.perf_counter() - start)
        after_epoch()


def run_epoch(
    training: Training,
    split: Split,
    processes: Processes,
    together: nn.Module,
    report: Report = silent,
) -> None:
    """Train for one epoch; torch's global random states stay as they were.

    `together` is the model, or its wrapper that shares gradients between processes.
    """
    recipe, model = training.recipe, training.model
    order = shuffled(split.learn, training.generator)
    seed = int(torch.randint(1 << 62, (), generator=training.generator))
    plan = [
        (share(step, processes.rank, processes.world, recipe.at_once), split.weights[step].sum())
        for step in steps(order, recipe.batch)
    ]
    parts = [numbers for part, _ in plan for numbers in part.batches]
    batches = split.data.batches(parts, seed % (1 << 32))
    device = next(model.parameters()).device
    model.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed + processes.rank)
        for number, (part, total) in enumerate(plan):
            training.optimiser.zero_grad()
            for place, (numbers, counts) in enumerate(zip(part.batches, part.counts, strict=True)):
                inputs, judge = next(batches)
                # Gradients are averaged over processes, but have to add up over a step
                weight = split.weights[numbers] * counts * processes.world / total
                last = place == len(part.batches) - 1
                with nullcontext() if last else _alone(together):
                    loss = together(inputs, judge, torch.from_numpy(weight).to(judge))
                    training.scaler.scale(loss).backward()
            _step(training)
            report("steps", training.epoch * len(plan) + number + 1, recipe.epochs * len(plan))
    with warnings.catch_warnings():
        # In float16 the scaler skips the first steps until its scale fits, perhaps a whole epoch
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
        training.scheduler.step()


def _alone(together: nn.Module) -> AbstractContextManager[None]:
    """Return a context in which gradients stay in this process."""
    if isinstance(together, DistributedDataParallel):
        return cast(AbstractContextManager[None], together.no_sync())
    return nullcontext()


def _step(training: Training) -> None:
    if training.recipe.clip is not None:
        training.scaler.unscale_(training.optimiser)
        nn.utils.clip_grad_norm_(training.model.parameters(), training.recipe.clip)
    training.scaler.step(training.optimiser)
    training.scaler.update()
    training.model.head.project()


def look(training: Training, split: Split, processes: Processes, seconds: float) -> None:
    """Evaluate the model and record its metrics; keep its weights if it is the best so far.

    Raises
    ------
    LpipstoreError
        A loss is not finite.
    """
    model = training.model
    rate = training.optimiser.param_groups[0]["lr"]
    parts = {"train": split.shown} | ({"held_out": split.held} if len(split.held) else {})
    figures = {}
    for name, numbers in parts.items():
        figures[name] = figures_on(model, split.data, numbers, split.weights, processes)
        training.history.append(
            {
                "epoch": training.epoch,
                "part": name,
                "loss": figures[name].loss,
                "choice": figures[name].choice,
                "agreement": figures[name].agreement,
                "judgements": figures[name].count,
                "learning_rate": rate,
                "seconds": seconds,
            }
        )
    if not all(math.isfinite(part.loss) for part in figures.values()):
        raise LpipstoreError(
            f"the training came apart in epoch {training.epoch}: its loss is not a finite number; "
            f"choose a smaller {setting('learning_rate')} or {setting('clip')}"
        )
    # Without held-out judgements nothing shows which epoch is best: the last one counts
    judged_by = figures["held_out"].loss if "held_out" in figures else -training.epoch
    if judged_by < training.best_loss:
        training.best_loss, training.best_epoch = judged_by, training.epoch
        training.best_state = {
            name: tensor.detach().clone() for name, tensor in model.state_dict().items()
        }


def nothing_learned(training: Training) -> str | None:
    """Return why the kept epoch is no better than the start; None if something was learned.

    The held-out judgements decide, or the training ones if none were held out. Call this after
    `Training.take_best`.
    """
    start, kept = (
        [line for line in training.history if line["epoch"] == epoch][-1]  # the last: held out
        for epoch in (0, training.best_epoch)
    )
    if not training.model.head.weights.any():
        return "all weights of the head have fallen to 0, and so has every distance"
    if not kept["loss"] < start["loss"]:
        return f"no epoch had a lower loss than the head at the start ({start['loss']:.4f})"
    if kept["loss"] > _GUESSING - _SHOWN:
        return f"its loss ({kept['loss']:.4f}) is no lower than that of guessing ({_GUESSING:.4f})"
    if kept["agreement"] < start["agreement"]:
        return (
            f"it agrees with people less often ({kept['agreement']:.4f}) than the head at the "
            f"start ({start['agreement']:.4f})"
        )
    return None


def figures_on(
    model: HeadModel,
    data: TrainingData,
    numbers: Numbers,
    weights: NDArray[np.float64],
    processes: Processes,
) -> HeadFigures:
    """Return the metrics of a model on judgements; each process evaluates its share of them."""
    mine = numbers[processes.rank :: processes.world]
    sums = torch.zeros(6, dtype=torch.float64)
    model.eval()
    if len(mine):
        d0, d1 = data.distances(model, mine)
        chosen = torch.from_numpy(mine).to(data.judge.device)
        judge, weight = data.judge[chosen], torch.from_numpy(weights[mine]).to(data.judge)
        with torch.no_grad():
            loss = model.loss(d0, d1, judge, weight)
        near, far, said = (side.double().cpu().numpy() for side in (d0, d1, judge))
        agrees = majority_agreement(near, far, said)
        sums += torch.tensor(
            [
                float(loss),
                weights[mine].sum(),
                choice_scores(near, far, said).sum(),
                len(mine),
                np.nansum(agrees),
                (~np.isnan(agrees)).sum(),
            ],
            dtype=torch.float64,
        )
    sum_of_loss, votes, choice, count, agreed, decided = _sum(sums, data, processes)
    return HeadFigures(
        sum_of_loss / votes,
        choice / count,
        agreed / decided if decided else math.nan,
        int(count),
    )


def _sum(sums: Tensor, data: TrainingData, processes: Processes) -> Sequence[float]:
    # nccl supports tensors on GPUs only
    return cast(list[float], processes.add(sums.to(data.judge.device)).tolist())
