"""Convolutions of small maps in NCHW: the same taps, and rows to the bit where they are stored."""

import copy

import pytest
import torch

from lpipstore.pipeline.backbones.load import load_backbone
from lpipstore.pipeline.backbones.small_maps import gains_in_nchw, prepare_small_maps
from lpipstore.pipeline.backbones.trunk import each_tap
from lpipstore.pipeline.distances.module import LPIPS
from lpipstore.pipeline.features.normalise import unit_normalise


@pytest.fixture(scope="module")
def trunks():
    """The trunk of rows, and a prepared one."""
    trunk = load_backbone("alex", weights="random").trunk
    prepared = copy.deepcopy(trunk)
    prepare_small_maps(prepared)
    return trunk, prepared


def taps_of(trunk, side, *, as_rows):
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        return list(each_tap(trunk, images, as_rows=as_rows))


@pytest.mark.parametrize("side", [31, 64, 97])
def test_taps_are_those_of_rows(trunks, side):
    plain, prepared = trunks
    for row, tap in zip(
        taps_of(plain, side, as_rows=True), taps_of(prepared, side, as_rows=False), strict=True
    ):
        torch.testing.assert_close(unit_normalise(tap), unit_normalise(row), rtol=0, atol=1e-6)


@pytest.mark.parametrize("side", [64, 97])
def test_rows_do_not_depend_on_how_weights_are_stored(trunks, side):
    both = (taps_of(trunk, side, as_rows=True) for trunk in trunks)
    assert all(torch.equal(*taps) for taps in zip(*both, strict=True))


def test_only_small_maps_of_prepared_layers_gain(trunks):
    plain, prepared = trunks
    small, large = torch.zeros(2, 192, 3, 3), torch.zeros(2, 192, 7, 7)
    found = {
        name: [gains_in_nchw(layer, images) for layer in trunk.features]
        for name, trunk, images in (
            ("plain", plain, small),
            ("prepared", prepared, small),
            ("large", prepared, large),
        )
    }
    assert {name: sum(gains) for name, gains in found.items()} == {
        "plain": 0,
        "prepared": 3,
        "large": 0,
    }


def test_the_module_prepares_its_own_trunk(trunks):
    small = torch.zeros(2, 192, 3, 3)
    for net, count in (("alex", 3), ("squeeze", 0), ("vgg", 0)):
        features = LPIPS(net, weights="random").trunk.features
        assert sum(gains_in_nchw(layer, small) for layer in features) == count
