"""The module under autocast, on other devices, with other memory formats and transforms."""

import copy
import pickle

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from lpipstore.cache.errors import UsageError
from lpipstore.pipeline.distances.module import LPIPS


class NoValues(TorchDispatchMode):
    """Fails where a value is read back to Python or copied to another device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "is_nonzero", "equal"), name
        before = {a.device.type for a in args if isinstance(a, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and before:
            assert result.device.type in before, name
        return result


@pytest.fixture(scope="module")
def metric():
    return LPIPS("squeeze", weights="random")


@pytest.mark.parametrize("net", ["squeeze", "alex"])
def test_no_device_is_waited_for(net, draw_pairs):
    metric = LPIPS(net, weights="random").to("meta")
    first, second = (image.to("meta") for image in draw_pairs(2, 64, 64))
    first.requires_grad_()
    with NoValues():
        value = metric(first, second, mask=torch.ones(1, 1, 64, 64, device="meta"))
        value.sum().backward()
    assert value.shape == (2, 1, 1, 1)
    assert first.grad.shape == first.shape


@pytest.mark.parametrize("read", [Tensor.item, Tensor.cpu, Tensor.tolist, bool])
def test_the_test_above_notices_what_waits(read):
    with NoValues(), pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        read(torch.ones(1, device="meta"))


def test_fake_tensors_pass_through(metric, draw_pairs):
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        first, second = (mode.from_tensor(image * 9) for image in draw_pairs(3, 65, 97))
        assert metric(first, second).shape == (3, 1, 1, 1)


def test_functions_of_torch_func_pass_through(metric, draw_pairs):
    first, second = draw_pairs(2, 64, 64)
    image = first.clone().requires_grad_()
    metric(image, second).sum().backward()
    gradient = torch.func.grad(lambda image: metric(image, second).sum())(first)
    torch.testing.assert_close(gradient, image.grad, rtol=1e-3, atol=1e-7)
    each = torch.func.vmap(lambda a, b: metric(a[None], b[None]).squeeze())(first, second)
    torch.testing.assert_close(each, metric(first, second).flatten(), rtol=1e-5, atol=1e-7)


def test_directional_derivative_is_that_of_the_gradient(metric, draw_pairs):
    first, second = draw_pairs(1, 64, 64)
    along = draw_pairs(1, 64, 64, seed=1)[0]
    image = first.clone().requires_grad_()
    metric(image, second).sum().backward()
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(first, along)
        slope = torch.autograd.forward_ad.unpack_dual(metric(dual, second)).tangent
    torch.testing.assert_close(slope.sum(), (image.grad * along).sum(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_distances_in_float32(metric, draw_pairs, dtype):
    first, second = draw_pairs(2, 64, 64)
    image = first.clone().requires_grad_()
    with torch.autocast("cpu", dtype):
        coarse = metric(image, second)
    coarse.sum().backward()
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse, metric(first, second), rtol=0.05, atol=1e-3)
    assert torch.isfinite(image.grad).all()
    assert image.grad.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_silent_taps_in_half_precision_are_not_nan(dtype, draw_pairs):
    """An epsilon of 1e-10 is 0 in float16: 0 / 0."""
    trunk = LPIPS("alex", weights="random").trunk.state_dict()
    silent = {name: torch.zeros_like(tensor) for name, tensor in trunk.items()}
    metric = LPIPS("alex", weights=silent).to(dtype)
    first, second = (image.to(dtype) for image in draw_pairs(1, 64, 64))
    first.requires_grad_()
    value = metric(first, second)
    value.sum().backward()
    assert torch.equal(value, torch.zeros(1, 1, 1, 1))
    assert torch.isfinite(first.grad).all()


def test_memory_format_makes_no_difference(metric, draw_pairs):
    pairs = draw_pairs(2, 65, 97)
    last = [image.contiguous(memory_format=torch.channels_last) for image in pairs]
    assert torch.equal(metric(*last), metric(*pairs))
    turned = [image.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1) for image in pairs]
    assert torch.equal(metric(*turned), metric(*pairs))


@pytest.mark.parametrize("case", ["identical", "black", "white"])
def test_degenerate_images_give_finite_gradients(metric, draw_pairs, case):
    first, second = draw_pairs(1, 64, 64)
    first = {"identical": second, "black": -torch.ones_like(first), "white": torch.ones_like(first)}
    image = first[case].clone().requires_grad_()
    metric(image, second).sum().backward()
    assert torch.isfinite(image.grad).all()
    metric(image, image).sum().backward()
    assert torch.isfinite(image.grad).all()


def test_copies_take_sizes_and_check_ranges_anew(metric, draw_pairs):
    resnet = LPIPS(
        "torchvision:resnet18", weights="random", taps=("layer1", "layer2"), heads="none"
    )
    for module in (metric, resnet):
        pairs = draw_pairs(1, 64, 64)
        for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert torch.equal(twin(*pairs), module(*pairs))
            with pytest.raises(UsageError, match="lie in"):
                twin(pairs[0] * 9, pairs[1])


def test_optimising_an_image_reaches_the_loss_of_the_package(twins, draw_pairs):
    # Smooth images and short steps: else rounding alone decides over 1e-4 (also between the
    # package in NCHW and in channels_last); in float64, both reach the same loss to 16 digits
    start, target = (
        functional.interpolate(image, 64, mode="bicubic").clamp(-1, 1)
        for image in draw_pairs(1, 6, 6)
    )
    losses = []
    for metric in twins("squeeze"):
        image = start.clone().requires_grad_()
        optimiser = torch.optim.Adam([image], lr=0.003)
        for _ in range(50):
            optimiser.zero_grad()
            loss = metric(image.clamp(-1, 1), target).sum()
            loss.backward()
            optimiser.step()
        losses.append(float(loss.detach()))
        assert losses[-1] < 0.7 * float(metric(start, target).detach())
    assert abs(losses[0] - losses[1]) <= 1e-4
