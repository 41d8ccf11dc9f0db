"""The package ``lpips`` and ours on one trunk."""

import warnings

import lpips
import pytest
import torch

from lpipstore.pipeline.distances.module import LPIPS


@pytest.fixture(scope="session")
def twins():
    """A function that makes ``lpips.LPIPS`` with a random trunk, and ours with the same one."""

    def make(net, version="0.1", *, ours=(), **options):
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lpips calls torchvision by its older names
            torch.manual_seed(0)
            theirs = lpips.LPIPS(net=net, version=version, pnet_rand=True, verbose=False, **options)
        # "slice2.3.weight" of the package is "features.3.weight" of torchvision
        trunk = {
            f"features.{name.split('.', 1)[1]}": tensor.clone()
            for name, tensor in theirs.net.state_dict().items()
        }
        return theirs, LPIPS(net, version, weights=trunk, **options, **dict(ours))

    return make


@pytest.fixture(scope="session")
def draw_pairs():
    """A function that draws two batches of images in [-1, 1]."""

    def make(batch, height, width, seed=0):
        generator = torch.Generator().manual_seed(seed)
        first, second = torch.rand(2, batch, 3, height, width, generator=generator) * 2 - 1
        return first, second

    return make
