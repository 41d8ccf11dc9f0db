"""Embeddings: vectors whose squared Euclidean distances are LPIPS, or bound it from below.

In: rows, pooled rows, a head without negative weights. Out: float32 vectors, in memory or in a file
that other programs read. Read first: `vectors` (the two kinds of embeddings), then `kept` (how much
of the distances a projection keeps) and `files` (what vectors are written to).
"""
