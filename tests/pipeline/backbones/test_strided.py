"""A strided convolution computed as a dense one."""

import pytest
import torch
from torch import nn

from lpipstore.pipeline.backbones.load import load_backbone
from lpipstore.pipeline.backbones.strided import dense_convolution, gains_if_dense


@pytest.mark.parametrize("sides", [(31, 64), (65, 97), (66, 67), (68, 40)])
@pytest.mark.parametrize(
    "layer", [(11, 4, 2), (3, 2, 0), (7, 3, 3), (5, 5, 1), ((5, 9), 4, (1, 4))]
)
def test_values_and_gradients_are_those_of_the_layer(layer, sides):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 6, *layer).double()
    images = torch.randn(2, 3, *sides, dtype=torch.float64)
    found = []
    for function in (conv, lambda x: dense_convolution(conv, x)):
        conv.zero_grad()
        x = images.clone().requires_grad_()
        y = function(x)
        y.square().sum().backward()
        found.append((y.detach(), x.grad, conv.weight.grad.clone(), conv.bias.grad.clone()))
    for own, dense in zip(*found, strict=True):
        torch.testing.assert_close(dense, own)


def test_only_the_first_layer_of_alex_gains():
    layers = {
        net: [
            gains_if_dense(layer) for layer in load_backbone(net, weights="random").trunk.features
        ]
        for net in ("alex", "vgg", "squeeze")
    }
    assert [sum(found) for found in layers.values()] == [1, 0, 0]
    assert layers["alex"][0]
    assert not gains_if_dense(nn.Conv2d(3, 8, 11, 4, padding_mode="reflect"))
    assert not gains_if_dense(nn.Conv2d(4, 8, 11, 4, groups=2))
