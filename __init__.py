"""LPIPS for whole collections: every image through the backbone once, every pair from the cache.

Names are imported when they are first used, so that ``import lpipstore`` and the command line's
help do not wait for torch.
"""

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from .cache.errors import LpipstoreError
    from .cache.store import FeatureStore
    from .pipeline.distances.module import LPIPS
    from .pipeline.runs.run import DifferentMetrics
    from .workflows.adapters import sklearn, torchmetrics
    from .workflows.api import (
        below,
        check_model,
        compare,
        distance_matrix,
        duplicates,
        embeddings,
        evaluate,
        export_model,
        extract,
        groups,
        nearest,
        neighbours,
        pairs,
        rescore,
        score,
        spatial_map,
        train,
    )
    from .workflows.store.exchange import copy_run, pull, push
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
    "copy_run",
    "distance_matrix",
    "duplicates",
    "embeddings",
    "evaluate",
    "export_model",
    "extract",
    "groups",
    "nearest",
    "neighbours",
    "open_run",
    "open_runs",
    "pairs",
    "pull",
    "push",
    "rescore",
    "score",
    "sklearn",
    "spatial_map",
    "torchmetrics",
    "train",
]

_FACE = ".workflows.api"  # where all other names are
_HOME = {
    "LPIPS": ".pipeline.distances.module",
    "FeatureStore": ".cache.store",
    "LpipstoreError": ".cache.errors",
    "DifferentMetrics": ".pipeline.runs.run",
    "Run": ".workflows.viewing.run",
    "copy_run": ".workflows.store.exchange",
    "pull": ".workflows.store.exchange",
    "push": ".workflows.store.exchange",
    "open_run": ".workflows.viewing.run",
    "open_runs": ".workflows.viewing.run",
}

_ADAPTERS = {  # by the names that people import
    f"{__name__}.{name}": f"{__name__}.workflows.adapters.{name}"
    for name in ("sklearn", "torchmetrics")
}


class _Adapters(MetaPathFinder, Loader):
    """Import ``lpipstore.torchmetrics`` and ``lpipstore.sklearn`` from where their code is.

    Files of these names beside this one would hide the real packages from whoever runs Python in
    this folder. There is one module under both names: what it defines is pickled by the longer one.
    """

    def find_spec(
        self, fullname: str, path: "Sequence[str] | None", target: "ModuleType | None" = None
    ) -> ModuleSpec | None:
        """Return a spec for the names of the adapters, None for all others."""
        return ModuleSpec(fullname, self) if fullname in _ADAPTERS else None

    def exec_module(self, module: "ModuleType") -> None:
        """Put the module of the adapter in the place of the empty one that Python has made."""
        sys.modules[module.__name__] = import_module(_ADAPTERS[module.__name__])


if not any(type(finder).__qualname__ == _Adapters.__qualname__ for finder in sys.meta_path):
    sys.meta_path.append(_Adapters())


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562 asks for it
    if name == "__version__":
        return version("lpipstore")
    if f"{__name__}.{name}" in _ADAPTERS:
        return import_module(f"{__name__}.{name}")
    if name in __all__:
        return getattr(import_module(_HOME.get(name, _FACE), __name__), name)
    raise AttributeError(f"module 'lpipstore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
