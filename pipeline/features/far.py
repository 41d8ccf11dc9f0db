"""Rows and weights for workers that do not see the files: asked for, and verified there."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...cache.errors import StoreError
from ...cache.located import Located, RowFile
from ...cache.segmentfiles import Buffers
from ..backbones.backbone import BackboneChoice
from ..backbones.load import load_choice
from ..backbones.trunk import wanted_tensors
from ..common.plane import Ask

ROWS = "rows"
"""Under which name rows are asked for: see `stored_rows`."""


@dataclass(frozen=True)
class FarFile:
    """A segment that another process sees; a `lpipstore.cache.located.RowSource`."""

    sealed: str
    staged: str
    codec: str
    ask: Ask

    def read_rows(self, rooms: Buffers, offsets: Sequence[int]) -> list[bool]:
        """Ask for rows; see `lpipstore.cache.located.RowSource.read_rows`."""
        views = [memoryview(room).cast("B") for room in rooms]
        extents = np.array([[*offsets], [len(view) for view in views]], "<i8")
        answer = memoryview(self.ask(ROWS, self.sealed, self.staged, extents.tobytes()))
        filled, start = answer[: len(views)].tolist(), len(views)
        if len(answer) != start + sum(map(len, views)):
            return [False] * len(views)
        for view in views:
            view[:] = answer[start : start + len(view)]
            start += len(view)
        return list(map(bool, filled))


def far(where: Located, ask: Ask) -> Located:
    """Return where rows lie for processes that do not see the files: they ask for them."""
    files = [file for file in where.files if isinstance(file, RowFile)]
    return replace(
        where, files=tuple(FarFile(file.sealed, file.staged, file.codec, ask) for file in files)
    )


def stored_rows(store: Path, sealed: str, staged: str, extents: bytes) -> bytearray:
    """Answer a `FarFile`: one byte per row, 1 if it was read, and then the rows as stored.

    Nothing is verified: whoever asks knows the checksums.

    Raises
    ------
    StoreError
        The files do not lie in the folder of the store.
    """
    for path in (sealed, staged):
        if not Path(os.path.abspath(path)).is_relative_to(store.absolute()):
            raise StoreError(f"a worker asked for {path}, which is not in the store at {store}")
    offsets, sizes = np.frombuffer(extents, "<i8").reshape(2, -1).tolist()
    answer = bytearray(len(sizes) + sum(sizes))
    view, start, rooms = memoryview(answer), len(sizes), []
    for size in sizes:
        rooms.append(view[start : start + size])
        start += size
    answer[: len(sizes)] = bytes(RowFile(sealed, staged, "").read_rows(rooms, offsets))
    return answer


def weights_called(choice: BackboneChoice) -> str:
    """Return under which name the weights of a trunk are asked for."""
    return f"weights-{choice.digest}"


def stored_weights(choice: BackboneChoice) -> bytes:
    """Return the tensors of a trunk as a file of torch, for `weights_from`."""
    file = io.BytesIO()
    torch.save(wanted_tensors(load_choice(choice).trunk), file)
    return file.getvalue()


def weights_from(ask: Ask, choice: BackboneChoice) -> dict[str, Tensor]:
    """Ask for the tensors of a trunk."""
    file = io.BytesIO(ask(weights_called(choice)))
    return dict(torch.load(file, map_location="cpu", weights_only=True))
