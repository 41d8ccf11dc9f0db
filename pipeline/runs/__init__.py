"""What a run leaves on disk.

In: a manifest, image records, distances. Out: a folder that can be opened, continued and exported.
Read first: `files` (names), `writing` (one process at a time), `run` (open a finished run),
`reopen` (score its images again).
"""
