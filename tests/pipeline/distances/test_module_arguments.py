"""Arguments of ``lpips.LPIPS``, reductions and masks."""

import inspect

import lpips
import pytest
import torch

from lpipstore.cache.errors import UsageError
from lpipstore.pipeline.distances.heads import make_head, save_head
from lpipstore.pipeline.distances.module import LPIPS


def metric_of(**options):
    return LPIPS("squeeze", weights="random", **options)


@pytest.fixture(scope="module")
def metric():
    return metric_of()


def test_every_argument_of_the_package_is_taken():
    theirs = set(inspect.signature(lpips.LPIPS.__init__).parameters)
    assert theirs <= set(inspect.signature(LPIPS.__init__).parameters)
    with pytest.raises(UsageError, match="pretrained=True"):
        LPIPS(True, "squeeze")


def test_trunk_is_tuned_only_if_asked_for(metric, draw_pairs):
    tuned = metric_of(pnet_tune=True)
    pairs = draw_pairs(1, 64, 64)
    tuned(*pairs).sum().backward()
    assert all(weight.grad is not None for weight in tuned.trunk.parameters())
    assert not any(weight.requires_grad for weight in tuned.head_weights)
    assert not metric(*pairs).requires_grad


def test_training_mode_trains_the_head_with_dropout(metric, draw_pairs):
    pairs = draw_pairs(2, 64, 64)
    trained = metric_of(eval_mode=False)
    assert trained.training
    torch.manual_seed(0)
    values = torch.stack([trained(*pairs).detach() for _ in range(60)])
    assert len(values.unique(dim=0)) == 60
    torch.testing.assert_close(values.mean(0), metric(*pairs), rtol=0.01, atol=0)
    trained(*pairs).sum().backward()
    assert all(weight.grad is not None for weight in trained.head_weights)
    assert torch.equal(trained.eval()(*pairs), metric(*pairs))
    plain = metric_of(eval_mode=False, use_dropout=False)
    assert torch.equal(plain(*pairs), metric(*pairs))


def test_evaluation_mode_stays_what_it_is(metric, draw_pairs):
    pairs = draw_pairs(1, 64, 64)
    assert not metric.training
    assert torch.equal(metric_of().train()(*pairs), metric(*pairs))


def test_random_trunk_and_random_head(metric, draw_pairs):
    pairs = draw_pairs(1, 64, 64)
    assert torch.equal(LPIPS("squeeze", pnet_rand=True)(*pairs), metric(*pairs))
    torch.manual_seed(1)
    first, second = metric_of(pretrained=False), metric_of(pretrained=False)
    assert first.head().digest != second.head().digest != metric.head().digest
    with pytest.raises(UsageError, match="pnet_rand=True"):
        LPIPS("squeeze", pnet_rand=True, weights="trunk.pth")
    with pytest.raises(UsageError, match="pretrained=False"):
        metric_of(pretrained=False, heads="head.pth")


def test_model_path_is_a_head(metric, draw_pairs, tmp_path):
    doubled = make_head([2 * weight.numpy() for weight in metric.head_weights], "doubled")
    save_head(doubled, tmp_path / "head.pth")
    pairs = draw_pairs(1, 64, 64)
    found = metric_of(model_path=tmp_path / "head.pth")(*pairs)
    torch.testing.assert_close(found, 2 * metric(*pairs))
    with pytest.raises(UsageError, match="heads and model_path"):
        metric_of(model_path="a.pth", heads="b.pth")


@pytest.mark.parametrize("spatial", [False, True])
def test_reductions_are_those_of_torch(draw_pairs, spatial):
    pairs = draw_pairs(3, 64, 64)
    each = metric_of(spatial=spatial)(*pairs)
    for reduction in ("mean", "sum"):
        value, layers = metric_of(spatial=spatial, reduction=reduction)(*pairs, retPerLayer=True)
        assert value.shape == ()
        torch.testing.assert_close(value, getattr(each, reduction)())
        torch.testing.assert_close(sum(layers), value)
    with pytest.raises(UsageError, match="none, mean or sum"):
        metric_of(reduction="median")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bool, torch.uint8])
def test_mask_of_ones_changes_nothing(metric, draw_pairs, dtype):
    pairs = draw_pairs(2, 65, 97)
    mask = torch.ones(1, 1, 65, 97).to(dtype)
    torch.testing.assert_close(metric(*pairs, mask=mask), metric(*pairs), rtol=0, atol=1e-7)
    twice = metric(*pairs, mask=3 * mask.float())
    torch.testing.assert_close(twice, metric(*pairs), rtol=1e-6, atol=0)


def test_mask_leaves_out_what_differs(metric, draw_pairs):
    first, other = draw_pairs(1, 128, 128)
    second = torch.where(torch.arange(128) < 48, first, other)  # equal on the left
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., :16] = 1
    assert metric(first, second, mask=mask) < 0.05 * metric(first, second)
    assert metric(first, second, mask=1 - mask) > metric(first, second)


def test_mask_of_zeros_gives_zero_and_no_gradient(metric, draw_pairs):
    first, second = draw_pairs(2, 64, 64)
    mask = torch.ones(2, 1, 64, 64)
    mask[0] = 0
    image = first.clone().requires_grad_()
    value = metric(image, second, mask=mask)
    value.sum().backward()
    assert value[0] == 0
    assert torch.equal(image.grad[0], torch.zeros(3, 64, 64))
    torch.testing.assert_close(value[1:], metric(first[1:], second[1:]), rtol=1e-5, atol=1e-7)


def test_mask_multiplies_a_spatial_map(draw_pairs):
    spatial = metric_of(spatial=True)
    pairs = draw_pairs(2, 64, 64)
    mask = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(spatial(*pairs, mask=mask), spatial(*pairs) * mask)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([1], "a list came"),
        (torch.ones(64, 64), r"\(2 or 1, 1, 64, 64\), and \(64, 64\)"),
        (torch.ones(3, 1, 64, 64), r"and \(3, 1, 64, 64\)"),
        (torch.ones(2, 3, 64, 64), r"and \(2, 3, 64, 64\)"),
        (-torch.ones(2, 1, 64, 64), "from -1 to -1"),
        (torch.full((2, 1, 64, 64), torch.nan), "from nan to nan"),
        (torch.full((2, 1, 64, 64), torch.inf), "from inf to inf"),
    ],
)
def test_wrong_masks_are_shown(metric, draw_pairs, mask, message):
    with pytest.raises(UsageError, match=message):
        metric(*draw_pairs(2, 64, 64), mask=mask)
