"""The arithmetic of a distance: pure functions from rows and a head to numbers.

In: rows and the weights of a head. Out: distances. Read first: `distances` (all pairs of two sets
of rows), then `gram` (as a matrix product), `direct` (from differences), `near` (of rows that are
nearly equal); `heads` loads heads, `module` is the drop-in for `lpips.LPIPS`.
"""
