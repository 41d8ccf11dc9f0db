"""Train a head, or head and trunk, on judgements.

In: statistics or images of judged pairs. Out: a head and its training curve. Read first: `trainer`,
then `models` (what is trained), `data` (the training data), `checkpoint`, `distributed`.
"""
