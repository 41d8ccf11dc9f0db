"""Rows of numbers under content keys: kept on disk, within a limit, whatever happens.

In: a key and a row. Out: the row, verified, or nothing. Knows nothing of images, torch or LPIPS.
Read first: `store` (the face), `keys` (how the key of a row is made), `segments` (how rows lie on
disk), `eviction` (what leaves when the limit is reached), `recovery` (what a killed process left).
"""
