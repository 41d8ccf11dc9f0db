"""Load a backbone by its name."""

from collections.abc import Sequence

from ...cache.errors import UsageError
from ..sources.identity import FileTable
from .backbone import Backbone
from .family import BackboneFamily
from .lpips_nets import LPIPS_NETS
from .torchvision_nets import TorchvisionNets
from .weights import WeightsChoice

VERSIONS = ("0.1", "0.0")
FAMILIES: tuple[BackboneFamily, ...] = (LPIPS_NETS, TorchvisionNets())


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
    return family_of(name).load(name, version, weights, tuple(taps), table)


def check_backbone(name: str, version: str, taps: Sequence[str]) -> None:
    """Raise `UsageError` for a name, version or taps that `load_backbone` cannot mean."""
    if version not in VERSIONS:
        raise UsageError(f"There is no LPIPS version {version!r}: choose 0.1 or 0.0.")
    family_of(name).check(name, version, taps)


def family_of(name: str) -> BackboneFamily:
    """Return the family that a backbone belongs to.

    Raises
    ------
    UsageError
        It belongs to none.
    """
    for family in FAMILIES:
        if family.takes(name):
            return family
    choices = ", or ".join(family.names for family in FAMILIES)
    raise UsageError(f"Unknown backbone {name!r}: choose {choices}.")
