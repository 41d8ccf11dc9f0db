"""Distances for people who would rather look than read.

In: finished runs, or images. Out: groups of near-duplicates, clusters, images that cover a
collection, the nearest images of new ones, maps of where two images differ, a page of HTML. Read
first: `duplicates` (groups of the pairs that `close` finds), `clusters` and `pick` (of a `whole`
run of all pairs), `neighbours`, `map` (two images, drawn by `figure`), then `report`. `outputs`
writes what came out, `run` is what people hold in Python.
"""
