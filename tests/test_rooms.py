"""The rooms of the house: imports run downwards only, and never in a circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = [
    "cache",
    "pipeline.common",
    "pipeline.sources",
    "pipeline.images",
    "pipeline.backbones",
    "pipeline.features",
    "pipeline.distances",
    "pipeline.graphs",
    "pipeline.runs",
    "pipeline.matrix",
    "pipeline.pairlists",
    "pipeline.search",
    "pipeline.embeddings",
    "pipeline.analysis",
    "pipeline.judgements",
    "pipeline.training",
    "workflows.session",
    "workflows.scoring",
    "workflows.learning",
    "workflows.rerun",
    "workflows.exporting",
    "workflows.viewing",
    "workflows.store",
    "workflows.adapters",
    "workflows.api",
    "workflows.demo",
    "workflows.cli",
]
"""From the ground up: a room imports from itself and from those before it."""


def modules():
    """Yield (module, path), such as ("pipeline.images.find", ...)."""
    for house in ("cache", "pipeline", "workflows"):
        for path in sorted((ROOT / house).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(module, path):
    """Return the modules of ours that a module imports, wherever the import stands in it."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = package[: len(package) - node.level + 1]
        name = ".".join(base + ([node.module] if node.module else []))
        inner = {f"{name}.{alias.name}" for alias in node.names} & set(ALL)
        found |= inner or {name}
    return found


ALL = dict(modules())
GRAPH = {module: imports(module, path) for module, path in ALL.items()}


def room(module):
    return next((name for name in ROOMS if f"{module}.".startswith(f"{name}.")), None)


@pytest.mark.parametrize("module", [module for module in ALL if room(module)])
def test_imports_run_downwards(module):
    height = ROOMS.index(room(module))
    above = {other for other in GRAPH[module] if room(other) and ROOMS.index(room(other)) > height}
    assert not above


def test_every_module_stands_in_a_room():
    outside = {module for module in ALL if room(module) is None}
    assert outside == {"pipeline", "workflows"}  # which hold rooms, and nothing else
    assert not any(GRAPH[module] for module in outside)


def test_no_module_imports_itself_by_way_of_others():
    list(TopologicalSorter(GRAPH).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("house", ["cache", "pipeline"])
def test_what_lies_below_knows_nothing_of_what_is_above(house):
    above = {"cache": ("pipeline", "workflows"), "pipeline": ("workflows",)}[house]
    for module in ALL:
        if module.split(".")[0] == house:
            assert not [other for other in GRAPH[module] if other.split(".")[0] in above]
