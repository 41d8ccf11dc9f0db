"""What people said: triplets (2AFC) and pairs (JND).

In: a table or a folder of judgements. Out: statistics of the judged pairs, and scores of
distances against people. Read first: `table`, then `pair_features`, `scores`, `classical`.
"""
