"""Distances for people who would rather look than read.

In: finished runs, or images. Out: groups of near-duplicates, the nearest images of new ones. Read
first: `close` (the close pairs, below a given or a suggested threshold), then `duplicates` (groups
of them, and where they go); `neighbours`.
"""
