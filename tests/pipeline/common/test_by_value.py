"""Tensors travel by value: no shared memory, no file handles."""

import pickle
from dataclasses import dataclass, replace
from multiprocessing.reduction import ForkingPickler

import pytest
import torch

from lpipstore.pipeline.common.by_value import ByValue


@dataclass(frozen=True)
class Some(ByValue):
    rows: torch.Tensor
    parts: tuple[tuple[torch.Tensor, ...], ...]
    name: str
    nothing: tuple[torch.Tensor, ...] | None = None


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32, torch.float64])
@pytest.mark.parametrize("pickler", [pickle, ForkingPickler])
def test_a_copy_has_the_same_numbers(dtype, pickler):
    rows = torch.arange(12).reshape(3, 4).to(dtype)
    some = Some(rows[:, 1:3], ((rows[0], rows[1]), ()), "some")
    sent = bytes(pickler.dumps(some))
    assert b"torch.multiprocessing" not in sent
    assert not rows.is_shared()
    copied = pickle.loads(sent)
    assert copied.rows.dtype == dtype
    assert torch.equal(copied.rows, some.rows)
    assert [len(part) for part in copied.parts] == [2, 0]
    assert torch.equal(copied.parts[0][1], rows[1])
    assert (copied.name, copied.nothing) == ("some", None)
    assert replace(copied, name="other").rows is copied.rows
