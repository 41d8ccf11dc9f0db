"""The kinds of runs, one file each.

In: sources and settings. Out: a run folder and its summary. Read first: `all_pairs`, the simplest;
then `job` (what a kind of run is, and what runs any of them), `kinds` (the list of them),
`pairlist` (what `groups`, `table` and the namesakes of `compare` share), `searching` (what
`close_pairs` and `close_across` share).
"""
