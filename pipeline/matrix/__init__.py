"""All pairs of a collection, or of two.

In: rows and a head. Out: tiles of a matrix. Read first: `plan` (tiles, within the memory), then
`score`, `merge` (a matrix that grew), `summary` (mean, standard error, quantiles).
"""
