"""Judgements that a trained head gets wrong, and those that it gets right since it was trained."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contract import Content, Subject
from ..trained import Judged

_WORST, _IMPROVED = 24, 12


class Mistakes:
    """Triplets with what people said and what the head says."""

    name = "mistakes"
    title = "Disagreements"
    kinds = ("train",)

    def content(self, subject: Subject) -> Content:
        """Return the triplets; a sentence where the training kept none."""
        found = subject.training.judged
        if found is None:
            return Content(
                "Which judgements a trained head still gets wrong.",
                {"rows": None, "through": _through_network(subject)},
            )
        part, judged = found
        wrong, wrong_before = judged.wrong(judged.distances), judged.wrong(judged.before)
        decided = judged.judge != 0.5
        rows = [
            ("Most wrong", _cards(judged, judged.worst(_WORST), subject)),
            ("Wrong at the start, right now", _cards(judged, judged.improved(_IMPROVED), subject)),
        ]
        return Content(
            "Which of the outer two looks more like the reference in the middle? A green frame "
            "marks what most people said; distances, and the votes to be expected, are the head's.",
            {
                "rows": rows,
                "part": "held out" if part == "held_out" else "trained on, as none is held out",
                "decided": int(decided.sum()),
                "wrong": int(wrong.sum()),
                "mended": int((wrong_before & ~wrong).sum()),
                "spoiled": int((wrong & ~wrong_before).sum()),
            },
        )


def _through_network(subject: Subject) -> bool:
    manifest = subject.run.manifest
    return bool(manifest.get("tune_trunk") or manifest.get("augment"))


def _cards(judged: Judged, which: NDArray[np.int64], subject: Subject) -> list[dict[str, Any]]:
    cards = []
    for n in which.tolist():
        records = [subject.usable[image] for image in judged.images[n]]
        names = [subject.name(record) for record in records]
        ref, *others = zip(subject.cast.numbers(records, large=True), names, strict=True)
        share, votes = float(judged.judge[n]), float(judged.votes[n])
        expected = float(judged.expected[n])
        cards.append(
            {
                "ref": ref,
                "sides": [
                    {
                        "image": number,
                        "name": name,
                        "distance": float(judged.distances[n, side]),
                        "before": float(judged.before[n, side]),
                        "votes": _votes((1 - share, share)[side], votes),
                        "expected": f"{100 * (1 - expected, expected)[side]:.0f} %",
                        "people": (share > 0.5) == bool(side) and share != 0.5,
                        "head": judged.distances[n, side] < judged.distances[n, 1 - side],
                    }
                    for side, (number, name) in enumerate(others)
                ],
            }
        )
    return cards


def _votes(share: float, votes: float) -> str:
    """Return votes as people count them, or as a share where their number is not known."""
    cast = share * votes
    if votes > 1 and abs(cast - round(cast)) < 1e-6:
        return f"{round(cast):,} of {round(votes):,}"
    return f"{100 * share:.0f} %"
