"""Shared by training and evaluation: from judgements to the statistics of their pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray

from ...cache.errors import LpipstoreError
from ...pipeline.common.text import printable
from ...pipeline.judgements.pair_features import fill_statistics, kept_statistics, number_pairs
from ...pipeline.judgements.table import Judgements
from ...pipeline.training.distributed import Processes
from ..session.collection import Collection, need_images
from ..session.session import Session, make_collection
from ..session.settings import parse_bytes


@dataclass(frozen=True)
class Judged:
    """Judgements whose images are all usable, and these images.

    Attributes
    ----------
    judgements
        The usable judgements.
    left_out
        Number of judgements left out because an image is broken.
    collection
        The images.
    contents
        Content hash of each distinct image.
    images
        int64, shaped like `Judgements.images`: indices into `contents`.
    """

    judgements: Judgements
    left_out: int
    collection: Collection
    contents: list[bytes]
    images: NDArray[np.int64]

    def digest(self) -> str:
        """Return the xxh3-128 (hex) over images, answers and votes; paths are not included."""
        digest = xxhash.xxh3_128(b"".join(self.contents))
        for part in (self.images, self.judgements.answers, self.judgements.votes):
            digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()

    def paths(self) -> list[str]:
        """Return the path of a file for each of `contents`."""
        by_content = {record.content: record.path for record in self.collection.good}
        return [by_content[content] for content in self.contents]


@dataclass(frozen=True)
class PairStatistics:
    """Statistics of the judged pairs.

    Attributes
    ----------
    numbers
        float32 [distinct pairs, channels].
    place
        Indices into `numbers`: int64 [judgements, 2] (ref with p0, ref with p1) or
        [judgements, 1] (p0 with p1).
    pairs
        int64 [distinct pairs, 2]: indices of images in `Judged.contents`.
    kept
        Number of distinct pairs that the store already had.
    """

    numbers: NDArray[np.float32]
    place: NDArray[np.int64]
    pairs: NDArray[np.int64]
    kept: int


def find_judged(judgements: Judgements, session: Session) -> Judged:
    """Survey the images of judgements; leave out judgements with broken images.

    Raises
    ------
    LpipstoreError
        No judgement is left.
    """
    records = session.survey(judgements.paths)
    need_images(records)
    collection = make_collection(records, session)
    return _of_usable(judgements, 0, collection)


def _of_usable(judgements: Judgements, left_out: int, collection: Collection) -> Judged:
    records = collection.records
    good = np.array([not record.error for record in records])
    usable = np.asarray(good[judgements.images].all(axis=1))
    if not usable.any():
        broken = next(record for record in records if record.error)
        raise LpipstoreError(
            "no judgement can be used, as images of each are broken, such as "
            f"{printable(broken.path)}: {broken.error}"
        )
    numbers: dict[bytes, int] = {}
    number = np.array(
        [
            numbers.setdefault(record.content, len(numbers))
            if record.content and not record.error
            else -1
            for record in records
        ]
    )
    left = judgements.only(usable)
    left_out += int((~usable).sum())
    return Judged(left, left_out, collection, list(numbers), number[left.images])


def without_broken(judged: Judged, session: Session, processes: Processes) -> Judged:
    """Decode the images of judgements once; leave out judgements with broken images.

    For trainings that decode images in every epoch, this settles before the first epoch which
    judgements are trained on and which are held out. Images with a row in the store are skipped:
    they were decoded for it. Every process checks its share, and all leave out the same
    judgements.

    Raises
    ------
    LpipstoreError
        No judgement is left.
    """
    features, files = judged.collection.features, files_of(judged)
    unknown = set(features.store.missing([features.key(content) for content in judged.contents]))
    todo = [n for n, content in enumerate(judged.contents) if features.key(content) in unknown]
    broken = torch.zeros(len(files), device=features.extractor.device)

    def look(numbers: Sequence[int]) -> None:
        """Decode images; record those that fail in `features.failures` and `broken`."""
        extractor, done = features.extractor, 0
        these = [files[n] for n in numbers]
        for decoded in session.decode(these, extractor.preparation, extractor.batch):
            for index, reason in decoded.failures.items():
                features.failures[these[index][1]] = reason
                broken[numbers[index]] = 1
            done += len(decoded.indices) + len(decoded.failures)
            session.screen.report("check", done, len(numbers))

    with session.clock("decode"):
        look(todo[processes.rank :: processes.world])
        lost = torch.nonzero(processes.add(broken.clone())).flatten().tolist()
        # Get the reasons for images that another process found broken
        look([n for n in lost if judged.contents[n] not in features.failures])
    for n in lost:
        features.failures.setdefault(judged.contents[n], "another process could not decode it")
    judged.collection.mark_failures()
    if lost:
        judged = _of_usable(judged.judgements, judged.left_out, judged.collection)
    judged.collection.warn_of_trouble(session.screen)
    return judged


def pair_statistics_of(judged: Judged, session: Session) -> tuple[Judged, PairStatistics]:
    """Return the statistics of the judged pairs; compute those missing from the store.

    Only images of missing pairs need a row. Judgements with images that turn out to be broken are
    left out of the `Judged` that is returned.
    """
    features = judged.collection.features
    pairs, place = _pairs_of(judged)
    numbers, known = kept_statistics(features, judged.contents, pairs)
    kept = int(known.sum())
    lacking = np.flatnonzero(~known)
    if len(lacking):
        needed = [judged.contents[n] for n in np.unique(pairs[lacking]).tolist()]
        with judged.collection.pinned("judgements"):
            judged.collection.extract(needed)
            if features.failures:
                judged = _of_usable(judged.judgements, judged.left_out, judged.collection)
                pairs, place = _pairs_of(judged)
                numbers, known = kept_statistics(features, judged.contents, pairs)
                lacking = np.flatnonzero(~known)
            fill_statistics(
                features,
                judged.contents,
                pairs,
                numbers,
                lacking,
                parse_bytes(session.settings.memory),
                session.screen.report,
            )
    judged.collection.warn_of_trouble(session.screen)
    return judged, PairStatistics(numbers, place, pairs, kept)


def _pairs_of(judged: Judged) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    first, *others = judged.images.T
    firsts = np.concatenate([first] * len(others))
    pairs, place = number_pairs(firsts, np.concatenate(others))
    return pairs, place.reshape(len(others), -1).T


def count_judged(judged: Judged, statistics: PairStatistics | None) -> dict[str, Any]:
    """Return the summary entries on judgements and their images."""
    features = judged.collection.features
    told: dict[str, Any] = {
        "judgements": len(judged.judgements),
        "left_out": judged.left_out,
        "sets": list(judged.judgements.sets),
        "images": len(judged.contents),
        "failed": sum(record.error is not None for record in judged.collection.records),
        "forwards": features.forwards,
        "rows_read": features.rows_read,
        "trained": features.extractor.backbone.trained,
    }
    if statistics is not None:
        told["pairs"] = len(statistics.pairs)
        told["pairs_kept"] = statistics.kept
    return told


def judged_lines(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the summary lines for the entries of `count_judged`."""
    lost = f" ({summary['left_out']:,} left out)" if summary["left_out"] else ""
    lines = [
        ("judgements", f"{summary['judgements']:,} of {summary['images']:,} images{lost}"),
    ]
    if "pairs" in summary:
        lines += [
            ("forwards", f"{summary['forwards']:,}"),
            ("pairs", f"{summary['pairs']:,} (statistics kept before: {summary['pairs_kept']:,})"),
        ]
    trunk = "trained" if summary["trained"] else "UNTRAINED: distances mean little"
    return [*lines, ("trunk", trunk)]


def check_folder(name: str, folder: Path | None) -> None:
    """Raise `UsageError` if `folder` is given and is not a folder."""
    from ...cache.errors import UsageError, setting

    if folder is not None and not folder.is_dir():
        raise UsageError(f"{setting(name, printable(str(folder)))} is not a folder")


def files_of(judged: Judged) -> Sequence[tuple[str, bytes]]:
    """Return the path and content hash of each distinct image."""
    return list(zip(judged.paths(), judged.contents, strict=True))
