"""Human judgements: of triplets (2AFC) and of pairs (JND).

In: a table or a folder of judgements. Out: statistics of the judged pairs, and scores of how well
distances agree with people. Read first: `table`, then `pair_features`, `scores`, `classical`.
"""
