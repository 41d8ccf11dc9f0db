"""Train and evaluate heads on human judgements.

In: tables of judgements. Out: a folder with the head, its metrics and its curve. Read first:
`judged` (images of judgements), then `train`, `evaluate`.
"""
