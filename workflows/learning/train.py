"""Train a head, and optionally the trunk, on human judgements."""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError, UsageError, setting
from ...pipeline.common.progress import Stopwatch
from ...pipeline.common.text import printable
from ...pipeline.distances.heads import HEAD, TRUNK, Head, load_head, save_head
from ...pipeline.distances.threads import one_thread
from ...pipeline.features.extractor import TRUNK_DTYPES
from ...pipeline.images.loader import cores
from ...pipeline.judgements.scores import vote_ceiling
from ...pipeline.judgements.table import CHOICES, Judgements, join, read_judgements
from ...pipeline.runs.files import METRICS, SUMMARY, write_json
from ...pipeline.runs.writing import differences, writing_run
from ...pipeline.training.augmentation import Augmentation
from ...pipeline.training.checkpoint import (
    CHECKPOINT,
    CURVE,
    draw_curve,
    load_checkpoint,
    save_whole,
    write_metrics,
    write_tensorboard,
)
from ...pipeline.training.data import KnownStatistics, TripletImages
from ...pipeline.training.distributed import Processes, device_of_process, joined
from ...pipeline.training.models import (
    HeadModel,
    LinearHead,
    LogisticJudge,
    TripletStatistics,
    make_judge,
)
from ...pipeline.training.sampler import hold_out, seen_before
from ...pipeline.training.trainer import Split, Training, figures_on, nothing_learned, teach
from ..session.collection import STAGES, check_choice
from ..session.manifest import make_manifest
from ..session.screen import Screen
from ..session.session import Session, open_session
from ..session.settings import Settings
from .answers import Answers, write_answers
from .judged import (
    Judged,
    PairStatistics,
    count_judged,
    files_of,
    find_judged,
    judged_lines,
    pair_statistics_of,
    without_broken,
)
from .options import TrainOptions, check_options

_FEW = 25  # with this many held-out judgements, agreement has a standard error of up to 0.1
_PROBES = 256  # judgements that the initial temperature is computed from
_ADVICE = f"more answers, a smaller {setting('learning_rate')} or more {setting('epochs')} may help"


def train_head(
    sources: Sequence[Path], out: Path, settings: Settings, options: TrainOptions, screen: Screen
) -> dict[str, Any]:
    """Train a head on judgements; write head, metrics, curve and summary to the folder `out`.

    Repeating an interrupted call resumes it after the last finished epoch. Under torchrun every
    process makes the same call, and the first one writes.

    Returns
    -------
    dict
        The summary that is also written to ``summary.json``; empty in all but the first process.

    Raises
    ------
    LpipstoreError
        An option is invalid, the judgements, images, head, weights or store cannot be used, `out`
        holds a different run or cannot be written to, or another process of the training ended.
    """
    check_options(options)
    clock = Stopwatch(*STAGES)
    judgements, held_from = _read(sources, options)
    settings = replace(settings, device=device_of_process(settings.device))
    # Half precision loses digits: a trunk in the training loop stays float32 and is cast as it runs
    whole = replace(settings, trunk_dtype="float32") if options.through_network else settings
    check_choice("trunk_dtype", settings.trunk_dtype, TRUNK_DTYPES)
    with open_session(settings, screen, clock) as session:
        judged = find_judged(judgements, replace(session, settings=whole))
        with joined(judged.collection.features.extractor.device) as processes:
            return _train(judged, held_from, out, session, options, processes)


def _read(sources: Sequence[Path], options: TrainOptions) -> tuple[Judgements, int | None]:
    """Return all judgements, and the number of the first set of `held_out_from` (None without)."""
    judgements = _choices(sources, options, options.split, "split")
    if options.held_out_from is None:
        return judgements, None
    held = _choices([options.held_out_from], options, "val", None)
    return join([judgements, held]), len(judgements.sets)


def _choices(
    sources: Sequence[Path], options: TrainOptions, split: str, chosen_by: str | None
) -> Judgements:
    found = read_judgements(sources, images=options.images, split=split, chosen_by=chosen_by)
    if CHOICES not in found:
        raise UsageError(
            "training needs judgements of triplets (ref, p0, p1, judge); pairs of p0, p1 and same "
            "are for lpipstore evaluate"
        )
    judgements = found[CHOICES]
    if options.use_votes:
        return judgements
    return replace(judgements, votes=np.ones(len(judgements)))


def _train(
    judged: Judged,
    held_from: int | None,
    out: Path,
    session: Session,
    options: TrainOptions,
    processes: Processes,
) -> dict[str, Any]:
    settings, clock, screen = session.settings, session.clock, session.screen
    summary: dict[str, Any] = {}
    manifest = _manifest(judged, held_from, settings, options)
    parts = _split(judged, held_from, options)  # before the folder: an error leaves no folder
    if held_from is not None:
        warn_of_seen(judged, *parts, options, screen)
    with writing_run(out, manifest) if processes.first else nullcontext():
        statistics = None
        if options.through_network:
            judged = without_broken(judged, session, processes)
        else:
            if not processes.first:
                processes.wait()  # for the first one to make the statistics that all then read
            judged, statistics = pair_statistics_of(judged, session)
            if processes.first:
                processes.wait()
        split, trunk = make_split(judged, statistics, held_from, session, options)
        if processes.first:
            warn_of_few(split, options, screen)
        start = judged.collection.head(settings)
        training = begin_training(start, trunk, split, options)
        # Of images that pass through the network this would take as long as another epoch
        before = None if statistics is None else Answers.of(training.model, split)
        checkpoint = load_checkpoint(out / CHECKPOINT)
        if checkpoint is not None:
            resume(training, checkpoint, manifest, out / CHECKPOINT)
            screen.say(f"going on after epoch {training.epoch}")

        def after_epoch() -> None:
            screen.say(told_epoch(training.history))
            if processes.first:
                save_whole(training.state() | {"recipe": manifest}, out / CHECKPOINT)

        with clock("train"), nullcontext() if statistics is None else one_thread():
            teach(training, split, processes, after_epoch, screen.report)
        training.take_best()
        nothing = nothing_learned(training)
        if nothing is not None:
            screen.warn(f"the training learned nothing: {nothing}; {_ADVICE}")
        if processes.first:
            summary = {
                **count_judged(judged, statistics),
                "learned": nothing is None,
                "learned_from": len(split.learn),
                "held_out": len(split.held),
                "epochs": training.epoch,
                "best_epoch": training.best_epoch,
                "heads": _heads(training, split, start),
                "ceiling": _ceilings(judged.judgements.answers, split),
                "seconds": {**clock.seconds, "total": clock.total()},
            }
            if before is not None:
                write_answers(judged, split, before, Answers.of(training.model, split), out)
            write_results(training, out, summary, tune_trunk=options.tune_trunk)
    return summary


def make_split(
    judged: Judged,
    statistics: PairStatistics | None,
    held_from: int | None,
    session: Session,
    options: TrainOptions,
) -> tuple[Split, TripletStatistics | None]:
    """Return the split, and the trunk if images pass through it in every epoch (else None)."""
    settings = session.settings
    learn, held_out = _split(judged, held_from, options)
    extractor = judged.collection.features.extractor
    device = extractor.device
    judge = torch.from_numpy(judged.judgements.answers).to(device, torch.float32)
    votes = judged.judgements.votes
    if statistics is not None:
        known = KnownStatistics(
            torch.from_numpy(statistics.numbers).to(device),
            torch.from_numpy(statistics.place).to(device),
            judge,
        )
        return Split(known, learn, held_out, learn, votes), None
    changes = Augmentation(options.changes, options.independent) if options.changes else None
    images = TripletImages(
        files_of(judged),
        session.sources,
        judged.images,
        judge,
        extractor.preparation,
        options.at_once,
        changes,
        cores() if settings.workers is None else settings.workers,
    )
    # Evaluating on all of them would take as long as learning from them
    shown = _some(learn, len(held_out) or _PROBES, options.seed)
    trunk = TripletStatistics(
        extractor.backbone.to().trunk,
        scaled=extractor.backbone.version == "0.1",
        tune=options.tune_trunk,
        precision=TRUNK_DTYPES[settings.trunk_dtype],
    )
    return Split(images, learn, held_out, shown, votes), trunk


def _manifest(
    judged: Judged, held_from: int | None, settings: Settings, options: TrainOptions
) -> dict[str, Any]:
    asked = asdict(options.recipe())
    del asked["at_once"]  # does not change any result
    return {
        **make_manifest("train", judged.collection, settings),
        "trunk_dtype": settings.trunk_dtype,
        "judgements": judged.digest(),
        "held_out": options.held_out if held_from is None else f"sets from {held_from}",
        "loss": options.loss,
        "dropout": options.dropout,
        "tune_trunk": options.tune_trunk,
        "augment": sorted(options.changes),
        "independent": options.independent,
        **asked,
        "betas": list(asked["betas"]),
    }


def _split(
    judged: Judged, held_from: int | None, options: TrainOptions
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of the judgements to learn from and of those held out."""
    if held_from is None:
        learn, held_out = hold_out(judged.images, options.held_out, options.seed)
    else:
        ours = judged.judgements.set_of < held_from
        learn, held_out = np.flatnonzero(ours), np.flatnonzero(~ours)
        if not len(held_out):
            raise UsageError(f"no judgement of {setting('held_out_from')} can be used")
    if not len(learn):
        raise UsageError("no judgement is left to learn from: hold out fewer")
    return learn, held_out


def resume(
    training: Training, checkpoint: Mapping[str, Any], manifest: Mapping[str, Any], path: Path
) -> None:
    """Resume a training from a checkpoint.

    Raises
    ------
    LpipstoreError
        The checkpoint belongs to another training.
    """
    recipe = checkpoint.get("recipe")
    try:
        if not isinstance(recipe, dict) or differences(recipe, manifest):
            raise LpipstoreError("it does not belong to this training")
        training.restore(checkpoint)
    except LpipstoreError as error:
        raise LpipstoreError(
            f"cannot go on from {printable(str(path))}: {error.message}; remove it, and the same "
            "command begins anew"
        ) from error


def warn_of_seen(
    judged: Judged,
    learn: NDArray[np.int64],
    held_out: NDArray[np.int64],
    options: TrainOptions,
    screen: Screen,
) -> None:
    """Warn if judgements of `held_out_from` are about triplets that the training learns from.

    Triplets are the same if their images have the same bytes, in whatever file.

    Raises
    ------
    UsageError
        All of them are, as with a copy of the training data.
    """
    seen, held = len(seen_before(judged.images, learn, held_out)), len(held_out)
    source = setting("held_out_from", printable(str(options.held_out_from)))
    if seen == held:
        raise UsageError(
            f"all {held:,} judgements of {source} are about triplets that the "
            "training learns from, and would not tell how well the head does on others: name "
            f"others, or leave it out, and {setting('held_out')} holds a share out"
        )
    if seen:
        screen.warn(
            f"{seen:,} of {held:,} judgements of {source} ({seen / held:.0%}) are "
            "about triplets that the training learns from: the figures on what is held out look "
            "better than they are"
        )


def warn_of_few(split: Split, options: TrainOptions, screen: Screen) -> None:
    """Warn if no judgements could be held out, or too few for reliable figures."""
    learn, held = len(split.learn), len(split.held)
    if not held and options.held_out:
        screen.warn(
            f"there are too few judgements ({learn:,}) to hold out a share of "
            f"{options.held_out:g}: "
            "nothing tells how well the head does on others, nor which epoch to keep"
        )
    elif 0 < held < _FEW:
        screen.warn(
            f"few judgements are held out ({held:,}): the agreement with them is uncertain by "
            f"about {0.5 / math.sqrt(held):.2f} (standard error)"
        )


def begin_training(
    start: Head, trunk: TripletStatistics | None, split: Split, options: TrainOptions
) -> Training:
    """Set up a training before its first epoch."""
    device = split.data.judge.device
    model = HeadModel(LinearHead(start, options.dropout), LogisticJudge(1.0), trunk).to(device)
    # The initial temperature is the typical difference (RMS of d0 - d1), whose logit is then ±1
    d0, d1 = split.data.distances(model, _some(split.learn, _PROBES, options.seed))
    spread = float((d0 - d1).double().square().mean().sqrt())
    temperature = spread if spread > 0 and math.isfinite(spread) else 1.0
    model.judge = make_judge(options.loss, temperature, options.seed).to(device)
    return Training(model, options.recipe())


def _some(numbers: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    if len(numbers) <= count:
        return numbers
    return np.sort(np.random.default_rng(seed).choice(numbers, count, replace=False))


def _heads(training: Training, split: Split, start: Head) -> list[dict[str, Any]]:
    """Return the figures on both parts for the unweighted, the starting and the trained head.

    A training through the network compares only the starting and the trained head.
    """
    history = training.history
    heads = [
        {"head": f"start ({start.name})", **_parts(history, 0)},
        {"head": "trained", **_parts(history, training.best_epoch)},
    ]
    if not isinstance(split.data, KnownStatistics):
        return heads
    channels = training.model.head.channels
    baseline = load_head("none", "", channels)
    if baseline.digest == start.digest:
        return heads
    others = {}
    for part, numbers in (("train", split.learn), ("held_out", split.held)):
        if len(numbers):
            other = HeadModel(LinearHead(baseline), training.model.judge)
            other.to(split.data.judge.device)
            found = figures_on(other, split.data, numbers, split.weights, Processes())
            others[part] = {"choice": found.choice, "agreement": found.agreement, "loss": None}
    return [{"head": "unweighted", **others}, *heads]


def _parts(history: Sequence[Mapping[str, Any]], epoch: int) -> dict[str, Any]:
    names = ("choice", "agreement", "loss")
    return {
        line["part"]: {name: line[name] for name in names}
        for line in history
        if line["epoch"] == epoch
    }


def _ceilings(answers: NDArray[np.float64], split: Split) -> dict[str, float]:
    parts = {"train": split.shown, "held_out": split.held}
    return {name: vote_ceiling(answers[part]) for name, part in parts.items() if len(part)}


def write_results(
    training: Training, out: Path, summary: dict[str, Any], *, tune_trunk: bool
) -> None:
    """Write head, metrics, curve and summary, and the trunk if it was trained."""
    save_head(training.model.head.head("trained"), out / HEAD)
    if tune_trunk and training.model.trunk is not None:
        save_whole(training.model.trunk.trunk.state_dict(), out / TRUNK)
    write_metrics(training.history, out / METRICS)
    draw_curve(training.history, training.best_epoch, out / CURVE)
    write_tensorboard(training.history, out)
    write_json(out / SUMMARY, summary)


def told_epoch(history: Sequence[Mapping[str, Any]]) -> str:
    """Return one line with loss and agreement of the last epoch, on train and held-out parts."""
    last = {line["part"]: line for line in history[-2:] if line["epoch"] == history[-1]["epoch"]}
    shown = [
        f"{'held out' if part == 'held_out' else part} loss {line['loss']:.4f} "
        f"agreement {line['agreement']:.4f}"
        for part, line in last.items()
    ]
    return f"epoch {history[-1]['epoch']:>3}  " + "   ".join(shown)


def train_lines(summary: dict[str, Any], out: Path) -> list[tuple[str, str]]:
    """Return the summary lines, as (name, value) pairs."""
    seconds = summary["seconds"]
    stages = ", ".join(f"{name} {seconds[name]:.2f}" for name in ("forward", "score", "train"))
    return [
        *judged_lines(summary),
        *([] if summary["learned"] else [("outcome", "nothing was learned: see the warning")]),
        ("learned from", f"{summary['learned_from']:,} ({summary['held_out']:,} held out)"),
        ("epochs", f"{summary['epochs']}, kept is number {summary['best_epoch']}"),
        ("seconds", f"{seconds['total']:.2f} ({stages})"),
        ("results", f"{printable(str(out))} ({HEAD}, {CHECKPOINT}, {METRICS}, {CURVE}, {SUMMARY})"),
    ]


TRAIN_HEADER = ("figure", "train", "held out", "difference")
_SHOWN = {"choice": "2AFC score", "agreement": "agreement", "loss": "loss"}


def train_rows(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of the table of heads: each figure on train and held-out judgements."""
    rows: list[tuple[str, ...]] = [
        (f"{shown}, {line['head']}", *_side_by_side(line, figure))
        for figure, shown in _SHOWN.items()
        for line in summary["heads"]
        if line["train"][figure] is not None
    ]
    ceiling = {part: {"choice": value} for part, value in summary["ceiling"].items()}
    after = len(summary["heads"])
    rows.insert(after, ("2AFC score, ceiling of the votes", *_side_by_side(ceiling, "choice")))
    return rows


def _side_by_side(line: Mapping[str, Any], figure: str) -> tuple[str, str, str]:
    train = line["train"][figure]
    if "held_out" not in line:
        return f"{train:.4f}", "none", ""
    held_out = line["held_out"][figure]
    return f"{train:.4f}", f"{held_out:.4f}", f"{held_out - train:+.4f}"
