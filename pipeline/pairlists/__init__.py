"""Distances of the pairs that a table lists.

In: a table of paths. Out: a distance for each line. Read first: `table`, then `plan` (each distinct
pair once), `schedule` (which rows are in memory when), `parts` (which pairs are computed together),
`score`, `statistics` (kept to score other heads), `summary`.
"""
