"""Distances of all pairs within a collection, or between two.

In: rows and a head. Out: tiles of a matrix. Read first: `plan` (tiles, slabs that fit in memory),
then `score` (makes tasks of pieces, reads ahead and writes the tiles), `merge` (a matrix that
grew), `summary` (mean, standard error, quantiles).
"""
