"""Score how well heads and metrics agree with people."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError, UsageError, setting
from ...pipeline.backbones.layout import LPIPS_BACKBONES
from ...pipeline.common.atomic import check_writable
from ...pipeline.common.progress import Stopwatch
from ...pipeline.common.text import printable
from ...pipeline.distances.heads import Head, load_head
from ...pipeline.images.preparation import Preparation
from ...pipeline.judgements.classical import CLASSICAL, distances_of_pairs
from ...pipeline.judgements.scores import (
    Score,
    choice_scores,
    majority_agreement,
    mean_score,
    precision_score,
    vote_ceiling,
)
from ...pipeline.judgements.table import CHOICES, Judgements, read_judgements
from ...pipeline.pairlists.file import write_table
from ...pipeline.sources.arrays import to_uint8
from ..session.collection import STAGES, check_choice, check_new
from ..session.screen import Screen
from ..session.session import Session, open_session, warn_of_own_trunk
from ..session.settings import Settings, parse_bytes
from .judged import (
    Judged,
    PairStatistics,
    check_folder,
    count_judged,
    files_of,
    find_judged,
    judged_lines,
    pair_statistics_of,
)

METRICS = (*CLASSICAL, "baseline", "stock")
CEILING = "ceiling of the votes"
OVERALL = "mean over sets"
_COLUMNS = ("kind", "set", "metric", "score", "value", "low", "high", "count")
_SHOWN = {"2afc": "2AFC", "jnd": "JND"}
_DECODED_AT_ONCE = 64
_WEIGHED_AT_ONCE = 1 << 22  # numbers of statistics that are float64 at the same time

Numbers = NDArray[np.float64]
Found = TypeVar("Found")


def evaluate_heads(
    sources: Sequence[Path],
    settings: Settings,
    screen: Screen,
    *,
    heads: Sequence[str] = (),
    metrics: str = ",".join(METRICS),
    images: Path | None = None,
    split: str = "val",
    seed: int = 0,
    out: Path | None = None,
) -> dict[str, Any]:
    """Score heads and metrics on judgements, side by side.

    Parameters
    ----------
    sources, images, split
        As for `lpipstore.pipeline.judgements.table.read_judgements`.
    heads
        Head files, or folders of trainings.
    metrics
        Names from `METRICS`, separated by commas.
    seed
        Seed of the bootstrap.
    out
        Parquet file to write the table to; None writes none.

    Returns
    -------
    dict
        ``kinds``: counts for each kind of judgement; ``scores``: the lines of the table;
        ``seconds``.

    Raises
    ------
    LpipstoreError
        An option is invalid, the judgements, images, heads, weights or store cannot be used, or
        `out` cannot be written.
    """
    chosen = [name.strip() for name in metrics.split(",") if name.strip()]
    for name in chosen:
        check_choice("metrics", name, METRICS)
    check_folder("images", images)
    if out is not None and out.suffix != ".parquet":
        raise UsageError(f"{setting('out', printable(str(out)))} must end in .parquet")
    if out is not None:
        if not _holds_scores(out):
            check_new("out", out)
        with _writing(out):
            check_writable(out.parent)
    if "stock" in chosen and settings.backbone not in LPIPS_BACKBONES:
        chosen.remove("stock")
        screen.say(f"there is no stock head for {settings.backbone}: it is left out")
    if not chosen and not heads:
        raise UsageError(f"nothing to evaluate: name {setting('heads')} or {setting('metrics')}")
    clock = Stopwatch(*STAGES)
    kinds = read_judgements(sources, images=images, split=split)
    summary: dict[str, Any] = {"kinds": {}, "scores": []}
    warn_of_own_trunk(heads, settings.weights, screen)
    with open_session(settings, screen, clock) as session:
        for judgements in kinds.values():
            counts, lines = _evaluate_kind(judgements, chosen, heads, session, seed)
            summary["kinds"][judgements.kind] = counts
            summary["scores"] += lines
    summary["seconds"] = {**clock.seconds, "total": clock.total()}
    if out is not None:
        _write(summary["scores"], out)
    return summary


def _evaluate_kind(
    judgements: Judgements,
    chosen: Sequence[str],
    heads: Sequence[str],
    session: Session,
    seed: int,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the counts and the table lines for the judgements of one kind."""
    judged = find_judged(judgements, session)
    backbone = judged.collection.features.extractor.backbone
    choices = {"baseline": "none", "stock": None}
    wanted = [(name, choices[name]) for name in chosen if name in choices]
    wanted += [(_label(head), head) for head in heads]
    known = {
        name: load_head(choice, backbone.name, backbone.channels, backbone.version)
        for name, choice in wanted
    }
    judged, statistics = pair_statistics_of(judged, session)
    classical = [name for name in chosen if name in CLASSICAL]
    distances = _classical(classical, judged, statistics, session) if classical else {}
    with session.clock("score"):
        distances |= _weighed(statistics.numbers, known)
        ordered = {name: distances[name] for name in (*classical, *known)}
        lines = _lines(judged.judgements, statistics, ordered, seed)
    return count_judged(judged, statistics), lines


def _weighed(numbers: NDArray[np.float32], heads: Mapping[str, Head]) -> dict[str, Numbers]:
    """Return the distances of pairs under each head, computed from their statistics."""
    distances = {name: np.empty(len(numbers)) for name in heads}
    at_once = max(1, _WEIGHED_AT_ONCE // numbers.shape[1])
    for start in range(0, len(numbers), at_once):
        part = slice(start, start + at_once)
        exact = numbers[part].astype(np.float64)
        for name, head in heads.items():
            distances[name][part] = exact @ np.concatenate(head.weights).astype(np.float64)
    return distances


def _classical(
    names: Sequence[str], judged: Judged, statistics: PairStatistics, session: Session
) -> dict[str, Numbers]:
    """Return the distance of each distinct pair under the classical (pixel) metrics."""
    how = judged.collection.features.extractor.preparation
    files = files_of(judged)

    def load(numbers: NDArray[np.int64]) -> torch.Tensor:
        with session.clock("decode"):
            return _decode([files[n] for n in numbers.tolist()], how, session)

    return distances_of_pairs(
        names,
        statistics.pairs,
        judged.contents,
        how.size,
        load,
        parse_bytes(session.settings.memory),
        clock=session.clock,
        report=session.screen.report,
    )


def _decode(files: Sequence[tuple[str, bytes]], how: Preparation, session: Session) -> torch.Tensor:
    pixels = torch.empty((len(files), *how.size, 3), dtype=torch.uint8)
    for decoded in session.decode(files, how, _DECODED_AT_ONCE):
        for number, reason in decoded.failures.items():
            raise LpipstoreError(f"{printable(files[number][0])} cannot be used: {reason}")
        if decoded.indices:
            pixels[torch.tensor(decoded.indices)] = to_uint8(decoded.pixels)
    return pixels


def _lines(
    judgements: Judgements,
    statistics: PairStatistics,
    distances: dict[str, Numbers],
    seed: int,
) -> list[dict[str, Any]]:
    """Return a line for each score, metric and set, and for the mean over sets."""
    answers, sets = judgements.answers, judgements.set_of
    by_judgement = np.stack(list(distances.values()))[:, statistics.place]
    if judgements.kind == CHOICES:
        d0, d1 = by_judgement[..., 0], by_judgement[..., 1]
        tables = {
            "2afc": mean_score(choice_scores(d0, d1, answers), sets, seed),
            "agreement": mean_score(majority_agreement(d0, d1, answers), sets, seed),
        }
    else:
        tables = {"average precision": precision_score(by_judgement[..., 0], answers, sets, seed)}
    present = np.unique(sets).tolist()
    names = [judgements.sets[number] for number in present]
    lines = [
        _line(judgements.kind, name, metric, kind, score)
        for kind, found in tables.items()
        for name, scores in _named(names, found)
        for metric, score in zip(distances, scores, strict=True)
    ]
    if judgements.kind == CHOICES:
        ceilings = [vote_ceiling(answers[sets == number]) for number in present]
        counts = [int((sets == number).sum()) for number in present]
        values = [*zip(ceilings, counts, strict=True), (float(np.mean(ceilings)), sum(counts))]
        for name, (value, count) in _named(names, values):
            score = Score(value, float("nan"), float("nan"), count)
            lines.append(_line(judgements.kind, name, CEILING, "2afc", score))
    return lines


def _named(names: Sequence[str], found: Sequence[Found]) -> list[tuple[str, Found]]:
    """Pair values with the names of the sets and of their mean; a single set gets no mean."""
    named = list(zip((*names, OVERALL), found, strict=True))
    return named if len(names) > 1 else named[:1]


def _line(kind: str, set_name: str, metric: str, score_name: str, score: Score) -> dict[str, Any]:
    numbers = score.value, score.low, score.high, score.count
    return dict(zip(_COLUMNS, (kind, set_name, metric, score_name, *numbers), strict=True))


def _label(head: str) -> str:
    """Return the name of a head in the table, distinct from the names of metrics."""
    name = printable(head.rstrip("/"))
    return f"{name} (head)" if name in (*METRICS, CEILING) else name


def _holds_scores(out: Path) -> bool:
    """Return whether a file is an earlier table of scores, which may be overwritten."""
    try:
        with out.open("rb") as file:
            return bool(pq.read_schema(file).names == list(_COLUMNS))
    except (OSError, pa.ArrowException):
        return False


def _write(lines: Sequence[dict[str, Any]], out: Path) -> None:
    with _writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_table(out, pa.Table.from_pylist(list(lines)))


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LpipstoreError(
            f"cannot write {printable(str(out))}: {error.strerror or error}; choose another "
            f"{setting('out')}"
        ) from error


def evaluate_lines(summary: dict[str, Any], out: Path | None) -> list[tuple[str, str]]:
    """Return the summary lines, as (name, value) pairs."""
    lines = [fact for counts in summary["kinds"].values() for fact in judged_lines(counts)]
    lines.append(("seconds", f"{summary['seconds']['total']:.2f}"))
    return lines if out is None else [*lines, ("results", printable(str(out)))]


def evaluate_tables(
    summary: dict[str, Any],
) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """Return title, header and rows of the table of each set; intervals are 95 % bootstrap."""
    tables = []
    for kind, set_name in dict.fromkeys((line["kind"], line["set"]) for line in summary["scores"]):
        lines = [
            line for line in summary["scores"] if (line["kind"], line["set"]) == (kind, set_name)
        ]
        scores = list(dict.fromkeys(line["score"] for line in lines))
        cells = {(line["metric"], line["score"]): line for line in lines}
        rows = [
            (metric, *(text for score in scores for text in _cells(cells.get((metric, score)))))
            for metric in dict.fromkeys(line["metric"] for line in lines)
        ]
        header = [text for score in scores for text in (_SHOWN.get(score, score), "95 %")]
        title = f"{_SHOWN.get(kind, kind)}: {set_name}, {_counts(lines)}"
        tables.append((title, ("metric", *header), rows))
    return tables


def _counts(lines: Sequence[dict[str, Any]]) -> str:
    counts = {line["score"]: line["count"] for line in lines}
    if "agreement" not in counts:
        return f"{lines[0]['count']:,} pairs"
    return f"{counts['2afc']:,} judgements, {counts['agreement']:,} with a majority"


def _cells(line: dict[str, Any] | None) -> tuple[str, str]:
    if line is None or np.isnan(line["value"]):
        return "–", ""
    interval = "" if np.isnan(line["low"]) else f"{line['low']:.4f}–{line['high']:.4f}"
    return f"{line['value']:.4f}", interval
