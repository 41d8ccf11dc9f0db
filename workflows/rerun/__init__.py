"""Work on finished runs: rescore, reproduce, update, export.

In: the folder of a run. Out: another run, or an exported file. Read first: `rescore`,
then `reproduce`, `update`, `export`.
"""
