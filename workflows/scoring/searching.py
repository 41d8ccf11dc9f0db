"""Carry out a search for close pairs, part by part, so that whatever interrupts it costs little."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...pipeline.common.progress import Report, Stopwatch
from ...pipeline.search.cascade import Tally
from ...pipeline.search.close import Close
from ...pipeline.search.results import SearchParts
from ...pipeline.search.search import Search
from ...pipeline.search.topk import SAVES, Neighbours

Columns = dict[str, NDArray[Any]]
"""Columns i, j, distance, and rank of neighbours; images are numbered throughout."""


def find(
    search: Search,
    parts: SearchParts,
    clock: Stopwatch,
    below: float | None,
    top_k: int | None,
    report: Report,
) -> tuple[Columns, Tally]:
    """Find the pairs closer than `below`, or the `top_k` nearest of each image, or both.

    By bounds where they pay, else out of the matrix; the answer is the same. What `parts` has of an
    earlier search is not searched again.

    Returns
    -------
    columns, tally
        The pairs sorted by distance, or the neighbours sorted by image and rank; and the work done.
    """
    limit = math.inf if below is None else below
    if top_k is None:
        return all_below(search, parts, clock, limit, report)
    most = min(top_k, search.sides.neighbours)
    tried = Tally()
    if search.pays(most, limit, tried):
        columns, tally = nearest_by_bounds(search, parts, clock, most, limit, report)
    else:
        columns, tally = nearest_by_matrix(search, parts, most, limit, report)
    tally.add(tried)
    return columns, tally


def all_below(
    search: Search, parts: SearchParts, clock: Stopwatch, below: float, report: Report
) -> tuple[Columns, Tally]:
    """Find the pairs closer than `below`, part by part, sorted by distance.

    By bounds as long as they pay, the other parts out of the matrix. Where that changes is written
    down, so that an interrupted search goes on in the same way.
    """
    found: list[tuple[Columns, Tally]] = []
    known, first = parts.read("matrix"), search.parts
    if known is not None:
        first, given_up = int(known[0]["first"]), known[1]
    else:
        given_up = Tally()
        first = search.parts if search.bounds_pay(below, given_up) else 0
    while len(found) < first:
        number = len(found)
        report("parts", number, search.parts)
        part = parts.read(str(number))
        if part is None:
            taken = Tally()
            close = search.try_below(number, below, taken)
            if close is None:
                given_up.arithmetic += taken.arithmetic
                first = number
                break
            part = _keep(parts, number, close, taken, clock)
        found.append(part)
        if not search.part_paid(number, part[1]):
            first = number + 1
    if first < search.parts:
        parts.write("matrix", {"first": np.array(first)}, given_up)
        found += _below_by_matrix(search, parts, clock, first, below, report)
    report("parts", search.parts, search.parts)
    tally = Tally()
    for taken in (*(part[1] for part in found), given_up):
        tally.add(taken)
    columns = {name: np.concatenate([part[0][name] for part in found]) for name in Close._fields}
    order = np.lexsort((columns["j"], columns["i"], columns["distance"]))
    return {name: values[order] for name, values in columns.items()}, tally


def _below_by_matrix(
    search: Search,
    parts: SearchParts,
    clock: Stopwatch,
    first: int,
    below: float,
    report: Report,
) -> list[tuple[Columns, Tally]]:
    """Find the same for the parts from `first` on: candidates tile by tile, then part by part."""
    saved = 0

    def save(pairs: NDArray[np.int64], tiles: NDArray[np.int64]) -> None:
        nonlocal saved
        parts.write(f"tiles-{saved}", {"pairs": pairs, "tiles": tiles}, Tally())
        saved += 1

    candidates = search.candidates(first, below, save)
    while (known := parts.read(f"tiles-{saved}")) is not None:
        candidates.add(known[0]["pairs"], known[0]["tiles"])
        saved += 1
    tally = search.below_by_matrix(first, below, candidates, report)
    pairs, found = candidates.pairs(), []
    for number in range(first, search.parts):
        report("parts", number, search.parts)
        part = parts.read(str(number))
        if part is None:
            part = _keep(parts, number, *search.decide(number, pairs, below), clock)
        found.append(part)
    found[0][1].add(tally)
    return found


def _keep(
    parts: SearchParts, number: int, close: Close, tally: Tally, clock: Stopwatch
) -> tuple[Columns, Tally]:
    """Write down what was found in a part; return it as it is read again."""
    part = dict(close._asdict()), tally
    with clock("write"):
        parts.write(str(number), *part)
    return part


def nearest_by_bounds(
    search: Search,
    parts: SearchParts,
    clock: Stopwatch,
    most: int,
    below: float,
    report: Report,
) -> tuple[Columns, Tally]:
    """Find the `most` nearest of each image, step by step, sorted by image and rank."""
    known = parts.read("nearest")
    found, tally, done = Neighbours(search.sides.searched, most), Tally(), 0
    if known is not None:
        found = Neighbours(search.sides.searched, most, known[0]["codes"])
        tally, done = known[1], int(known[0]["done"])
    every = -(-search.steps // SAVES)
    for step in range(done, search.steps):
        report("steps", step, search.steps)
        tally.add(search.nearest(step, found, below))
        if (step + 1) % every == 0:
            with clock("write"):
                parts.write("nearest", {"codes": found.codes, "done": np.array(step + 1)}, tally)
    report("steps", search.steps, search.steps)
    return _closer(found, below), tally


def nearest_by_matrix(
    search: Search, parts: SearchParts, most: int, below: float, report: Report
) -> tuple[Columns, Tally]:
    """Find the same out of all distances, tile by tile."""
    known = parts.read("tiles")
    found, done = Neighbours(search.sides.searched, most), set[tuple[int, int]]()
    if known is not None:
        found = Neighbours(search.sides.searched, most, known[0]["codes"])
        done = set(map(tuple, known[0]["done"].tolist()))

    def save() -> None:
        tiles = np.array(sorted(done), np.int64).reshape(-1, 2)
        parts.write("tiles", {"codes": found.codes, "done": tiles}, Tally())

    tally = search.by_matrix(found, done, save, report)
    return _closer(found, below), tally


def _closer(found: Neighbours, below: float) -> Columns:
    """Return the table of neighbours that are closer than `below`."""
    columns = found.table()
    close = columns["distance"].astype(np.float64) < below
    return {name: values[close] for name, values in columns.items()}
