"""Maintain the feature store: fill, describe, verify, evict, clear.

In: the folder of a store; to fill it, images. Out: figures of what is there, or of what was done.
Read first: `stores`, then `extract`; `push` and `pull` exchange rows with a URL, for Python by way
of `exchange`. The store itself is `lpipstore.cache`.
"""
