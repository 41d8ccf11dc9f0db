"""From pixels to rows.

In: decoded pixels and a backbone. Out: rows (unit-normalised taps, 16-bit fixed point by default),
read from the store if it has them. Read first: `extractor` (pixels to rows, and the recipe in a
row's key), then `features` (store or backbone), `rows` (the format), `pooling` (rows that give
lower bounds), `held` and `rowcache` (rows in memory: by plan, and by number on demand), `batches`
and `kept` (rows made by workers of a cluster, and kept in their memory), `parcels` and `far` (the
same for workers that see neither images nor store).
"""
