"""The module compiled, exported and in onnxruntime: the distances of the package ``lpips``.

One export with dynamic shapes serves all sizes and batches. `aot_eager` traces forward and backward
as inductor does, and needs no C++ compiler.
"""

import copy
import pickle
import shutil

import pytest
import torch
from torch.export import Dim, export

from lpipstore.pipeline.distances.module import LPIPS

SIZES = [(1, 64, 64), (5, 65, 97), (2, 80, 71)]
LARGE = pytest.param((2, 224, 224), marks=pytest.mark.slow)
MODELS = [("squeeze", "0.1"), ("alex", "0.1"), ("alex", "0.0")]
SLOW_MODELS = [
    pytest.param(model, marks=pytest.mark.slow)
    for model in [("vgg", "0.1"), ("vgg", "0.0"), ("squeeze", "0.0")]
]
SMALLEST = 48  # where alex has taps of one position, torch would export for that size only
RESNET = {"net": "torchvision:resnet18", "taps": ("layer1", "layer2"), "heads": "none"}


@pytest.fixture(scope="session")
def all_sizes():
    """Skip where torch itself exports no pooling layer for all sizes, as torch 2.8."""
    pool, images = torch.nn.MaxPool2d(3, 2), torch.zeros(1, 1, 9, 9)
    try:
        export(pool, (images,), dynamic_shapes=({2: Dim("height", min=5)},))
    except torch._dynamo.exc.UserError:
        pytest.skip(f"torch {torch.__version__} exports max-pooling for even or odd sizes only")


@pytest.fixture(autouse=True)
def new_start(tmp_path, monkeypatch):
    """Compile anew in each test: torch limits how often one function is compiled.

    What inductor keeps between processes may be half a file of one that was killed.
    """
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch._dynamo.reset()


@pytest.fixture(scope="module", params=[*MODELS, *SLOW_MODELS], ids=str)
def pair(request, twins):
    return twins(*request.param)


@pytest.fixture(scope="module")
def exported(pair, draw_pairs, all_sizes):
    return export_dynamic(pair[1], draw_pairs)


def export_dynamic(metric, draw_pairs, *, strict=False):
    """Export with any batch, height and width, which both images share."""
    dims = {0: Dim("batch"), 2: Dim("height", min=SMALLEST), 3: Dim("width", min=SMALLEST)}
    shapes = {"in0": dims, "in1": dims}
    return export(metric, draw_pairs(2, 66, 81), dynamic_shapes=shapes, strict=strict)


def assert_parity(ours, theirs, tolerance=1e-6):
    theirs = theirs.detach()
    assert ours.shape == theirs.shape
    assert theirs.max() > 0.01
    assert float((ours.detach() - theirs).abs().max()) <= tolerance


@pytest.mark.parametrize("size", [*SIZES, LARGE], ids=str)
def test_exported_module_gives_the_distances_of_the_package(pair, exported, draw_pairs, size):
    first, second = draw_pairs(*size)
    assert_parity(exported.module()(first, second), pair[0](first, second))
    assert_parity(pair[1](first, second), pair[0](first, second))


def test_onnx_file_gives_the_distances_of_the_package(pair, exported, draw_pairs, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    path = tmp_path / "pair.onnx"
    torch.onnx.export(exported, dynamo=True, verbose=False).save(path)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    for size in SIZES:
        first, second = draw_pairs(*size)
        values = (first.numpy(), second.numpy())
        (found,) = session.run(None, dict(zip(names, values, strict=True)))
        assert_parity(torch.from_numpy(found), pair[0](first, second), 1e-5)


@pytest.mark.parametrize(
    "options",
    [{"net": "squeeze", "spatial": True}, {"net": "alex", "reduction": "mean"}, RESNET],
    ids=str,
)
def test_strict_export_takes_the_options(options, draw_pairs, all_sizes):
    metric = LPIPS(**options, weights="random")
    exported = export_dynamic(metric, draw_pairs, strict=True)
    for size in SIZES:
        torch.testing.assert_close(
            exported.module()(*draw_pairs(*size)), metric(*draw_pairs(*size)), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("net", ["squeeze", "alex"])
def test_export_for_one_size_takes_any_batch(net, draw_pairs):
    metric, dims = LPIPS(net, weights="random"), {0: Dim("batch")}
    shapes = {"in0": dims, "in1": dims}
    exported = export(metric, draw_pairs(2, 66, 81), dynamic_shapes=shapes).module()
    pairs = draw_pairs(5, 66, 81)
    torch.testing.assert_close(exported(*pairs), metric(*pairs), rtol=1e-5, atol=1e-6)


def test_export_takes_a_mask(draw_pairs, all_sizes):
    metric = LPIPS("alex", weights="random")
    first, second = draw_pairs(2, 64, 70)
    dims = {0: Dim("batch"), 2: Dim("height", min=SMALLEST), 3: Dim("width", min=SMALLEST)}
    exported = export(
        metric,
        (first, second),
        {"mask": torch.ones(2, 1, 64, 70)},
        dynamic_shapes={"in0": dims, "in1": dims, "mask": dims},
    )
    first, second = draw_pairs(3, 81, 66)
    mask = torch.rand(3, 1, 81, 66, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(
        exported.module()(first, second, mask=mask), metric(first, second, mask=mask)
    )


COMPILED = [pytest.param(model, marks=pytest.mark.slow) for model in (MODELS[0], MODELS[2])]


@pytest.mark.parametrize("model", [MODELS[1], *COMPILED, *SLOW_MODELS], ids=str)
def test_one_graph_gives_distances_and_gradients_of_the_package(model, twins, draw_pairs):
    """Gradients in float64: in float32, rounding decides at ReLUs, in the package itself, too."""
    theirs, ours = twins(*model)
    exact = [copy.deepcopy(metric).double() for metric in (ours, theirs)]
    compiled, exact[0] = (
        torch.compile(metric, fullgraph=True, backend="aot_eager", dynamic=True)
        for metric in (ours, exact[0])
    )
    for size in SIZES[:2]:
        first, second = draw_pairs(*size)
        with torch.no_grad():
            assert_parity(compiled(first, second), theirs(first, second))
        gradients = []
        for metric in exact:
            image = first.double().requires_grad_()
            value = metric(image, second.double())
            value.sum().backward()
            gradients.append(image.grad)
            assert_parity(value.float(), theirs(first, second))
        largest = float(gradients[1].abs().max())
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-6 * largest)


@pytest.mark.parametrize("options", [{"net": "squeeze", "spatial": True}, RESNET], ids=str)
def test_one_graph_takes_the_options(options, draw_pairs):
    metric = LPIPS(**options, weights="random")
    compiled = torch.compile(metric, fullgraph=True, backend="aot_eager")
    pairs = draw_pairs(2, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*pairs), metric(*pairs), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler: g++")
@pytest.mark.parametrize("net", ["squeeze", "alex", "torchvision:resnet18"])
def test_inductor_gives_the_distances_and_gradients_of_the_package(net, twins, draw_pairs):
    if net == RESNET["net"]:  # the package has no such trunk
        theirs = LPIPS(**RESNET, weights="random")
        ours = copy.deepcopy(theirs)
    else:
        theirs, ours = twins(net)
    compiled = torch.compile(ours, fullgraph=True)
    pairs = draw_pairs(2, 64, 64)
    with torch.no_grad():
        assert_parity(compiled(*pairs), theirs(*pairs))
    gradients = []
    for metric in (compiled, theirs):
        image = pairs[0].clone().requires_grad_()
        value = metric(image, pairs[1])
        value.sum().backward()
        assert_parity(value, theirs(*pairs))
        gradients.append(image.grad)
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 1e-3


def test_a_compiled_metric_can_be_copied_and_pickled(draw_pairs):
    metric = LPIPS("alex", weights="random")
    pairs = draw_pairs(1, 64, 64)
    expected = metric(*pairs)
    metric.compile(fullgraph=True, backend="aot_eager")
    assert_parity(metric(*pairs), expected)
    for twin in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert torch.equal(twin(*pairs), expected)
