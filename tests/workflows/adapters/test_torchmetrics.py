"""The metrics of torchmetrics: parity with its own class, states, and several processes."""

import ast
import copy
import pickle
import socket
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torchmetrics import MetricCollection
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity as Theirs

import lpipstore
from lpipstore.cache.errors import UsageError
from lpipstore.torchmetrics import Diversity
from lpipstore.torchmetrics import LearnedPerceptualImagePatchSimilarity as Ours

NETS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}


def images(count, side=64, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def theirs(monkeypatch):
    """Makes torchmetrics' own class with the trunk of ours: it would download its weights."""

    def make(ours, net, **arguments):
        import torchvision

        def untrained(weights=None):
            monkeypatch.undo()
            return getattr(torchvision.models, NETS[net])(weights=None)

        monkeypatch.setattr(torchvision.models, NETS[net], untrained)
        metric = Theirs(net, **arguments)
        trunk = {
            name.rpartition("features.")[2]: t for name, t in ours.net.trunk.state_dict().items()
        }
        own = metric.net.net.state_dict()
        metric.net.net.load_state_dict({name: trunk[_layer(name)] for name in own})
        return metric

    return make


def _layer(name):
    """Return the name of a tensor of torchmetrics' trunk within ``features``."""
    parts = name.split(".")
    return ".".join(parts[2:] if parts[0] == "slices" else parts[1:])


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("normalize", [False, True])
def test_same_as_torchmetrics_with_the_same_trunk(theirs, net, normalize):
    a, b = images(3), images(3, seed=1)
    if not normalize:
        a, b = 2 * a - 1, 2 * b - 1
    for reduction in ("mean", "sum", "none", None):
        ours = Ours(net, reduction, normalize, weights="random")
        reference = theirs(ours, net, reduction=reduction, normalize=normalize)
        for metric in (ours, reference):
            metric.update(a[:2], b[:2])
            metric.update(a[2:], b[2:])
        found, expected = ours.compute(), reference.compute()
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        # theirs adds 1e-8 to squared norms, where lpips and ours add 1e-10 to norms
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=2e-5)


def test_numbers_of_the_documentation_of_torchmetrics(real_weights):
    generator = torch.Generator().manual_seed(42)
    metric = Ours(net_type="squeeze", reduction="none")
    a = torch.rand(2, 3, 100, 100, generator=generator) * 2 - 1
    b = torch.rand(2, 3, 100, 100, generator=generator) * 2 - 1
    assert [round(d, 4) for d in metric(a, b).tolist()] == [0.1024, 0.0938]


def test_same_as_torchmetrics_with_the_real_trunk(theirs, real_weights):
    ours = Ours("squeeze", "none", normalize=True)
    a, b = images(3, side=100), images(3, side=100, seed=1)
    expected = theirs(ours, "squeeze", reduction="none", normalize=True)(a, b)
    torch.testing.assert_close(ours(a, b), expected, atol=1e-6, rtol=1e-5)


def test_a_weights_file_and_heads(tmp_path):
    state = Ours("squeeze", weights="random").net.trunk.state_dict()
    torch.save(state, tmp_path / "trunk.pth")
    a, b = images(2), images(2, seed=1)
    values = [
        Ours("squeeze", weights=weights, heads=heads, normalize=True)(a, b).item()
        for weights in ("random", tmp_path / "trunk.pth")
        for heads in (None, "none")
    ]
    assert values[:2] == values[2:]
    assert values[0] != values[1]


def test_states_are_those_of_torchmetrics(theirs):
    ours = Ours("squeeze", weights="random", normalize=True)
    reference = theirs(ours, "squeeze", normalize=True)
    assert ours._defaults == reference._defaults
    for name in ("higher_is_better", "is_differentiable", "full_state_update", "feature_network"):
        assert getattr(ours, name) == getattr(reference, name)
    first = ours(images(2), images(2, seed=1))
    second = ours(images(1, seed=2), images(1, seed=3))  # forward returns the value of the batch
    torch.testing.assert_close(ours.compute(), (2 * first + second) / 3)
    assert [score.dtype for score in ours.all_scores] == [torch.float32, torch.float32]
    assert pickle.loads(pickle.dumps(ours)).compute() == ours.compute()
    ours.reset()
    assert ours.all_scores == []


def test_gradients_reach_the_images():
    a = images(2).requires_grad_()
    Ours("squeeze", weights="random", normalize=True)(a, images(2, seed=1)).backward()
    assert a.grad.abs().sum() > 0


@pytest.mark.parametrize("metric", [Ours, Diversity])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"net_type": "resnet"},
            r"net_type must be one of .*'squeeze'\), and 'resnet'",
        ),
        ({"normalize": 1}, "normalize must be True or False, and 1 came"),
        ({"heads": "gone.pth"}, "No head at 'gone.pth'"),
    ],
)
def test_bad_arguments(metric, arguments, message):
    with pytest.raises(ValueError, match=message):
        metric(**{"net_type": "squeeze", "weights": "random", **arguments})


def test_bad_reduction():
    with pytest.raises(ValueError, match="reduction must be one of .*, and 'max' came"):
        Ours("squeeze", "max", weights="random")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (images(2)[0], r"img1 must be a tensor \[B, 3, H, W\], and \[3, 64, 64\] came"),
        (images(2) * 2, r"img1 must lie in \[0, 1\] with normalize=True, and values from 2.9"),
        (images(2).to(torch.uint8), "img1 must hold floating-point images, and 2 of torch.uint8"),
        (np.zeros((2, 3, 64, 64)), r"img1 must be a tensor \[B, 3, H, W\], and ndarray came"),
        (images(2) * float("nan"), "and values from nan"),
    ],
)
def test_bad_images(given, message):
    metric = Ours("squeeze", normalize=True, weights="random")
    with pytest.raises(ValueError, match=message):
        metric.update(given, images(2))


def diversity(**arguments):
    return Diversity("squeeze", normalize=True, weights="random", **arguments)


@pytest.mark.parametrize("heads", [None, "none"])
def test_diversity_is_the_mean_of_pairs_with_its_error(heads):
    some = images(7)
    metric = diversity(heads=heads)
    metric.update(some)
    run = lpipstore.pairs(
        some, value_range=(0, 1), backbone="squeeze", weights="random", heads=heads
    )
    found = metric.compute()
    assert found["diversity"].item() == pytest.approx(run.mean, abs=1e-6)
    assert found["diversity_stderr"].item() == pytest.approx(run.stderr, rel=1e-4)
    assert {value.dtype for value in found.values()} == {torch.float32}


def test_update_in_parts_is_update_at_once():
    some, whole, parts = images(37, side=32), diversity(), diversity()
    whole.update(some)
    for part in torch.split(some, 5):
        parts.update(part)
    assert whole.compute() == parts.compute()
    assert torch.equal(torch.cat(whole.rows), torch.cat(parts.rows))


def test_each_image_goes_through_the_trunk_once(monkeypatch):
    seen = []
    from lpipstore.pipeline.features.extractor import Extractor

    rows = Extractor.rows
    monkeypatch.setattr(Extractor, "rows", lambda self, x: seen.append(len(x)) or rows(self, x))
    metric = diversity()
    for part in torch.split(images(9, side=32), 4):
        metric(part)  # the value of the batch, and of all
    metric.compute()
    metric.compute()
    assert sum(seen) == 9


def test_forward_reset_clone_and_pickle():
    some = images(6)
    metric = diversity()
    assert torch.isnan(metric(some[:1])["diversity"])
    batch = metric(some[1:])
    assert not torch.isnan(batch["diversity_stderr"])
    whole = diversity()
    whole.update(some)
    for one in (metric, metric.clone(), copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert one.compute() == whole.compute()
    metric.reset()
    assert torch.isnan(metric.compute()["diversity"])
    metric.update(images(2, side=32))  # another size, after a reset
    assert torch.isnan(metric.compute()["diversity_stderr"])


def test_equal_images_have_no_diversity():
    metric = diversity()
    metric.update(images(1).repeat(5, 1, 1, 1))
    assert {name: value.item() for name, value in metric.compute().items()} == {
        "diversity": 0.0,
        "diversity_stderr": 0.0,
    }


def test_uint8_images_are_those_that_were_divided():
    some = (images(4) * 255).round()
    one, other = diversity(), diversity()
    one.update(some.to(torch.uint8))
    other.update(some / 255)
    assert one.compute()["diversity"].item() == pytest.approx(
        other.compute()["diversity"].item(), abs=1e-5
    )


def test_merged_states_are_those_of_one():
    some, whole, one, other = images(8), diversity(), diversity(), diversity()
    whole.update(some)
    one.update(some[:3])
    other.update(some[3:])
    one.merge_state(other)
    for name, value in whole.compute().items():
        assert one.compute()[name].item() == pytest.approx(value.item(), abs=1e-7)


def test_a_collection_of_metrics():
    both = MetricCollection({"real": diversity(), "fake": diversity()}, prefix="val_")
    both.update(images(4))
    assert sorted(both.compute()) == [
        "val_fake_diversity",
        "val_fake_diversity_stderr",
        "val_real_diversity",
        "val_real_diversity_stderr",
    ]


def test_sizes_and_memory_of_diversity():
    metric = diversity()
    metric.update(images(2))
    with pytest.raises(UsageError, match="images of 64×64 and of 32×32 pixels"):
        metric.update(images(2, side=32))
    with pytest.raises(UsageError, match="memory is too small: the rows of 2 images take 476 kB"):
        diversity(memory="300kB").update(images(2))
    with pytest.raises(UsageError, match=r"imgs must have the shape \[B, 3, H, W\]"):
        metric.update(torch.zeros(2, 1, 64, 64, dtype=torch.uint8))


WORK = """
    import os, sys, torch
    torch.set_num_threads(1)
    import torch.distributed as dist
    from lpipstore.torchmetrics import Diversity, LearnedPerceptualImagePatchSimilarity

    def main(rank, world, port):
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        dist.init_process_group("gloo", rank=rank, world_size=world)
        images = torch.rand(7, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        lpips = LearnedPerceptualImagePatchSimilarity("squeeze", normalize=True, weights="random")
        spread = Diversity("squeeze", normalize=True, weights="random")
        alone = Diversity("squeeze", normalize=True, weights="random")
        mine = images[:5] if rank == 0 else images[5:]
        lpips.update(mine, mine.flip(3))
        spread.update(mine)
        if rank == 0:  # the other process has seen no image
            alone.update(images)
        found = {"lpips": lpips.compute(), **spread.compute()}
        found |= {f"alone_{name}": value for name, value in alone.compute().items()}
        if rank == 1:
            print(sorted((name, value.item()) for name, value in found.items()))
        dist.destroy_process_group()

    if __name__ == "__main__":
        torch.multiprocessing.spawn(main, (2, sys.argv[1]), nprocs=2)
"""


def test_two_processes_are_one(tmp_path):
    (tmp_path / "work.py").write_text(textwrap.dedent(WORK))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, str(tmp_path / "work.py"), port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = dict(ast.literal_eval(done.stdout))
    some = images(7)
    lpips = Ours("squeeze", normalize=True, weights="random")
    lpips.update(some, some.flip(3))
    whole = diversity()
    whole.update(some)
    expected = {"lpips": lpips.compute(), **whole.compute()}
    expected |= {f"alone_{name}": value for name, value in whole.compute().items()}
    assert found == {
        name: pytest.approx(value.item(), abs=1e-6) for name, value in expected.items()
    }


def test_one_module_under_both_names():
    code = """
        import sys, lpipstore
        assert "torch" not in sys.modules
        assert lpipstore.torchmetrics is lpipstore.workflows.adapters.torchmetrics
        import lpipstore.torchmetrics, lpipstore.sklearn
        import lpipstore.workflows.adapters.sklearn as other, torchmetrics, sklearn
        assert lpipstore.sklearn is other and sys.modules["lpipstore.sklearn"] is other
        assert other.__spec__.name == other.__name__ == "lpipstore.workflows.adapters.sklearn"
        assert hasattr(torchmetrics, "Metric") and hasattr(sklearn, "base")
        print(lpipstore.torchmetrics.Diversity.__module__)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "lpipstore.workflows.adapters.torchmetrics\n"
