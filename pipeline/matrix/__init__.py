"""Distances of all pairs within a collection, or between two.

In: rows and a head. Out: tiles of a matrix. Read first: `plan` (tiles, slabs that fit in memory),
then `score` (reads ahead, computes and writes the tiles), `merge` (a matrix that grew),
`summary` (mean, standard error, quantiles).
"""
