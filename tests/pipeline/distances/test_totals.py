"""The sums of the distances of each row to all others, against the matrix."""

import numpy as np
import pytest
import torch

from lpipstore.pipeline.distances.distances import block_of, gram_distances
from lpipstore.pipeline.distances.panels import Columns
from lpipstore.pipeline.distances.totals import distance_totals
from lpipstore.pipeline.features.rows import centre_of
from lpipstore.pipeline.matrix.summary import mean_and_error, pair_summary


def rows_of(dtype, count, length=5000):
    random = np.random.default_rng(0)
    if dtype == "float32":
        return torch.from_numpy(random.random((count, length), np.float32))
    least = 0 if dtype == "uint16" else -32767
    most = np.iinfo(dtype).max
    return torch.from_numpy(random.integers(least, most, (count, length), dtype))


def columns_of(dtype, length=5000, signed=False):
    weights = np.random.default_rng(1).random(length, np.float32) / length
    weights[100:900] = 0
    if signed:
        weights[::3] *= -1
    return Columns.of(weights, dtype, torch.device("cpu"))


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("count", [1, 2, 300])
def test_totals_are_the_row_sums_of_the_matrix(dtype, signed, count):
    rows, columns = rows_of(dtype, count), columns_of(dtype, signed=signed)
    matrix = gram_distances(rows, None, columns, centre_of(rows), block_of(count, 10_000))
    for centre in (None, centre_of(rows)):
        totals = distance_totals(rows, columns, centre)
        np.testing.assert_allclose(totals, matrix.sum(1), atol=1e-6 * count)
    mean, error = mean_and_error(totals.numpy())
    if count < 2:
        assert (mean, error) == (None, None)
        return
    figures = pair_summary(lambda i, j: matrix[i:j].float().numpy(), count, 64)
    assert mean == pytest.approx(figures.mean, abs=1e-6)
    assert error == pytest.approx(figures.stderr, rel=1e-3) if count > 2 else error is None


def test_equal_rows_have_no_distance_and_no_rows_no_totals():
    rows = rows_of("uint16", 1).expand(5, -1).contiguous()
    assert not distance_totals(rows, columns_of("uint16")).any()
    assert len(distance_totals(rows[:0], columns_of("uint16"))) == 0


def test_the_order_of_the_rows_changes_rounding_alone():
    rows, columns = rows_of("uint16", 50), columns_of("uint16")
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    shuffled = torch.from_numpy(rows.numpy()[order.numpy()])
    torch.testing.assert_close(
        distance_totals(shuffled, columns),
        distance_totals(rows, columns)[order],
        rtol=1e-12,
        atol=0,
    )
