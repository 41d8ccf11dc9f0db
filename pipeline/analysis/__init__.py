"""From distances to what people ask of them: groups of near-duplicates, and a threshold for those.

In: pairs and their distances as arrays. Out: arrays of groups, and a threshold with its reason.
Read first: `groups`, `threshold`. `lpipstore.workflows.viewing` asks for both.
"""
