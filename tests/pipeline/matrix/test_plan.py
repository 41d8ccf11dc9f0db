"""Plans of matrices: everything is computed once, in the memory that there is."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpipstore.cache.errors import UsageError
from lpipstore.pipeline.matrix.plan import MatrixPlan, plan_matrix

plans = st.builds(
    MatrixPlan,
    rows=st.integers(1, 40),
    columns=st.none() | st.integers(1, 40),
    tile=st.just(4),
    block=st.just(2),
    slab=st.sampled_from([4, 8, 12, 60]),
    piece=st.sampled_from([4, 8, 60]),
    ahead=st.booleans(),
)


@given(plans)
def test_every_pair_is_computed_once(plan):
    seen = {}
    for step in plan.steps():
        for top, left in plan.pieces(step):
            assert step.down.start <= top.start < top.stop <= step.down.stop
            assert step.across.start <= left.start < left.stop <= step.across.stop
            for i in range(top.start, top.stop):
                for j in range(left.start, left.stop):
                    if plan.columns is not None or j > i:
                        seen[i, j] = seen.get((i, j), 0) + 1
    assert len(seen) == plan.pairs
    assert set(seen.values()) <= {1}


@given(plans)
def test_each_step_reads_one_slab_at_most(plan):
    steps = list(plan.steps())
    for before, after in itertools.pairwise(steps):
        assert len({after.down, after.across} - {before.down, before.across}) <= 1
    assert len(list(plan.loads())) <= len(steps) + 1


def test_the_last_rows_are_read_once():
    plan = MatrixPlan(40, None, 4, 2, 8, 8, False)
    starts = [slab.start for slab in plan.loads()]
    assert [starts.count(start) for start in (0, 8, 16, 24, 32)] == [4, 3, 2, 1, 1]


@pytest.mark.parametrize("count", [2, 200, 1000, 30_000])
@pytest.mark.parametrize("row_bytes", [60_000, 240_000, 3_300_000, 12_200_000])
def test_memory_decides_over_nothing_that_can_be_seen(count, row_bytes):
    plans = []
    for memory in (1_000_000_000, 2_000_000_000, 4_000_000_000, 10**12):
        plan = plan_matrix(count, row_bytes, memory)
        slabs = 1 if plan.slab >= count else 3 if plan.ahead else 2
        rows = min(slabs * plan.slab, count) * row_bytes
        piece = min(plan.piece, plan.slab)
        assert rows + piece * piece * 28 + 2 * piece * 4096 * 4 <= memory
        assert plan.slab % plan.tile == 0 or plan.slab >= count
        assert plan.tile % plan.block == 0 or plan.tile == count
        plans.append((plan.tile, plan.block))
    assert len(set(plans)) == 1


def test_too_little_memory_is_told_with_what_it_takes():
    with pytest.raises(UsageError, match=r"takes \d+MB at least") as told:
        plan_matrix(1000, 3_300_000, 100_000_000)
    least = int(str(told.value).rpartition("takes ")[2].partition("MB")[0])
    assert plan_matrix(1000, 3_300_000, least * 1_000_000).slab >= 16
