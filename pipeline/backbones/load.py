"""Load a backbone by its name."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from ...cache.errors import LpipstoreError, UsageError, setting
from ..common.text import printable
from ..sources.identity import FileTable
from .backbone import Backbone, BackboneChoice
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
    backbone = family_of(name).load(name, version, weights, tuple(taps), table)
    digest = backbone.weights_digest
    return replace(backbone, choice=choice_of(name, version, weights, tuple(taps), digest))


def choice_of(
    name: str, version: str, weights: WeightsChoice, taps: tuple[str, ...], digest: str
) -> BackboneChoice | None:
    """Return the choice of a backbone for other processes; None for weights that are tensors."""
    if isinstance(weights, Mapping):
        return None
    named = weights in ("imagenet", "random")
    file = str(weights) if named else os.path.abspath(os.path.expanduser(weights))
    return BackboneChoice(name, version, file, taps, digest)


def load_choice(
    choice: BackboneChoice,
    table: FileTable | None = None,
    state: Mapping[str, Tensor] | None = None,
) -> Backbone:
    """Load a backbone that was loaded before, such as in another process.

    `state` holds its tensors where the weights of the choice are out of reach.

    Raises
    ------
    UsageError, LpipstoreError
        As for `load_backbone`; or these weights are now others.
    """
    backbone = load_backbone(
        choice.name,
        version=choice.version,
        weights=choice.weights if state is None else state,
        taps=choice.taps,
        table=table,
    )
    if backbone.weights_digest != choice.digest:
        raise LpipstoreError(
            f"the weights from {printable(backbone.weights_origin)} are not those that the run "
            f"began with: name them with {setting('weights', 'FILE')}"
        )
    return backbone


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
