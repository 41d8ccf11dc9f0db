"""Plans of matrices: everything is computed once, in the memory that there is."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lpipstore.cache.errors import UsageError
from lpipstore.pipeline.common.tasks import Crew
from lpipstore.pipeline.distances.panels import PANEL
from lpipstore.pipeline.matrix.plan import MatrixPlan, plan_matrix, shared

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


def tiles_in(plan, rows, columns):
    """List the tiles that begin in a range of rows and one of columns."""
    down, across = (
        range(-(-part.start // plan.tile), -(-part.stop // plan.tile)) for part in (rows, columns)
    )
    return list(itertools.product(down, across))


@given(plans)
def test_every_tile_lies_in_one_piece(plan):
    seen = []
    for step in plan.steps():
        for top, left in plan.pieces(step):
            assert top.start % plan.tile == left.start % plan.tile == 0
            assert top.stop % plan.tile == 0 or top.stop == plan.rows
            assert left.stop % plan.tile == 0 or left.stop == (plan.columns or plan.rows)
            seen += tiles_in(plan, top, left)
    computed = [(i, j) for i, j in seen if plan.columns is not None or j >= i]
    assert sorted(computed) == sorted(plan.tiles())
    assert sum(plan.pairs_in(*tile) for tile in plan.tiles()) == plan.pairs


@given(plans, st.data())
def test_slabs_are_read_before_they_are_used_and_only_for_tiles_to_do(plan, data):
    tiles = plan.tiles()
    todo = data.draw(st.none() | st.sets(st.sampled_from(tiles)))
    loads = plan.loads(todo)
    held = set()
    for step in plan.steps():
        inside = set(tiles_in(plan, step.down.rows, step.across.rows))
        if todo is not None and not inside & todo:
            continue
        needed = {step.down, step.across}
        read = {next(loads) for _ in needed - held}
        assert read == needed - held
        held = needed  # others make room
    assert next(loads, None) is None


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


@given(
    st.integers(1, 60_000),
    st.none() | st.integers(1, 60_000),
    st.integers(2, 20_000_000),
    st.integers(1, 1 << 36),
)
@example(1, None, 2, 1)
def test_a_plan_keeps_to_its_memory_or_says_how_much_it_needs(rows, columns, row_bytes, memory):
    try:
        plan = plan_matrix(rows, row_bytes, memory, columns=columns)
    except UsageError as error:
        least = int(str(error).rpartition("takes ")[2].partition("MB")[0]) * 1_000_000
        assert memory < least
        plan, memory = plan_matrix(rows, row_bytes, least, columns=columns), least
    longest = max(rows, columns or 0)
    count = rows + (columns or 0)
    slabs = 3 if plan.ahead else 2
    held = count if plan.slab >= longest else min(count, slabs * plan.slab)
    side = min(plan.piece, plan.slab)
    assert held * row_bytes + side * side * 28 + 2 * side * PANEL * 4 <= memory
    assert 1 <= plan.tile <= plan.piece <= longest
    assert plan.slab % plan.tile == 0 or plan.slab >= longest
    assert plan.piece % plan.tile == 0 or plan.piece == longest
    assert plan.tile % plan.block == 0 or plan.tile == longest
    plenty = plan_matrix(rows, row_bytes, 1 << 60, columns=columns)
    assert (plenty.tile, plenty.block) == (plan.tile, plan.block)  # which decide over bits


def test_too_little_memory_is_told_with_what_it_takes():
    with pytest.raises(UsageError, match=r"takes \d+MB at least") as told:
        plan_matrix(1000, 3_300_000, 100_000_000)
    least = int(str(told.value).rpartition("takes ")[2].partition("MB")[0])
    assert plan_matrix(1000, 3_300_000, least * 1_000_000).slab >= 16


@pytest.mark.parametrize("columns", [None, 700, 30_000])
@pytest.mark.parametrize("count", [2, 700, 2000, 30_000])
@pytest.mark.parametrize("workers", [1, 2, 16])
def test_a_cluster_gets_enough_pieces_and_none_is_too_large(count, columns, workers):
    row_bytes, memory = 64_000, 1_000_000_000
    crew = Crew(elsewhere=True, workers=lambda: workers, memory=memory)
    plan = plan_matrix(count, row_bytes, 8 * memory, columns=columns)
    cut = shared(plan, row_bytes, crew)
    assert (cut.tile, cut.block, cut.pairs) == (plan.tile, plan.block, plan.pairs)
    pieces = [piece for step in cut.steps() for piece in cut.pieces(step)]
    assert len(pieces) == len(list(cut.steps()))  # one task each
    tiles = len(cut.tiles())
    assert len(pieces) >= min(tiles, workers)
    assert 2 * cut.slab * row_bytes <= memory // 4 * 3
    assert cut.slab % cut.tile == 0 or cut.slab >= max(count, columns or 0)


def test_the_memory_of_a_worker_is_named():
    crew = Crew(elsewhere=True, memory=1000)
    plan = plan_matrix(2000, 64_000, 10**9)
    with pytest.raises(UsageError, match="^memory is too small for .* at least for each worker$"):
        shared(plan, 64_000, crew)
