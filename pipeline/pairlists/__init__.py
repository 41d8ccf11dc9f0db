"""Pairs that a table lists.

In: a table of paths. Out: a distance for each line. Read first: `table`, then `plan` (each
different pair once), `schedule` (which rows are in memory when), `score`, `statistics` (kept for
other heads), `summary`.
"""
