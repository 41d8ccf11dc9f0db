"""Work on finished runs: rescore, reproduce, update, export, copy.

In: the folder of a run. Out: another run, or an exported file. Read first: `rescore`,
then `reproduce`, `update`, `export`; `copy` brings runs to URLs and from there.
"""
