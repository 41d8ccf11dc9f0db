"""Files of a training: a checkpoint to resume from, its metrics as a table and as a plot."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ...cache.errors import LpipstoreError
from ..common.atomic import replacing
from ..common.text import printable
from ..pairlists.file import write_table

CHECKPOINT = "checkpoint.pt"
CURVE = "curve.png"
_OWN_EVENTS = ".lpipstore"  # suffix of our event files


def save_whole(content: Mapping[str, Any], path: Path) -> None:
    """Write a file with torch, atomically and durably: `path` never holds a partial file."""
    with replacing(path, durable=True) as file:
        torch.save(dict(content), file)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint without running code from it; None if there is none.

    Raises
    ------
    LpipstoreError
        The file is damaged, or not a checkpoint.
    """
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise anything in the reader
        raise LpipstoreError(
            f"{printable(str(path))} is damaged: remove it, and the same command begins anew"
        ) from error
    if not isinstance(content, dict):
        raise LpipstoreError(f"{printable(str(path))} is no checkpoint of a training")
    return content


def write_metrics(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a Parquet table with one line for each epoch and part (train, held_out)."""
    import pyarrow as pa

    write_table(path, pa.Table.from_pylist([dict(line) for line in history]))


def draw_curve(history: Sequence[Mapping[str, Any]], best_epoch: int, path: Path) -> None:
    """Plot loss and agreement over the epochs as a PNG, each for train and held out."""
    from matplotlib.figure import Figure  # not pyplot, which keeps figures and picks a backend

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    names = {"loss": "binary cross-entropy", "agreement": "agreement with the majority"}
    for axes, (key, label) in zip(figure.subplots(1, 2), names.items(), strict=True):
        for part, shown in (("train", "train"), ("held_out", "held out")):
            lines = [line for line in history if line["part"] == part]
            axes.plot(
                [line["epoch"] for line in lines],
                [line[key] for line in lines],
                marker=".",
                label=shown,
            )
        axes.axvline(best_epoch, color="grey", linestyle=":", label=f"kept: epoch {best_epoch}")
        axes.set_xlabel("epoch (0: the head at the start)")
        axes.set_ylabel(label)
        axes.legend()
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)


def write_tensorboard(history: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write the metrics for TensorBoard into ``tensorboard``, if that package is installed.

    Event files of an earlier call are replaced; others in that folder stay.
    """
    if importlib.util.find_spec("tensorboard") is None:
        return
    from torch.utils.tensorboard import SummaryWriter

    target = folder / "tensorboard"
    for earlier in target.glob(f"events.out.tfevents.*{_OWN_EVENTS}"):
        earlier.unlink()  # each call writes the whole history
    with SummaryWriter(str(target), filename_suffix=_OWN_EVENTS) as writer:
        for line in history:
            for name in ("loss", "choice", "agreement"):
                writer.add_scalar(f"{name}/{line['part']}", line[name], line["epoch"])
