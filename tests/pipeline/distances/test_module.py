"""The module: shapes, freezing, and what is said of wrong input. Parity is in test_parity."""

import copy
import doctest
import pickle
import warnings

import numpy as np
import pytest
import torch

from lpipstore.cache.errors import UsageError
from lpipstore.pipeline.distances import module as metric_module
from lpipstore.pipeline.distances.heads import load_head, make_head, save_head
from lpipstore.pipeline.distances.module import LPIPS


@pytest.fixture(scope="module")
def metric():
    return LPIPS(net="squeeze", weights="random")


def images(batch=2, seed=0, side=64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 3, side, side, generator=generator) * 2 - 1


def test_shapes_are_those_of_lpips(metric):
    value, layers = metric(images(), images(seed=1), retPerLayer=True)
    assert value.shape == (2, 1, 1, 1)
    assert len(layers) == 7
    torch.testing.assert_close(sum(layers), value)
    maps = LPIPS(net="squeeze", weights="random", spatial=True)(images(), images(seed=1))
    assert maps.shape == (2, 1, 64, 64)


def test_equal_images_are_at_exactly_zero_and_order_does_not_matter(metric):
    first, second = images(), images(seed=1)
    assert torch.equal(metric(first, first), torch.zeros(2, 1, 1, 1))
    assert torch.equal(metric(first, second), metric(second, first))
    assert (metric(first, second) > 0).all()


def test_a_batch_of_one_meets_a_batch_of_many(metric):
    many, one = images(3), images(1, seed=1)
    expected = metric(many, one.expand(3, -1, -1, -1))
    torch.testing.assert_close(metric(many, one), expected)
    torch.testing.assert_close(metric(one, many), expected)


def test_head_and_trunk_are_frozen_and_stay_so_in_training_mode(metric):
    trained = copy.deepcopy(metric).train()
    assert not any(parameter.requires_grad for parameter in trained.parameters())
    assert not trained.trunk.training
    assert torch.equal(trained(images(), images(seed=1)), metric(images(), images(seed=1)))


def test_equal_images_give_finite_gradients(metric):
    first = images().requires_grad_()
    metric(first, first.detach()).sum().backward()
    assert torch.equal(first.grad, torch.zeros_like(first))


def test_black_trunk_gives_finite_gradients():
    state = {
        name: torch.zeros_like(t)
        for name, t in LPIPS("squeeze", weights="random").trunk.state_dict().items()
    }
    silent = LPIPS("squeeze", weights=state)
    first = images().requires_grad_()
    value = silent(first, images(seed=1))
    value.sum().backward()
    assert torch.equal(value, torch.zeros(2, 1, 1, 1))
    assert torch.isfinite(first.grad).all()


def test_half_and_double_images_are_taken(metric):
    first, second = images(), images(seed=1)
    expected = metric(first, second)
    assert metric(first.double(), second.double()).dtype == torch.float32
    torch.testing.assert_close(metric(first.double(), second.double()), expected)
    torch.testing.assert_close(metric(first.half(), second.half()), expected, rtol=1e-2, atol=1e-3)


def test_half_precision_module_gives_float32_distances(metric):
    first, second = images(), images(seed=1)
    coarse = copy.deepcopy(metric).to(torch.bfloat16)(first, second)
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse, metric(first, second), rtol=0.05, atol=1e-3)


def test_a_head_file_takes_the_place_of_the_stock_head(metric, tmp_path):
    stock = load_head(None, "squeeze", [len(weight) for weight in metric.head_weights])
    assert metric.head().digest == stock.digest
    doubled = make_head([2 * weight for weight in stock.weights], "doubled")
    save_head(doubled, tmp_path / "head.pth")
    other = LPIPS("squeeze", weights="random", heads=tmp_path / "head.pth")
    torch.testing.assert_close(
        other(images(), images(seed=1)), 2 * metric(images(), images(seed=1))
    )


def test_baseline_is_the_head_none(metric):
    first, second = images(), images(seed=1)
    baseline = LPIPS("squeeze", weights="random", lpips=False)(first, second)
    assert torch.equal(LPIPS("squeeze", weights="random", heads="none")(first, second), baseline)
    assert not torch.equal(metric(first, second), baseline)
    with pytest.raises(UsageError, match="lpips=False"):
        LPIPS("squeeze", weights="random", lpips=False, heads="head.pth")


def test_state_survives_saving(metric):
    other = LPIPS("squeeze", weights="random", lpips=False)
    other.load_state_dict(metric.state_dict())
    assert torch.equal(other(images(), images(seed=1)), metric(images(), images(seed=1)))


def test_model_of_torchvision_with_named_taps():
    metric = LPIPS(
        "torchvision:resnet18", weights="random", taps=("layer1", "layer2"), heads="none"
    )
    value = metric(images(), images(seed=1))
    assert value.shape == (2, 1, 1, 1)
    assert (value > 0).all()
    with pytest.raises(UsageError, match='heads="none"'):
        LPIPS("torchvision:resnet18", weights="random", taps=("layer1",))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((2, 3, 64, 64), dtype="f4"), "a torch.Tensor, and a ndarray came"),
        (torch.zeros(3, 64, 64), r"\(3, 64, 64\) came.*images\[None\]"),
        (torch.zeros(2, 4, 64, 64), r"\(2, 4, 64, 64\) came"),
        (torch.zeros(2, 64, 64, 3), r"\(2, 64, 64, 3\) came.*permute"),
        (torch.zeros(0, 3, 64, 64), r"\(0, 3, 64, 64\) came"),
        (torch.zeros(2, 3, 64, 64, dtype=torch.uint8), r"torch.uint8 came.*127.5"),
        (torch.zeros(2, 3, 64, 65), r"in0 is \(2, 3, 64, 64\), in1 is \(2, 3, 64, 65\)"),
        (torch.zeros(3, 3, 64, 64), r"\(2, 3, 64, 64\).*\(3, 3, 64, 64\)"),
        (torch.full((2, 3, 64, 64), 255.0), r"in \[-1, 1\], and values from 255 to 255.*127.5"),
        (torch.full((2, 3, 64, 64), -1.5), r"in \[-1, 1\], and values from -1.5 to -1.5"),
        (torch.full((2, 3, 64, 64), torch.nan), "values from nan to nan"),
    ],
)
def test_wrong_images_are_shown(metric, wrong, message):
    with pytest.raises(UsageError, match=message):
        metric(images(), wrong)
    with pytest.raises(ValueError, match="came|in0 is"):
        metric(wrong, images())


def test_range_of_normalize_is_0_to_1(metric):
    with pytest.raises(UsageError, match=r"\[0, 1\] with normalize=True.*from -0.*is \[-1, 1\]"):
        metric(images(), images(), normalize=True)
    with pytest.raises(UsageError, match="divide by 255"):
        metric(images().abs(), images().abs() * 255, normalize=True)


def test_images_from_0_to_1_without_normalize_are_warned_of_once():
    metric = LPIPS("squeeze", weights="random")
    first, second = images().abs(), images(seed=1).abs()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric(images(), second)  # one of them has values under 0
        metric(first, second, normalize=True)
    with pytest.warns(UserWarning, match="normalize=True") as found:
        metric(first, second)
        metric(first, second)
    assert [warning.filename for warning in found] == [torch.nn.modules.module.__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LPIPS("squeeze", weights="random", check_range=False)(first, second)


@pytest.mark.parametrize("side", [64, 224])
def test_images_together_or_one_by_one_make_no_difference(metric, side, monkeypatch):
    """Together they share a batch up to a size; more than rounding would be a mistake."""
    first, second = images(side=side), images(seed=1, side=side)
    values = []
    for numbers in (0, 1 << 40):
        monkeypatch.setattr(metric_module, "_TOGETHER", numbers)
        values.append(metric(first, second))
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-7)


def test_an_image_without_gradients_has_no_part_in_the_backward_pass(metric):
    first, second = images().requires_grad_(), images(seed=1)
    metric(first, second).sum().backward()
    both = [image.clone().detach().requires_grad_() for image in (first, second)]
    metric(*both).sum().backward()
    assert second.grad is None
    torch.testing.assert_close(first.grad, both[0].grad, rtol=1e-4, atol=1e-8)


def test_check_of_the_range_can_be_switched_off():
    metric = LPIPS("squeeze", weights="random", check_range=False)
    assert torch.isfinite(metric(images() * 1.2, images(seed=1))).all()


def test_images_under_the_smallest_side_are_refused(metric):
    with pytest.raises(UsageError, match="16x16 pixels .* smallest side is 17"):
        metric(images(side=16), images(side=16))


def test_examples_in_the_docstrings_run():
    result = doctest.testmod(metric_module)
    assert result.attempted > 0
    assert result.failed == 0


def test_a_metric_survives_copying_and_pickling(metric):
    expected = metric(images(), images(seed=1))
    for twin in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert torch.equal(twin(images(), images(seed=1)), expected)
