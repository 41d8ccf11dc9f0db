"""How much of the distances a projection keeps, and how many of the nearest neighbours it finds.

    python -m lpipstore.tests.benchmarks.embeddings FOLDER… [--dims 32 128 512] [--held-out]

Prints for each number of dimensions, and for each kind of rows that can be projected (pooled over a
2×2 or 4×4 grid, or whole), the share of the mean distance that is kept and recall@10: how many of
the ten nearest neighbours by LPIPS are among the ten nearest vectors of a flat FAISS index. The
column "reranked" takes the 50 nearest vectors and compares these by LPIPS. Directions fit the
images that they are derived from better than others: with --held-out they are derived from every
other image, and the rest are compared.
"""

import argparse
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np

from lpipstore.pipeline.embeddings.kept import share_kept
from lpipstore.pipeline.embeddings.vectors import (
    WholeRows,
    fit_projection,
    grids_to_project,
    read_vectors,
)
from lpipstore.pipeline.features.pooled import PooledRows
from lpipstore.pipeline.features.pooling import useful_grids
from lpipstore.workflows.session.logged import LoggedScreen
from lpipstore.workflows.session.session import find_collection, make_collection, open_session
from lpipstore.workflows.session.settings import Settings, parse_bytes

K, MORE = 10, 50


def neighbours(vectors, count):
    """Return the `count` nearest others of each vector by a flat index, [N, count]."""
    index = faiss.IndexFlatL2(vectors.shape[1])
    index.add(vectors)
    _, found = index.search(vectors, count + 1)
    itself = found == np.arange(len(found))[:, None]
    itself[~itself.any(1), -1] = True  # equal images may push it out of the list
    return found[~itself].reshape(len(found), count)


def recall(found, true):
    """Return the mean share of the true neighbours that were found."""
    both = [len(set(a) & set(b)) for a, b in zip(found, true, strict=True)]
    return float(np.mean(both)) / true.shape[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="+")
    parser.add_argument("--dims", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--backbone", default="squeeze")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--size", default="64")
    parser.add_argument("--held-out", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        settings = Settings(
            backbone=chosen.backbone,
            weights=chosen.weights,
            size=chosen.size,
            store=Path(scratch) / "store",
        )
        with LoggedScreen() as screen, open_session(settings, screen) as session:
            collection = make_collection(find_collection(chosen.folder, session), session)
            compare(collection, settings, chosen.dims, chosen.held_out)


def compare(collection, settings, every_dims, held_out):
    features, head = collection.features, collection.head(settings)
    layout, dtype = features.extractor.layout, features.extractor.spec.dtype
    memory = parse_bytes(settings.memory)
    pooled = {grid: PooledRows(features, (grid,)) for grid in useful_grids(layout)}
    pooled[None] = PooledRows(features, ())
    for one in pooled.values():
        one.ensure(collection.contents())
    collection.mark_failures()
    contents = seen = collection.contents()
    if held_out:
        contents, seen = contents[::2], contents[1::2]
    whole = read_vectors(WholeRows.of(head, layout, dtype), pooled[None], contents)
    true = neighbours(whole, K)
    print(f"{len(contents):,} images, rows of {layout.length:,} numbers")
    exported = grids_to_project(layout)[-1:] or (None,)
    for dims in every_dims:
        for grid, source in pooled.items():
            began = time.perf_counter()
            embedding = fit_projection(source, seen, head, dims, memory)
            vectors = read_vectors(embedding, source, contents)
            seconds = time.perf_counter() - began
            kept = share_kept(embedding, source, contents, head, memory)
            found = recall(neighbours(vectors, K), true)
            wider = recall(neighbours(vectors, min(MORE, len(contents) - 1)), true)
            rows = "whole rows" if grid is None else f"{grid}x{grid} pooled"
            mark = " (exported)" if grid == exported[0] else ""
            print(
                f"{dims:>5} dims from {rows:<10}{mark:<11} kept {kept:6.1%}  recall@{K} "
                f"{found:.3f}  reranked from {MORE} {wider:.3f}  {seconds:.1f} s"
            )


if __name__ == "__main__":
    main()
