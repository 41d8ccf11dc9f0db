"""Crash-safe storage on disk for rows of numbers under content keys, within a size limit.

In: a key and a row. Out: the verified row, or a miss. Knows nothing about images, torch or LPIPS.
Read first: `store` (the public interface), `keys` (how row keys are computed), `segments` and
`footer` (how rows are laid out in a segment), `segmentfiles` (where sealed segments are kept: the
contract for another kind of storage), `loans` and `located` (segments that other processes fill,
and rows that they read, without the index), `eviction` (what is evicted at the limit), `recovery`
(what happens to the leftovers of killed processes).
"""
