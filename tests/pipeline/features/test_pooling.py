"""Pooled rows: what they hold, and that no distance is ever under its bound."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lpipstore.pipeline.backbones.layout import RowLayout
from lpipstore.pipeline.distances.heads import column_weights, make_head
from lpipstore.pipeline.features.pooling import (
    GRIDS,
    POOLED_ERROR,
    pool_rows,
    pooled_layout,
    pooled_weights,
    useful_grids,
)
from lpipstore.pipeline.features.rows import STEPS
from lpipstore.pipeline.search.pooled_bounds import Grid, images_to_see, project

TAPS = st.tuples(st.integers(1, 6), st.integers(1, 11), st.integers(1, 11))
LAYOUTS = st.lists(TAPS, min_size=1, max_size=3).map(lambda taps: RowLayout(tuple(taps)))
DTYPES = st.sampled_from(["uint16", "int16", "float32"])


def stored(values, dtype):
    """Values of rows as the row dtype holds them."""
    steps = STEPS[dtype]
    return values if dtype == "float32" else (values * steps).round().to(getattr(torch, dtype))


def make_rows(layout, dtype, count, closeness, seed):
    """Unit-normalised random taps as stored; with `closeness` near 1 all are nearly the same."""
    random = torch.Generator().manual_seed(seed)
    taps = []
    for shape in layout.taps:
        common = torch.rand(1, *shape, generator=random)
        tap = (1 - closeness) * torch.rand(count, *shape, generator=random) + closeness * common
        if dtype != "uint16":
            tap = tap - 0.5
        taps.append((tap / tap.norm(dim=1, keepdim=True).clamp(min=1e-6)).flatten(1))
    return stored(torch.cat(taps, 1), dtype)


def make_weights(layout, seed):
    random = np.random.default_rng(seed)
    weights = [
        random.random(c).astype(np.float32) * (random.random(c) > 0.3) for c in layout.channels
    ]
    return column_weights(make_head(weights, "random"), layout)


def means_by_hand(row, layout, grid):
    """The mean of each cell of each tap, in float64, channel by channel."""
    parts = []
    for shape, columns in zip(layout.taps, layout.slices, strict=True):
        tap = row[columns].astype(np.float64).reshape(shape)
        cuts = [
            [side * k // min(grid, side) for k in range(min(grid, side) + 1)] for side in shape[1:]
        ]
        for channel in tap:
            parts += [
                channel[top:bottom, left:right].mean()
                for top, bottom in zip(cuts[0], cuts[0][1:], strict=False)
                for left, right in zip(cuts[1], cuts[1][1:], strict=False)
            ]
    return np.array(parts)


@settings(max_examples=60, deadline=None)
@given(LAYOUTS, DTYPES, st.integers(0, 99))
def test_pooled_rows_are_the_means_of_cells(layout, dtype, seed):
    rows = make_rows(layout, dtype, 2, 0.0, seed)
    for grid, pooled in zip(GRIDS, pool_rows(rows, layout, dtype, GRIDS), strict=True):
        assert pooled.dtype == rows.dtype
        assert pooled.shape == (2, pooled_layout(layout, grid).length)
        by_hand = np.stack([means_by_hand(row, layout, grid) for row in rows.numpy()])
        error = np.abs(pooled.numpy().astype(np.float64) - by_hand) / STEPS[dtype]
        assert error.max() <= POOLED_ERROR[dtype] * (1 + 1e-9)


@settings(max_examples=100, deadline=None)
@given(LAYOUTS, DTYPES, st.sampled_from([0.0, 0.9, 0.999, 1.0]), st.integers(0, 999))
def test_no_distance_is_under_its_bound(layout, dtype, closeness, seed):
    rows, weights = make_rows(layout, dtype, 7, closeness, seed), make_weights(layout, seed)
    values = rows.numpy().astype(np.float64) / STEPS[dtype]
    apart = values[:, None] - values[None]
    distances = np.square(apart) @ weights.astype(np.float64)
    pairs = torch.cartesian_prod(torch.arange(7), torch.arange(7))
    for grid, pooled in zip(GRIDS, pool_rows(rows, layout, dtype, GRIDS), strict=True):
        level = Grid.of(grid, weights, layout, dtype, pooled)
        points = torch.from_numpy(level.prepare(pooled.numpy()))
        limits = level.limit(distances)
        assert (level.bounds(points, points).numpy() <= limits).all()
        all_of_it = torch.full((len(pairs),), torch.inf)
        whole = level.bounds_of(points, pairs, all_of_it)
        assert (whole.numpy() <= limits.reshape(-1)).all()
        # Giving up early on half of the pairs drops none that is within its limit
        middle = torch.full((len(pairs),), float(whole.median()))
        early = level.bounds_of(points, pairs, middle)
        within = whole <= middle
        assert torch.equal(early <= middle, within)
        assert torch.equal(early[within], whole[within])


@settings(max_examples=60, deadline=None)
@given(LAYOUTS, DTYPES, st.sampled_from([0.0, 0.9, 0.999, 1.0]), st.integers(0, 999))
def test_no_distance_is_under_the_bound_of_its_projection(layout, dtype, closeness, seed):
    rows, weights = make_rows(layout, dtype, 9, closeness, seed), make_weights(layout, seed)
    values = rows.numpy().astype(np.float64) / STEPS[dtype]
    distances = np.square(values[:, None] - values[None]) @ weights.astype(np.float64)
    (pooled,) = pool_rows(rows, layout, dtype, (2,))
    grid = Grid.of(2, weights, layout, dtype, pooled[:4])
    points = torch.from_numpy(grid.prepare(pooled.numpy()))
    made = project(grid, points[:5], points.split(4))
    if made is None:  # all that was seen is alike, and equal to the centre
        assert not points[:5].any()
        return
    level, projected = made[0], torch.from_numpy(made[1])
    assert projected.shape == (9, level.width + 1)
    assert (level.bounds(projected, projected).numpy() <= level.limit(distances)).all()


def test_directions_of_all_points_lose_nothing():
    layout = RowLayout(((16, 2, 2), (8, 2, 2)))
    rows, weights = make_rows(layout, "uint16", 40, 0.0, 0), make_weights(layout, 0)
    (pooled,) = pool_rows(rows, layout, "uint16", (2,))
    grid = Grid.of(2, weights, layout, "uint16", pooled)
    points = torch.from_numpy(grid.prepare(pooled.numpy()))
    level, projected = project(grid, points, points.split(16))
    assert level.name == f"{level.width} directions"
    values = rows.numpy().astype(np.float64) / 65535
    distances = np.square(values[:, None] - values[None]) @ weights.astype(np.float64)
    bounds = level.bounds(*[torch.from_numpy(projected)] * 2).numpy()
    assert np.allclose(bounds, distances, atol=1e-3)
    assert np.allclose(level.limit(distances), distances, atol=1e-3)


def test_directions_are_found_from_a_part_of_many_images():
    assert [images_to_see(count) for count in (2, 511, 512, 2000, 10**6)] == [0, 0, 128, 250, 512]


def test_bounds_are_tight_where_cells_are_positions():
    """Taps of 2×2 and 4×3 positions lose nothing in a grid of 4×4."""
    layout = RowLayout(((16, 2, 2), (8, 4, 3)))
    rows, weights = make_rows(layout, "uint16", 5, 0.0, 0), make_weights(layout, 0)
    (pooled,) = pool_rows(rows, layout, "uint16", (4,))
    assert torch.equal(pooled, rows)
    assert np.array_equal(pooled_weights(weights, layout, 4), weights)
    level = Grid.of(4, weights, layout, "uint16", pooled)
    points = torch.from_numpy(level.prepare(pooled.numpy()))
    values = rows.numpy().astype(np.float64) / 65535
    distances = np.square(values[:, None] - values[None]) @ weights.astype(np.float64)
    assert np.allclose(level.bounds(points, points).numpy(), distances, atol=1e-3)


def test_margins_stay_small_against_distances():
    """What rounding takes away must not be what makes a bound hold."""
    layout = RowLayout(((64, 31, 31), (128, 15, 15)))
    rows, weights = make_rows(layout, "uint16", 6, 0.0, 1), make_weights(layout, 1)
    exact = make_rows(layout, "float32", 1, 0.0, 1)
    assert exact.shape == (1, layout.length)
    (pooled,) = pool_rows(rows, layout, "uint16", (4,))
    level = Grid.of(4, weights, layout, "uint16", pooled)
    points = torch.from_numpy(level.prepare(pooled.numpy()))
    v = pooled_weights(weights, layout, 4).astype(np.float64)
    values = pooled.numpy().astype(np.float64) / 65535
    pooled_distances = np.square(values[:, None] - values[None]) @ v
    bounds = level.bounds(points, points).numpy()
    off_diagonal = ~np.eye(6, dtype=bool)
    assert (bounds > 0.98 * pooled_distances)[off_diagonal].all()
    assert (level.limit(pooled_distances) < 1.02 * pooled_distances)[off_diagonal].all()


def test_coarse_cells_are_unions_of_fine_ones():
    """The share of the positions that a coarse cell has is that of its fine cells together."""
    layout = RowLayout(((1, 6, 7),))
    weights = np.full(layout.length, 1 / 42, np.float32)
    for grid in GRIDS:
        pooled = pooled_weights(weights, layout, grid)
        assert pooled.sum() == pytest.approx(1, abs=1e-6)
    rows = torch.arange(42, dtype=torch.float32)[None] / 42
    two, four = pool_rows(rows, layout, "float32", GRIDS)
    means = [
        float(p @ torch.from_numpy(pooled_weights(weights, layout, g)))
        for g, p in zip(GRIDS, (two[0], four[0]), strict=True)
    ]
    assert means == pytest.approx([float(rows.mean())] * 2, rel=1e-6)


def test_grids_that_save_little_are_left_out():
    assert useful_grids(RowLayout(((8, 40, 40),))) == (2, 4)
    assert useful_grids(RowLayout(((8, 8, 8),))) == (2,)
    assert useful_grids(RowLayout(((8, 2, 2),))) == ()
