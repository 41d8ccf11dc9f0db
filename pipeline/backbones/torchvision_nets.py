"""Any torchvision classification model, read at named taps."""

from .backbone import PREFIX, Backbone
from .taps import checked_channels, empty_model, extractor
from .trunk import digest_of, fill, wanted_tensors
from .weights import WeightsChoice, find_weights, load_weights, names_in_torchvision


def load_torchvision_net(name: str, weights: WeightsChoice, taps: tuple[str, ...]) -> Backbone:
    """Load any torchvision classification model: see `load_backbone`."""
    model_name = name.removeprefix(PREFIX)
    trunk = extractor(empty_model(model_name), name, taps)
    channels = checked_channels(trunk, name, taps)
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
        name=name,
        taps=taps,
        channels=channels,
        signed=True,
        minimum_side=1,
        version="0.1",
        weights_digest=digest_of(loaded),
        weights_origin=loaded.origin,
        trained=loaded.trained,
        make_trunk=lambda: trunk,
    )
