"""The three LPIPS backbones: AlexNet, VGG-16 and SqueezeNet 1.1, read after ReLUs."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from ...cache.errors import LpipstoreError, UsageError
from ...cache.index import FileIdentity, FileRecord
from ..sources.identity import FileTable, identify
from .backbone import Backbone, Outline
from .layout import LPIPS_BACKBONES
from .trunk import SlicedFeatures, digest_of, fill, wanted_tensors
from .weights import TrunkWeights, WeightsChoice, WeightsFile, find_weights, load_weights


class LpipsNets:
    """The backbones that LPIPS was published with; a `BackboneFamily`."""

    names = "alex, vgg, squeeze"
    named_taps = False

    def takes(self, name: str) -> bool:
        """Return whether `name` is one of the three."""
        return name in LPIPS_BACKBONES

    def check(self, name: str, version: str, taps: Sequence[str]) -> None:
        """Raise `UsageError` if taps are named: these backbones have their own."""
        if taps:
            raise UsageError(
                f"The backbone {name} has its own taps; name taps with torchvision:NAME only."
            )

    def outline(self, name: str, taps: tuple[str, ...]) -> Outline:
        """Return channels, taps and layout; builds no model."""
        spec = LPIPS_BACKBONES[name]
        own = tuple(f"features.{stop}" for stop in spec.stops)
        return Outline(name, own, spec.channels, False, spec.minimum_side, spec.layout)

    def load(
        self,
        name: str,
        version: str,
        weights: WeightsChoice,
        taps: tuple[str, ...],
        table: FileTable | None,
    ) -> Backbone:
        """Load alex, vgg or squeeze: see `load_backbone`."""
        return _load(name, version, weights, table)


LPIPS_NETS = LpipsNets()


def _load(name: str, version: str, weights: WeightsChoice, table: FileTable | None) -> Backbone:
    spec = LPIPS_BACKBONES[name]
    found = find_weights(
        spec.torchvision_name, weights, official=spec.hub_file, longer_names=spec.longer_names
    )

    def load() -> tuple[nn.Module, TrunkWeights]:
        from torchvision.models import get_model

        # On the meta device VGG's 400 MB classifier costs nothing
        with torch.device("meta"):
            model = get_model(spec.torchvision_name, weights=None)
        trunk = SlicedFeatures(model.features, spec.stops)
        loaded = load_weights(
            spec.torchvision_name,
            weights,
            found=found,
            expected=wanted_tensors(trunk),
            backbone=name,
            member="IMAGENET1K_V1",
        )
        fill(trunk, loaded)
        return trunk, loaded

    def make(
        digest: str, origin: str, trained: bool, make_trunk: Callable[[], nn.Module]
    ) -> Backbone:
        return Backbone(
            outline=LPIPS_NETS.outline(name, ()),
            version=version,
            weights_digest=digest,
            weights_origin=origin,
            trained=trained,
            make_trunk=make_trunk,
        )

    known = _recall_digest(table, found, name)
    if found is not None and known is not None:

        def load_again() -> nn.Module:
            trunk, loaded = load()
            if digest_of(loaded) != known:
                raise LpipstoreError(f"{found.path} changed during the run; run again")
            return trunk

        return make(known, found.origin, True, load_again)
    before = _identity(table, found)
    trunk, loaded = load()
    digest = digest_of(loaded)
    # If the file was replaced meanwhile, this digest must not be recorded for the new file
    if table is not None and before is not None and _identity(table, found) == before:
        table.remember_files([(before, FileRecord(bytes.fromhex(digest), _note(name)))])
    return make(digest, loaded.origin, loaded.trained, lambda: trunk)


def _recall_digest(table: FileTable | None, found: WeightsFile | None, name: str) -> str | None:
    """Return the digest of the tensors that `name` takes from a file, if the table has it."""
    identity = _identity(table, found)
    if table is None or identity is None:
        return None
    (record,) = table.recall_files([identity])
    return record.content.hex() if record is not None and record.note == _note(name) else None


def _identity(table: FileTable | None, found: WeightsFile | None) -> FileIdentity | None:
    """Return the identity of a weights file; None without a table or a file."""
    if table is None or found is None or not found.path.is_file():
        return None
    return identify(found.path)


def _note(name: str) -> str:
    return f"trunk of {name}"
