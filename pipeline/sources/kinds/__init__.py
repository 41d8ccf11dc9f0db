"""The kinds of sources, one file each.

In: a path or URL, or what a program holds. Out: the images there, as `..source` describes. Read
first: `files`, the smallest. `sources.KINDS` is the list of those that a path or URL can be of.
"""
