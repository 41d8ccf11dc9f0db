"""Distances for people who would rather look than read.

In: finished runs, or images. Out: groups of near-duplicates. Read first: `duplicates`.
"""
