"""Heads: one weight per channel of each tap; load, save and expand to the columns of a row.

A head file has one tensor ``linK.model.1.weight`` of shape (1, C, 1, 1) per tap K. This is the
format of the PyPI package ``lpips``, whose own files (v0.0 and v0.1) are the stock heads.
"""

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from ...cache.errors import LpipstoreError, UsageError, setting
from ..backbones.layout import LPIPS_BACKBONES, RowLayout
from ..backbones.weights import read_tensors
from ..common.atomic import replacing

HEAD = "head.pth"
TRUNK = "trunk.pth"
"""Files in a training's folder: the head, and the trunk if it was tuned as well."""

_STOCK_SHA256 = {
    ("0.0", "alex"): "18720f55913d0af89042f13faa7e536a6ce1444a0914e6db9461355ece1e8cd5",
    ("0.0", "vgg"): "b9e4236260c3dd988fc79d2a48d645d885afcbb21f9fd595e6744cf7419b582c",
    ("0.0", "squeeze"): "c27abd3a0145541baa50990817df58d3759c3f8154949f42af3b59b4e042d0bf",
    ("0.1", "alex"): "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    ("0.1", "vgg"): "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    ("0.1", "squeeze"): "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76",
}


@dataclass(frozen=True)
class Head:
    """Channel weights of every tap.

    Attributes
    ----------
    weights : tuple of ndarray
        One float32 array of shape (C,) per tap.
    name : str
        Where the head comes from, for display.
    digest : str
        xxh3-128 over the values, in hexadecimal; equal values have equal digests.
    """

    weights: tuple[NDArray[np.float32], ...]
    name: str
    digest: str

    @property
    def channels(self) -> tuple[int, ...]:
        """Number of channels per tap."""
        return tuple(len(weight) for weight in self.weights)

    @property
    def nonnegative(self) -> bool:
        """Whether no weight is negative, so that distances and their bounds are nonnegative."""
        return all(bool((weight >= 0).all()) for weight in self.weights)


def make_head(weights: Sequence[NDArray[np.float32]], name: str) -> Head:
    """Make a head from one array of shape (C,) per tap (copied to float32).

    Raises
    ------
    UsageError
        A weight is not finite.
    """
    arrays = tuple(np.array(weight, dtype="<f4").reshape(-1) for weight in weights)
    if not all(np.isfinite(array).all() for array in arrays):
        raise UsageError(f"The head {name} holds weights that are not finite numbers.")
    for array in arrays:
        array.flags.writeable = False
    digest = xxhash.xxh3_128()
    for array in arrays:
        digest.update(f"{len(array)};".encode())
        digest.update(array.tobytes())
    return Head(arrays, name, digest.hexdigest())


def load_head(
    choice: str | Path | None, backbone_name: str, channels: Sequence[int], version: str = "0.1"
) -> Head:
    """Load a head for a backbone.

    Parameters
    ----------
    choice : str, Path or None
        None or "stock": the head of the ``lpips`` package for this backbone and version. "none":
        every channel has weight 1 (the unweighted baseline). Otherwise a file, or a folder with a
        ``head.pth``.
    backbone_name : str
        "alex", "vgg", "squeeze" or "torchvision:NAME".
    channels : sequence of int
        Channels per tap of that backbone.
    version : str
        "0.1" or "0.0"; used for the stock heads only.

    Raises
    ------
    UsageError
        No stock head for this backbone, no such file, or a head for another backbone.
    LpipstoreError
        The ``lpips`` package or its head file is missing, or the file was changed.
    """
    if choice is None or choice == "stock":
        return _stock_head(backbone_name, tuple(channels), version)
    if choice == "none":
        ones = [np.ones(count, dtype=np.float32) for count in channels]
        return make_head(ones, "none (unweighted baseline)")
    path = Path(choice).expanduser()
    path = path / HEAD if path.is_dir() else path
    if not path.exists():
        raise UsageError(
            f"No head at {str(path)!r}. Choose an existing FILE, the folder of a training, "
            "none for the unweighted baseline, or stock for the head that LPIPS has."
        )
    return _read_head(path, backbone_name, tuple(channels), str(path))


def save_head(head: Head, path: str | Path) -> None:
    """Write a head so that `load_head` and ``lpips.LPIPS(model_path=path)`` read it.

    The file is written atomically: if writing fails, an existing file stays.

    Raises
    ------
    LpipstoreError
        The folder cannot be written to.
    """
    target = Path(path).expanduser()
    state = {
        _key(tap): torch.from_numpy(weight.copy()).view(1, -1, 1, 1)
        for tap, weight in enumerate(head.weights)
    }
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target, durable=True) as file:
            torch.save(state, file)
    except OSError as error:
        raise LpipstoreError(f"Cannot write the head {target}: {error.strerror}.") from error


def column_weights(head: Head, layout: RowLayout) -> NDArray[np.float32]:
    """Expand a head to the columns of a row: ``w_c / (H * W)`` at each position of each tap.

    Parameters
    ----------
    head : Head
        The channel weights.
    layout : RowLayout
        Where each tap lies in a row.

    Returns
    -------
    ndarray
        float32 of shape (layout.length,), so that ``d = sum(v * (x - y)**2)`` for two rows.

    Raises
    ------
    UsageError
        Head and layout have different channels.
    """
    if head.channels != layout.channels:
        raise UsageError(
            f"The head {head.name} has channels {head.channels}, the rows have {layout.channels}."
        )
    columns = np.empty(layout.length, dtype=np.float32)
    for weight, (_, height, width), part in zip(
        head.weights, layout.taps, layout.slices, strict=True
    ):
        columns[part] = np.repeat(weight / np.float32(height * width), height * width)
    return columns


def _stock_head(backbone_name: str, channels: tuple[int, ...], version: str) -> Head:
    if backbone_name not in LPIPS_BACKBONES:
        raise UsageError(
            f"There is no stock head for the backbone {backbone_name}: give its own with "
            f"{setting('heads', 'FILE')}, or {setting('heads', 'none')} for the unweighted "
            "baseline."
        )
    sha256 = _STOCK_SHA256.get((version, backbone_name))
    if sha256 is None:
        raise UsageError(f"There is no LPIPS version {version!r}: choose 0.1 or 0.0.")
    spec = importlib.util.find_spec("lpips")  # finds its folder without importing it
    if spec is None or not spec.submodule_search_locations:
        raise LpipstoreError("The stock heads are part of the package lpips: pip install lpips")
    path = Path(
        spec.submodule_search_locations[0], "weights", f"v{version}", f"{backbone_name}.pth"
    )
    if not path.is_file():
        raise LpipstoreError(f"The stock head {path} is missing: reinstall the package lpips.")
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise LpipstoreError(
            f"The stock head {path} is not the one that lpips 0.1 ships: reinstall the package "
            f"lpips, or name this file with {setting('heads')} if it is what you want."
        )
    return _read_head(path, backbone_name, channels, f"lpips v{version} {backbone_name}")


def _read_head(path: Path, backbone_name: str, channels: tuple[int, ...], name: str) -> Head:
    state = read_tensors(path)
    if not state or set(state) != {_key(tap) for tap in range(len(state))}:
        strangers = sorted(set(state) - {_key(tap) for tap in range(len(state))})[:3]
        raise UsageError(
            f"{path} is not a head: its tensors must be lin0.model.1.weight, lin1.model.1.weight "
            f"and so on, and nothing else; it has {', '.join(strangers) or 'none'}."
        )
    tensors = [state[_key(tap)] for tap in range(len(state))]
    found = tuple(_channels(tensor, path) for tensor in tensors)
    if found != channels:
        fits = [known for known, spec in LPIPS_BACKBONES.items() if spec.channels == found]
        raise UsageError(
            f"The head {path} has channels {found} and fits "
            f"{fits[0] if fits else 'none of alex, vgg, squeeze'}; wanted was a head for the "
            f"backbone {backbone_name} with channels {channels}."
        )
    return make_head([tensor.float().reshape(-1).numpy() for tensor in tensors], name)


def _channels(tensor: Tensor, path: Path) -> int:
    if tensor.ndim != 4 or tensor.shape[0] != 1 or tensor.shape[2:] != (1, 1):
        raise UsageError(
            f"{path} is not a head: a tensor of shape (1, C, 1, 1) was wanted, "
            f"and one of shape {tuple(tensor.shape)} came."
        )
    return int(tensor.shape[1])


def _key(tap: int) -> str:
    return f"lin{tap}.model.1.weight"
