"""Load a backbone by its name."""

from collections.abc import Sequence

from ...cache.errors import UsageError
from ..images.identity import FileTable
from .backbone import PREFIX, Backbone
from .layout import LPIPS_BACKBONES
from .lpips_nets import load_lpips_net
from .torchvision_nets import load_torchvision_net
from .weights import WeightsChoice

VERSIONS = ("0.1", "0.0")


def load_backbone(
    name: str,
    *,
    version: str = "0.1",
    weights: WeightsChoice = "imagenet",
    taps: Sequence[str] = (),
    table: FileTable | None = None,
) -> Backbone:
    """Build a trunk up to its last tap and load its weights, in float32 on the CPU.

    Parameters
    ----------
    name : str
        "alex", "vgg", "squeeze", or "torchvision:NAME" for a classification model of torchvision.
    version : str
        "0.1" (with the scaling layer) or, for alex, vgg and squeeze only, "0.0" (without).
    weights : str, Path or Mapping
        See `lpipstore.pipeline.backbones.weights.load_weights`.
    taps : sequence of str
        For "torchvision:NAME": names of the layers to read, such as "layer1"; they must give
        tensors of shape (B, C, H, W).
    table : FileTable, optional
        Caches the digest of a weights file, so that the next call neither reads the file nor
        imports torchvision until the trunk is needed (alex, vgg and squeeze only).

    Raises
    ------
    UsageError
        Unknown name, version or tap, or weights that do not fit.
    LpipstoreError
        The weights are neither on this machine nor available over the network.
    """
    check_backbone(name, version, taps)
    if name in LPIPS_BACKBONES:
        return load_lpips_net(name, version, weights, table)
    return load_torchvision_net(name, weights, tuple(taps))


def check_backbone(name: str, version: str, taps: Sequence[str]) -> None:
    """Raise `UsageError` if name, version or taps cannot be valid, without loading anything."""
    if version not in VERSIONS:
        raise UsageError(f"There is no LPIPS version {version!r}: choose 0.1 or 0.0.")
    if name in LPIPS_BACKBONES:
        if taps:
            raise UsageError(
                f"The backbone {name} has its own taps; name taps with {PREFIX}NAME only."
            )
    elif not name.startswith(PREFIX):
        raise UsageError(
            f"Unknown backbone {name!r}: choose alex, vgg, squeeze, or {PREFIX}NAME with taps, "
            f"such as {PREFIX}resnet50."
        )
    elif version != "0.1":
        raise UsageError(f"LPIPS version {version} is for alex, vgg and squeeze, not {name}.")
