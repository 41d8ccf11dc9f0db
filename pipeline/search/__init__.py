"""Close pairs and nearest neighbours, exactly, without the matrix; of one collection or across two.

In: rows, pooled rows, a head. Out: the pairs closer than a distance, or the k nearest neighbours of
each image. Read first: `search`, then `sides` (which pairs count), `close` and `nearest` (the steps
of the two searches), `cascade` (lower bounds from coarse to fine), `bounds` (why they hold),
`refine` (the distances of the remaining pairs), `sampling` (whether bounds pay).
"""
