"""How far distances are from a float64 reference, and from the `lpips` package.

    python tests/benchmarks/accuracy.py FOLDER [--images 24]

Photographs of the folder, and for some of them: a copy with noise of ±1, a copy with one pixel
changed, and the photograph once more. The reference adds up v (x - y)² of the stored rows in
float64, column by column. AlexNet and VGG-16 run with seeded random trunks where no weights are at
hand: the arithmetic is the same.
"""

import argparse
import tempfile
from pathlib import Path

import lpips
import numpy as np
import torch
from against_lpips import reference

from lpipstore.cache.store import FeatureStore
from lpipstore.pipeline.backbones.load import load_backbone
from lpipstore.pipeline.backbones.weights import WeightsMissing
from lpipstore.pipeline.distances.heads import column_weights, load_head
from lpipstore.pipeline.features.extractor import Extractor
from lpipstore.pipeline.features.features import Features
from lpipstore.pipeline.features.rows import STEPS
from lpipstore.pipeline.images.decode import decode
from lpipstore.pipeline.images.loader import decode_arrays
from lpipstore.pipeline.images.preparation import Preparation
from lpipstore.pipeline.matrix.plan import plan_matrix
from lpipstore.pipeline.matrix.score import score_matrix
from lpipstore.pipeline.sources.sources import Sources
from lpipstore.workflows.scoring.in_memory import MatrixInMemory
from lpipstore.workflows.session.settings import Settings

CHANGED = 4  # photographs that have near-duplicates


def images_of(folder: str, count: int, size: int) -> torch.Tensor:
    """Return [count + 3 * CHANGED, size, size, 3] uint8: photographs, then what is near them."""
    paths = Sources().find([folder]).names[:count]
    photographs = [decode(Path(path).read_bytes(), Preparation((size, size))) for path in paths]
    random = np.random.default_rng(0)
    noisy, pixel, same = [], [], []
    for image in photographs[:CHANGED]:
        noise = random.integers(-1, 2, image.shape, np.int16)
        noisy.append((image.astype(np.int16) + noise).clip(0, 255).astype(np.uint8))
        one = image.copy()
        one[size // 2, size // 3] ^= 0x40
        pixel.append(one)
        same.append(image.copy())
    return torch.from_numpy(np.stack(photographs + noisy + pixel + same))


def in_float64(rows: np.ndarray, weights: np.ndarray, dtype: str) -> np.ndarray:
    """Return all distances of stored rows, added up in float64."""
    values = weights.astype(np.float64) / STEPS[dtype] ** 2
    exact = np.zeros((len(rows), len(rows)))
    for i in range(len(rows)):
        for j in range(i):
            apart = rows[i].astype(np.float64) - rows[j].astype(np.float64)
            exact[i, j] = exact[j, i] = np.dot(apart * apart, values)
    return exact


@torch.inference_mode()
def by_lpips(module: lpips.LPIPS, images: torch.Tensor) -> np.ndarray:
    """Return all distances of images as the package gives them."""
    pixels = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    rows = [
        torch.cat([module(pixels[i : i + 1], part).flatten() for part in pixels.split(16)])
        for i in range(len(pixels))
    ]
    return torch.stack(rows).numpy().astype(np.float64)


def compare(backbone: str, size: int, images: torch.Tensor, store: FeatureStore) -> None:
    weights = "imagenet"
    try:
        trunk = load_backbone(backbone)
    except WeightsMissing:
        weights = "random"
        trunk = load_backbone(backbone, weights=weights)
    theirs = by_lpips(reference(Settings(backbone=backbone, weights=weights)), images)
    head = load_head(None, backbone, trunk.channels, trunk.version)
    count = len(images)
    upper = np.triu_indices(count, 1)
    for dtype in ("uint16", "float32"):
        extractor = Extractor(trunk, (size, size), row_dtype=dtype)
        contents = [f"{number:016}".encode() for number in range(count)]
        pixels = dict(zip(contents, images, strict=True))
        features = Features(
            extractor, store, lambda which, batch, p=pixels: decode_arrays(p, which, batch)
        )
        features.ensure(contents)
        column = column_weights(head, extractor.layout)
        plan = plan_matrix(count, extractor.spec.row_bytes, 4_000_000_000)
        matrix = MatrixInMemory(count, plan.tile)
        score_matrix(features, contents, None, column, plan, matrix)
        ours, exact = matrix.array, in_float64(features.rows(contents), column, dtype)
        off = np.abs(ours - exact)[upper]
        differ = exact[upper] > 0
        relative = (off[differ] / exact[upper][differ]).max()
        apart = np.abs(ours - theirs)[upper]
        large = theirs[upper] > 1e-5
        of_large = (apart[large] / theirs[upper][large]).max()
        same = ours[np.arange(CHANGED), np.arange(count - CHANGED, count)]
        print(
            f"{backbone:8}{size:4} px {weights:9}{dtype:8} float64: {off.max():.1e} absolute, "
            f"{relative:.1e} relative; lpips: {apart.max():.1e} absolute, {of_large:.1e} relative; "
            f"±1 noise {exact[0, count - 3 * CHANGED]:.1e}, "
            f"one pixel {exact[0, count - 2 * CHANGED]:.1e}; "
            f"equal images 0: {bool((same == 0).all())}, least {ours.min():.1g}, "
            f"symmetric: {np.array_equal(ours, ours.T)}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=24)
    options = parser.parse_args()
    for backbone in ("alex", "vgg", "squeeze"):
        for size in (64, 224):
            with (
                tempfile.TemporaryDirectory(prefix="lpipstore-bench-") as scratch,
                FeatureStore(Path(scratch) / "store") as store,
            ):
                compare(backbone, size, images_of(options.folder, options.images, size), store)


if __name__ == "__main__":
    main()
