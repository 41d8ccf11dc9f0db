"""What a head says about the judgements of a training, beside what people said."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ...pipeline.pairlists.file import write_table
from ...pipeline.runs.files import JUDGEMENTS
from ...pipeline.runs.tables import write_images
from ...pipeline.training.models import HeadModel
from ...pipeline.training.trainer import Split
from .judged import Judged


@dataclass(frozen=True)
class Answers:
    """Distances of all judgements under a head.

    Attributes
    ----------
    d0, d1
        float32 [judgements]: distances of p0 and of p1 to ref.
    share
        float32 [judgements]: the share of votes for p1 that the model expects.
    """

    d0: NDArray[np.float32]
    d1: NDArray[np.float32]
    share: NDArray[np.float32]

    @classmethod
    def of(cls, model: HeadModel, split: Split) -> Self:
        """Ask a model; without statistics of the pairs that takes a forward of each image."""
        model.eval()
        everything = np.arange(len(split.weights), dtype=np.int64)
        d0, d1 = split.data.distances(model, everything)
        with torch.no_grad():
            share = torch.sigmoid(model.judge(d0, d1))
        near, far, said = (side.float().cpu().numpy() for side in (d0, d1, share))
        return cls(near, far, said)


def write_answers(
    judged: Judged, split: Split, start: Answers, trained: Answers, out: Path
) -> None:
    """Write ``images.parquet`` and ``judgements.parquet`` of a training.

    The latter has a line for each judgement: its part (train, held_out), the images by their index
    in the former, votes, and distances under the head at the start and under the trained one.
    """
    records = judged.collection.records
    index = np.cumsum([not record.error for record in records]) - 1
    part = np.full(len(judged.judgements), "train", object)
    part[split.held] = "held_out"
    ref, p0, p1 = index[judged.judgements.images].T
    table = pa.table(
        {
            "part": pa.array(part, pa.string()).dictionary_encode(),
            "ref": ref,
            "p0": p0,
            "p1": p1,
            "judge": judged.judgements.answers,
            "votes": judged.judgements.votes,
            "start_d0": start.d0,
            "start_d1": start.d1,
            "d0": trained.d0,
            "d1": trained.d1,
            "expected": trained.share,
        }
    )
    write_images(out, records)
    write_table(out / JUDGEMENTS, table)
