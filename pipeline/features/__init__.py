"""From pixels to rows.

In: decoded pixels and a backbone. Out: rows (unit-normalised taps, 16-bit fixed point), from the
store where it has them. Read first: `extractor` (pixels to rows, and the recipe of a row's key),
then `features` (store or backbone), `rows` (the format), `pooling` (rows that bound distances).
"""
