"""Learn a head, or head and trunk, from judgements.

In: statistics or images of judged pairs. Out: a head and its curve. Read first: `trainer`, then
`models` (what is learned), `data` (from what), `checkpoint`, `distributed`.
"""
