"""Memory for rows: as many as fit, and the least that is told is enough."""

from hypothesis import given
from hypothesis import strategies as st

from lpipstore.pipeline.common.budget import Budget

SIZES = st.integers(0, 1 << 40)


@given(SIZES, st.integers(1, 1 << 24), st.integers(0, 1 << 16), SIZES)
def test_so_many_rows_fit_and_no_more(memory, row_bytes, work, beside):
    budget = Budget(memory, row_bytes, work)
    rows = budget.rows(beside)
    assert budget.bytes(rows, beside) <= memory < budget.bytes(rows + 1, beside)


@given(st.integers(1, 1 << 24), st.integers(1, 5000), SIZES)
def test_the_memory_that_is_told_is_enough(row_bytes, rows, beside):
    budget = Budget(0, row_bytes)
    told = str(budget.too_small(budget.bytes(rows, beside)))
    assert told.startswith(f"memory is too small for rows of {row_bytes / 1e6:.3g} MB: it takes ")
    least = int(told.rpartition("takes ")[2].removesuffix("MB at least")) * 1_000_000
    assert Budget(least, row_bytes).rows(beside) >= rows
