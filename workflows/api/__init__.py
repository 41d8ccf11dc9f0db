"""The Python face: what the commands do, as functions that take images and return runs.

Every function also takes the keyword arguments of `lpipstore.workflows.session.keywords.Options`.
Nothing is printed unless ``progress=True``; messages go to the logger ``lpipstore``.
"""

from .arrays import distance_matrix, embeddings
from .exporting import check_model, export_model
from .learning import evaluate, train
from .scoring import compare, groups, pairs, score
from .searching import below, nearest, neighbours
from .stores import extract, rescore
from .viewing import duplicates, spatial_map

__all__ = [
    "below",
    "check_model",
    "compare",
    "distance_matrix",
    "duplicates",
    "embeddings",
    "evaluate",
    "export_model",
    "extract",
    "groups",
    "nearest",
    "neighbours",
    "pairs",
    "rescore",
    "score",
    "spatial_map",
    "train",
]
