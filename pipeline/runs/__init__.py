"""What a run leaves on disk.

In: a manifest, image records, distances. Out: a folder that can be opened, gone on with and
exported. Read first: `files` (names), `writing` (one process at a time), `run` (open it again),
`reopen` (score it again).
"""
