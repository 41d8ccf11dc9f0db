"""Any torchvision classification model, read at named taps."""

from collections.abc import Sequence
from functools import cache
from typing import cast

from ...cache.errors import UsageError, setting
from ..sources.identity import FileTable
from .backbone import Backbone, Outline
from .layout import RowLayout
from .taps import checked_channels, empty_model, extractor, first_line, tap_shapes
from .trunk import digest_of, fill, wanted_tensors
from .weights import WeightsChoice, find_weights, load_weights, names_in_torchvision

_PREFIX = "torchvision:"


class TorchvisionNets:
    """Classification models of torchvision; a `BackboneFamily`."""

    names = f"{_PREFIX}NAME with taps, such as {_PREFIX}resnet50"
    named_taps = True

    def takes(self, name: str) -> bool:
        """Return whether `name` begins as those of torchvision."""
        return name.startswith(_PREFIX)

    def check(self, name: str, version: str, taps: Sequence[str]) -> None:
        """Raise `UsageError` for version 0.0: there is no scaling layer to leave out."""
        if version != "0.1":
            raise UsageError(f"LPIPS version {version} is for alex, vgg and squeeze, not {name}.")

    def outline(self, name: str, taps: tuple[str, ...]) -> Outline:
        """Return channels, taps and layout, from a model on the meta device.

        Raises
        ------
        UsageError
            There is no such model or tap, or a tap is no (B, C, H, W) tensor.
        """
        return _outline(name, taps)

    def load(
        self,
        name: str,
        version: str,
        weights: WeightsChoice,
        taps: tuple[str, ...],
        table: FileTable | None,
    ) -> Backbone:
        """Load any torchvision classification model: see `load_backbone`."""
        model_name = name.removeprefix(_PREFIX)
        outline = self.outline(name, taps)
        trunk = extractor(empty_model(model_name), name, taps)
        official, longer_names = names_in_torchvision(model_name)
        loaded = load_weights(
            model_name,
            weights,
            found=find_weights(model_name, weights, official=official, longer_names=longer_names),
            expected=wanted_tensors(trunk),
            backbone=name,
        )
        fill(trunk, loaded)
        return Backbone(
            outline=outline,
            version=version,
            weights_digest=digest_of(loaded),
            weights_origin=loaded.origin,
            trained=loaded.trained,
            make_trunk=lambda: trunk,
        )


@cache
def _outline(name: str, taps: tuple[str, ...]) -> Outline:
    trunk = extractor(empty_model(name.removeprefix(_PREFIX)), name, taps)

    def shapes(height: int, width: int) -> RowLayout:
        try:
            found = tap_shapes(trunk, height, width)
        except (RuntimeError, AssertionError) as error:
            raise UsageError(
                f"The backbone {name} does not take images of {width}x{height} pixels "
                f"(width x height): {first_line(error)}. Try another {setting('size')}, "
                "such as 224."
            ) from error
        return RowLayout(cast(tuple[tuple[int, int, int], ...], found))

    return Outline(name, taps, checked_channels(trunk, name, taps), True, 1, shapes)
