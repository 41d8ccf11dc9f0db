"""LPIPS for whole collections: every image through the backbone once, every pair from the cache.

Names are imported when they are first used, so that ``import lpipstore`` and the command line's
help do not wait for torch.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cache.errors import LpipstoreError
    from .cache.store import FeatureStore
    from .pipeline.distances.module import LPIPS
    from .pipeline.runs.run import DifferentMetrics
    from .workflows.api import (
        below,
        check_model,
        compare,
        distance_matrix,
        duplicates,
        evaluate,
        export_model,
        extract,
        groups,
        nearest,
        pairs,
        rescore,
        score,
        train,
    )
    from .workflows.viewing.run import Run, open_run, open_runs

__all__ = [
    "LPIPS",
    "DifferentMetrics",
    "FeatureStore",
    "LpipstoreError",
    "Run",
    "__version__",
    "below",
    "check_model",
    "compare",
    "distance_matrix",
    "duplicates",
    "evaluate",
    "export_model",
    "extract",
    "groups",
    "nearest",
    "open_run",
    "open_runs",
    "pairs",
    "rescore",
    "score",
    "train",
]

_FACE = ".workflows.api"  # where all other names are
_HOME = {
    "LPIPS": ".pipeline.distances.module",
    "FeatureStore": ".cache.store",
    "LpipstoreError": ".cache.errors",
    "DifferentMetrics": ".pipeline.runs.run",
    "Run": ".workflows.viewing.run",
    "open_run": ".workflows.viewing.run",
    "open_runs": ".workflows.viewing.run",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562 asks for it
    if name == "__version__":
        return version("lpipstore")
    if name in __all__:
        return getattr(import_module(_HOME.get(name, _FACE), __name__), name)
    raise AttributeError(f"module 'lpipstore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
