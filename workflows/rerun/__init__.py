"""Work on finished runs: other heads, the same again, what is new, other formats.

In: the folder of a run. Out: another run, or an exported file. Read first: `rescore`.
"""
