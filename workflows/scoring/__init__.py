"""The kinds of runs, one file each.

In: sources and settings. Out: a run folder and its summary. Read first: `all_pairs`, the simplest.
"""
