"""Rows and heads to score, for `gpu.py`."""

import numpy as np
import torch
from numpy.typing import NDArray

from lpipstore.pipeline.backbones.load import load_backbone
from lpipstore.pipeline.distances.distances import block_of
from lpipstore.pipeline.distances.heads import column_weights, load_head
from lpipstore.pipeline.distances.panels import Columns
from lpipstore.pipeline.distances.scoring import Scoring
from lpipstore.pipeline.features.extractor import Extractor
from lpipstore.pipeline.features.rows import centre_of


def near(count: int, size: int) -> torch.Tensor:
    """Return smooth pictures, each followed by one that differs by noise of ±1."""
    random = np.random.default_rng(0)
    coarse = torch.from_numpy(random.random((count // 2, 3, 5, 5), np.float32))
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)
    pixels = (smooth.permute(0, 2, 3, 1).numpy() * 255).astype(np.int16)
    noisy = (pixels + random.integers(-1, 2, pixels.shape, np.int16)).clip(0, 255)
    return torch.from_numpy(np.concatenate([pixels, noisy]).astype(np.uint8))


def rows_of(net: str, images: torch.Tensor) -> tuple[NDArray[np.generic], str]:
    """Return the rows of images as the CPU makes them, and their dtype."""
    extractor = Extractor(load_backbone(net, weights="random"), tuple(images.shape[1:3]))
    parts = [extractor.rows(part) for part in images.split(extractor.batch)]
    return np.concatenate(parts), extractor.spec.dtype


def head_weights(net: str, size: int) -> NDArray[np.float32]:
    """Return the column weights of the stock head."""
    trunk = load_backbone(net, weights="random")
    head = load_head(None, net, trunk.channels, trunk.version)
    return column_weights(head, trunk.layout(size, size))


def scoring_of(
    rows: torch.Tensor,
    weights: NDArray[np.float32],
    dtype: str,
    device: torch.device,
    *,
    fast: bool = False,
    count: int | None = None,
) -> Scoring:
    """Return what scores rows on a device, their mean in the centre."""
    columns = Columns.of(weights, dtype, device)
    block = block_of(count or len(rows), rows[0].nbytes)
    return Scoring(columns, centre_of(rows).to(device), block, fast)
