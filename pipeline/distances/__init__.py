"""The arithmetic of distances: pure functions of rows and a head.

In: rows and the weights of a head. Out: distances. Read first: `distances` (all pairs of two sets
of rows), then `gram` (by matrix products), `direct` (by row differences), `near` (for rows that are
nearly equal); `scoring` has the steps that any process can run, `heads` loads heads, `module` is
the drop-in replacement for `lpips.LPIPS`.
"""
