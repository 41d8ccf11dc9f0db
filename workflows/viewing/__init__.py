"""Distances for people who would rather look than read.

In: finished runs, or images. Out: groups of near-duplicates, clusters, images that cover a
collection, maps of where two images differ. Read first: `duplicates` (groups of the pairs that
`close` finds), `clusters` and `pick` (of a `whole` run of all pairs), `map` (two images, drawn by
`figure`). `outputs` writes what came out, `run` is what people hold in Python.
"""
