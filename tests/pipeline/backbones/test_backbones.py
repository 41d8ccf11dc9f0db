"""Backbones: taps, layouts, digests, other models of torchvision, and wrong arguments."""

import pytest
import torch
from torchvision.models import get_model

from lpipstore.cache.errors import UsageError
from lpipstore.pipeline.backbones import lpips_nets
from lpipstore.pipeline.backbones.layout import LPIPS_BACKBONES, RowLayout
from lpipstore.pipeline.backbones.load import load_backbone
from lpipstore.pipeline.backbones.taps import tap_shapes

LENGTH_64 = {"alex": 31_872, "squeeze": 118_976, "vgg": 499_712}


@pytest.fixture(scope="module")
def backbones():
    return {name: load_backbone(name, weights="random") for name in LPIPS_BACKBONES}


def images(batch=2, height=64, width=64):
    generator = torch.Generator().manual_seed(height)
    return torch.rand(batch, 3, height, width, generator=generator) * 2 - 1


@pytest.mark.parametrize("name", LPIPS_BACKBONES)
def test_layout_is_the_shape_of_the_taps(backbones, name):
    backbone = backbones[name]
    layout = backbone.layout(65, 97)
    taps = backbone.taps_of(images(2, 65, 97))
    assert [tuple(tap.shape) for tap in taps] == [(2, *shape) for shape in layout.taps]
    assert layout.channels == backbone.channels == LPIPS_BACKBONES[name].channels
    assert layout.length == sum(tap[0].numel() for tap in taps)
    assert backbone.layout(64, 64).length == LENGTH_64[name]


@pytest.mark.parametrize("name", LPIPS_BACKBONES)
def test_layouts_are_those_of_the_trunk(backbones, name):
    backbone, spec = backbones[name], LPIPS_BACKBONES[name]
    sides = [*range(spec.minimum_side, spec.minimum_side + 40), 64, 65, 97, 224, 255, 321]
    for height, width in zip(sides, reversed(sides), strict=True):
        assert spec.layout(height, width).taps == tap_shapes(backbone.trunk, height, width)


def test_slices_follow_one_another():
    layout = RowLayout(((2, 3, 4), (5, 1, 1)))
    assert layout.slices == (slice(0, 24), slice(24, 29))
    assert layout.length == 29


@pytest.mark.parametrize("name", LPIPS_BACKBONES)
def test_smallest_side_is_where_the_trunk_begins_to_work(backbones, name):
    backbone = backbones[name]
    side = backbone.outline.minimum_side
    assert all(min(shape) >= 1 for shape in backbone.layout(side, side).taps)
    with pytest.raises(RuntimeError):
        tap_shapes(backbone.trunk, side - 1, 64)
    with pytest.raises(
        UsageError, match=f"of 64x{side - 1} pixels .* {name}.* is {side}.*size={side} or"
    ):
        backbone.layout(side - 1, 64)


@pytest.mark.parametrize("name", LPIPS_BACKBONES)
def test_taps_are_what_torchvision_computes_after_its_relus(backbones, name):
    backbone = backbones[name]
    with torch.device("meta"):
        features = get_model(LPIPS_BACKBONES[name].torchvision_name, weights=None).features
    features = features[: LPIPS_BACKBONES[name].stops[-1] + 1]
    state = {k.removeprefix("features."): v for k, v in backbone.trunk.state_dict().items()}
    features.load_state_dict(state, assign=True)
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    activations = (images() - shift) / scale
    expected = []
    for index, layer in enumerate(features):
        activations = layer(activations)
        if index in LPIPS_BACKBONES[name].stops:
            expected.append(activations.clone())
    found = backbone.taps_of(images())
    assert len(found) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert all(tap.min() >= 0 for tap in found)
    assert not backbone.signed


def test_version_0_0_has_no_scaling_layer():
    new = load_backbone("squeeze", weights="random")
    old = load_backbone("squeeze", weights="random", version="0.0")
    assert old.weights_digest == new.weights_digest
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    scaled = (images() - shift) / scale
    assert torch.equal(old.taps_of(scaled)[-1], new.taps_of(images())[-1])
    assert not torch.equal(old.taps_of(images())[-1], new.taps_of(images())[-1])


def test_trunk_is_frozen_in_evaluation_mode_and_passes_gradients_to_the_images(backbones):
    backbone = backbones["squeeze"]
    assert not any(parameter.requires_grad for parameter in backbone.trunk.parameters())
    assert not any(module.training for module in backbone.trunk.modules())
    inputs = images().requires_grad_()
    sum(tap.sum() for tap in backbone.taps_of(inputs)).backward()
    assert inputs.grad.abs().sum() > 0


def test_digest_depends_on_every_value_and_not_on_what_the_taps_leave_out():
    state = {k: v.clone() for k, v in get_model("squeezenet1_1", weights=None).state_dict().items()}
    digest = load_backbone("squeeze", weights=state).weights_digest
    assert len(digest) == 32
    state["classifier.1.weight"] += 1
    assert load_backbone("squeeze", weights=dict(reversed(state.items()))).weights_digest == digest
    state["features.12.expand3x3.bias"][-1] += 1e-3
    assert load_backbone("squeeze", weights=state).weights_digest != digest


def test_random_weights_say_that_they_are_untrained(backbones):
    assert all(not backbone.trained for backbone in backbones.values())
    assert all("untrained" in backbone.weights_origin for backbone in backbones.values())
    again = load_backbone("alex", weights="random")
    assert again.weights_digest == backbones["alex"].weights_digest
    assert len({backbone.weights_digest for backbone in backbones.values()}) == 3


def test_building_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    load_backbone("alex", weights="random")
    load_backbone("torchvision:regnet_y_400mf", weights="random", taps=["stem"])
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_of_another_model_name_file_and_backbone(tmp_path):
    path = tmp_path / "squeezenet1_0.pth"
    torch.save(get_model("squeezenet1_0", weights=None).state_dict(), path)
    with pytest.raises(UsageError, match="squeezenet1_0.pth does not fit the backbone squeeze"):
        load_backbone("squeeze", weights=path)
    with pytest.raises(UsageError, match="backbone vgg: it lacks features.2.weight"):
        load_backbone("vgg", weights=path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_copy_leaves_the_original(backbones, dtype):
    backbone = backbones["squeeze"]
    half = backbone.to(dtype=dtype)
    assert (half.dtype, backbone.dtype) == (dtype, torch.float32)
    assert half.layout(64, 64) == backbone.layout(64, 64)
    for coarse, fine in zip(half.taps_of(images()), backbone.taps_of(images()), strict=True):
        assert coarse.dtype == dtype
        torch.testing.assert_close(coarse.float(), fine, rtol=0.1, atol=0.1)


def test_batch_size_does_not_change_a_tap(backbones):
    backbone = backbones["squeeze"]
    together = backbone.taps_of(images(5))
    alone = backbone.taps_of(images(5)[3:4])
    for many, one in zip(together, alone, strict=True):
        torch.testing.assert_close(many[3:4], one, rtol=1e-5, atol=1e-5)


def test_tf32_is_off_for_the_convolutions_of_a_trunk_and_then_as_before(backbones):
    seen, cudnn = [], torch.backends.cudnn
    single = hasattr(cudnn, "conv")  # torch 2.9 has a switch for convolutions

    def allowed():
        return cudnn.conv.fp32_precision == "tf32" if single else cudnn.allow_tf32

    with cudnn.flags(enabled=True, allow_tf32=True):
        first = backbones["squeeze"].trunk.features[0]
        hook = first.register_forward_pre_hook(lambda *_: seen.append(allowed()))
        backbones["squeeze"].taps_of(images())
        hook.remove()
        assert allowed()
    assert seen == [False]


@pytest.mark.gpu
@pytest.mark.parametrize("name", LPIPS_BACKBONES)
def test_taps_on_a_gpu_equal_those_on_the_cpu(backbones, name):
    on_gpu = backbones[name].to("cuda").taps_of(images())
    for ours, theirs in zip(on_gpu, backbones[name].taps_of(images()), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-4, atol=1e-4)


# --- other models of torchvision


def test_named_taps_of_resnet_equal_hooks_on_the_model():
    names = ["conv1", "bn1", "layer1.0.bn2", "layer2", "layer4"]
    torch.manual_seed(0)
    model = get_model("resnet18", weights=None).eval().to(memory_format=torch.channels_last)
    backbone = load_backbone("torchvision:resnet18", weights=model.state_dict(), taps=names)
    expected = {}
    for name in names:
        # a clone at once: the next layer of the model works in place
        model.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: expected.__setitem__(name, output.clone())
        )
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    with torch.no_grad():
        model(((images() - shift) / scale).to(memory_format=torch.channels_last))
        found = backbone.taps_of(images())
    assert backbone.channels == (64, 64, 64, 128, 512)
    assert backbone.signed
    assert found[1].min() < 0
    for name, tap in zip(names, found, strict=True):
        assert torch.equal(tap, expected[name]), name
    assert [tuple(tap.shape[1:]) for tap in found] == list(backbone.layout(64, 64).taps)


class Table:
    """A file table in memory, such as a store keeps."""

    def __init__(self):
        self.records = {}

    def recall_files(self, files):
        return [self.records.get(file) for file in files]

    def remember_files(self, entries):
        self.records |= dict(entries)


def test_a_digest_is_remembered_with_the_file_that_was_read(tmp_path, monkeypatch):
    states = [
        {k: v + n for k, v in load_backbone("squeeze", weights="random").trunk.state_dict().items()}
        for n in range(2)
    ]
    old, new = (tmp_path / name for name in ("squeezenet1_1.pth", "new.pth"))
    for path, state in zip((old, new), states, strict=True):
        torch.save(state, path)
    digests = [load_backbone("squeeze", weights=state).weights_digest for state in states]
    table, read = Table(), lpips_nets.load_weights

    def replaced_after_reading(*arguments, **options):
        loaded = read(*arguments, **options)
        new.replace(old)
        return loaded

    with monkeypatch.context() as patch:
        patch.setattr(lpips_nets, "load_weights", replaced_after_reading)
        loaded = load_backbone("squeeze", weights=old, table=table)
    assert loaded.weights_digest == digests[0]
    for _ in range(2):  # read, then remembered
        assert load_backbone("squeeze", weights=old, table=table).weights_digest == digests[1]
    assert len(table.records) == 1


def test_relu_called_as_a_function_does_not_reach_back_into_a_tap():
    names = ["Conv2d_1a_3x3.bn", "Conv2d_1a_3x3"]
    backbone = load_backbone("torchvision:inception_v3", weights="random", taps=names)
    before, after = backbone.taps_of(images())
    assert before.min() < 0
    assert torch.equal(before.relu(), after)


def test_layers_behind_the_last_tap_need_no_weights():
    state = get_model("resnet18", weights=None).state_dict()
    needed = {
        k: v for k, v in state.items() if not k.startswith(("layer2", "layer3", "layer4", "fc"))
    }
    needed = {k: v for k, v in needed.items() if not k.endswith("num_batches_tracked")}
    short = load_backbone("torchvision:resnet18", weights=needed, taps=["layer1"])
    whole = load_backbone("torchvision:resnet18", weights=state, taps=["layer1"])
    assert short.weights_digest == whole.weights_digest
    deeper = load_backbone("torchvision:resnet18", weights=state, taps=["layer1", "layer2"])
    assert deeper.weights_digest != whole.weights_digest


@pytest.mark.parametrize(
    ("model", "taps"),
    [
        ("densenet121", ["features.denseblock1", "features.norm5"]),
        ("inception_v3", ["Mixed_5b"]),
        ("convnext_tiny", ["features.1", "features.3"]),
    ],
)
def test_other_families_work_and_repeat(model, taps):
    backbone = load_backbone(f"torchvision:{model}", weights="random", taps=taps)
    first, second = backbone.taps_of(images(1, 96, 96)), backbone.taps_of(images(1, 96, 96))
    assert [tuple(tap.shape[1:]) for tap in first] == list(backbone.layout(96, 96).taps)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.isfinite(tap).all() for tap in first)
    assert all(tap.std() > 0 for tap in first)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vgg16", {}, "'vgg16': choose alex, vgg, squeeze, or torchvision:NAME"),
        ("alex", {"version": "0.2"}, "'0.2': choose 0.1 or 0.0"),
        ("alex", {"taps": ["features.1"]}, "alex has its own taps"),
        ("torchvision:resnet18", {}, "needs taps: name layers with taps, from conv1, bn1"),
        ("torchvision:resnet18", {"taps": ["layer9"]}, "no tap layer9: .*layer1, layer2"),
        ("torchvision:resnet18", {"taps": ["layer1", "layer1"]}, "names a tap twice"),
        ("torchvision:resnet18", {"taps": ["fc"]}, r"tap fc .* \('B', 1000\)"),
        ("torchvision:resnet18", {"taps": ["layer1"], "version": "0.0"}, "version 0.0 is for alex"),
        ("torchvision:resnet19", {"taps": ["layer1"]}, "did you mean .*resnet18"),
        (
            "torchvision:swin_t",
            {"taps": ["features.1"]},
            r"\('B', 56, 56, 96\).*not \(B, C, H, W\)",
        ),
    ],
)
def test_wrong_arguments_say_what_fits(name, options, message):
    with pytest.raises(UsageError, match=message):
        load_backbone(name, weights="random", **options)


def test_size_that_a_model_does_not_take_is_an_error_with_advice():
    backbone = load_backbone("torchvision:inception_v3", weights="random", taps=["Mixed_5b"])
    with pytest.raises(UsageError, match="inception_v3 does not take images of 20x30 pixels"):
        backbone.layout(30, 20)
