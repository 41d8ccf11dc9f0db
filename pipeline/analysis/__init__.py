"""From distances to what people ask of them: groups, clusters, covers, maps, thresholds.

In: pairs and their distances as arrays. Out: groups of near-duplicates and a threshold for them
with its reason (`groups`, `threshold`); trees, orders, clusters and medoids (`hierarchy`), and how
many clusters there are (`silhouette`); a few images that cover all (`cover`); places in a plane
(`scaling`). Read first: `groups`, `hierarchy`. `lpipstore.workflows.viewing` asks for all of them.
"""
