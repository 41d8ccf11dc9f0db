"""Exported files against the PyPI package ``lpips``, on the same random trunk, within 1e-5."""

from importlib.resources import files

import lpips
import numpy as np
import pytest
import torch

from lpipstore.cache.errors import LpipstoreError, UsageError
from lpipstore.pipeline.backbones.load import load_backbone
from lpipstore.pipeline.distances.heads import load_head, make_head
from lpipstore.pipeline.graphs.card import ModelCard
from lpipstore.pipeline.graphs.graph import EmbeddingGraph, PairGraph
from lpipstore.pipeline.graphs.onnx_file import OnnxModel, onnx_bytes
from lpipstore.pipeline.graphs.pt2_file import Pt2Model, pt2_bytes
from lpipstore.pipeline.graphs.reference import Reference, deviation

NETS = ("alex", "vgg", "squeeze")
SIZES = ((64, 64), (65, 97), (224, 224))
PARITY = 1e-5

# The package asks torchvision for its trunks as torchvision once wanted it
pytestmark = pytest.mark.filterwarnings("ignore:.*(pretrained|weight enum):UserWarning")


def image_pairs(batch, height, width):
    """Unrelated pairs and near-duplicates in turn, float32 in [-1, 1]."""
    random = np.random.default_rng(batch * 1000 + width)
    first, second = random.uniform(-1, 1, (2, batch, 3, height, width)).astype(np.float32)
    second[1::2] = (first + 0.02 * second)[1::2].clip(-1, 1)
    return first, second


def reference_of(net, version, trunk=None):
    """The module of the package, with a random trunk or that of ours."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = lpips.LPIPS(
            net=net,
            version=version,
            pnet_rand=True,
            verbose=False,
            model_path=str(files("lpips").joinpath(f"weights/v{version}/{net}.pth")),
        )
    if trunk is not None:  # "slice2.3.weight" of the package is "features.3.weight" of torchvision
        own = trunk.state_dict()
        theirs.net.load_state_dict(
            {name: own[f"features.{name.split('.', 1)[1]}"] for name in theirs.net.state_dict()}
        )
    return theirs


def ours_of(theirs, version, **weights):
    """Backbone and head of ours, on the trunk of the package unless `weights` names one."""
    if not weights:
        state = theirs.net.state_dict().items()
        weights = {"weights": {f"features.{name.split('.', 1)[1]}": t for name, t in state}}
    backbone = load_backbone(theirs.pnet_type, version=version, **weights)
    return backbone, load_head(None, backbone.name, backbone.channels, version)


def card_of(backbone, head, form="pair", spatial="no", pixels="signed", size="any"):
    return ModelCard(
        form,
        spatial,
        pixels,
        size,
        backbone.name,
        ",".join(backbone.taps),
        backbone.weights_digest,
        head.digest,
        "no",
        backbone.version,
        "0",
    )


def graph_of(backbone, head, card):
    if card.form == "embedding":
        return EmbeddingGraph(backbone, head, card.pixels, card.fixed_size)
    return PairGraph(backbone, head, card.pixels, spatial=card.spatial == "yes")


def onnx_model(backbone, head, **choices):
    card = card_of(backbone, head, **choices)
    return OnnxModel(onnx_bytes(graph_of(backbone, head, card), card), "the model", threads=1)


def distances_of_package(theirs, first, second):
    with torch.no_grad():
        theirs.spatial = False
        distance = theirs(torch.from_numpy(first), torch.from_numpy(second)).flatten()
        theirs.spatial = True
        return distance.numpy(), theirs(torch.from_numpy(first), torch.from_numpy(second)).numpy()


def assert_pairs_equal_the_package(theirs, model):
    for height, width in SIZES:
        for batch in (5, 1):
            first, second = image_pairs(batch, height, width)
            distance, spatial = model(first, second)
            wanted, wanted_map = distances_of_package(theirs, first, second)
            assert distance.shape == (batch,)
            assert wanted.max() > 0.01  # the trunk tells the images apart
            np.testing.assert_allclose(distance, wanted, rtol=0, atol=PARITY)
            np.testing.assert_allclose(spatial, wanted_map, rtol=0, atol=PARITY)


@pytest.fixture(scope="module")
def exported():
    """The package's module with squeeze, and backbone, head, card and bytes of an export of it."""
    theirs = reference_of("squeeze", "0.1")
    backbone, head = ours_of(theirs, "0.1")
    card = card_of(backbone, head, spatial="yes")
    return theirs, backbone, head, card, onnx_bytes(graph_of(backbone, head, card), card)


def test_one_onnx_file_of_pairs_equals_the_package_at_every_size_and_batch(exported):
    theirs, *_, content = exported
    assert_pairs_equal_the_package(theirs, OnnxModel(content, "the model", threads=1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "version"),
    [(net, v) for net in NETS for v in ("0.1", "0.0") if (net, v) != ("squeeze", "0.1")],
)
def test_onnx_files_of_pairs_equal_the_package(net, version):
    theirs = reference_of(net, version)
    assert_pairs_equal_the_package(theirs, onnx_model(*ours_of(theirs, version), spatial="yes"))


@pytest.mark.parametrize(
    ("net", "version", "size"),
    [
        ("squeeze", "0.1", (65, 97)),
        *(
            pytest.param(net, version, size, marks=pytest.mark.slow)
            for net in NETS
            for version, size in (("0.1", (64, 64)), ("0.0", (65, 97)), ("0.1", (224, 224)))
        ),
    ],
    ids=str,
)
def test_squared_distances_of_embeddings_equal_the_package(net, version, size):
    theirs = reference_of(net, version)
    backbone, head = ours_of(theirs, version)
    model = onnx_model(backbone, head, form="embedding", size=f"{size[0]}x{size[1]}")
    for batch in (5, 1):
        first, second = image_pairs(batch, *size)
        (rows,), (others,) = model(first), model(second)
        assert rows.shape == (batch, backbone.layout(*size).length)
        assert rows.dtype == np.float32
        found = np.square(rows.astype(np.float64) - others).sum(1)
        wanted, _ = distances_of_package(theirs, first, second)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=PARITY)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["0.1", "0.0"])
def test_squeeze_with_real_weights_equals_the_package(version, real_weights):
    backbone, _ = ours_of(reference_of("squeeze", version), version, weights="imagenet")
    assert backbone.trained
    theirs = reference_of("squeeze", version, backbone.trunk)
    head = load_head(None, "squeeze", backbone.channels, version)
    pairs = onnx_model(backbone, head, spatial="yes")
    for height, width in SIZES:
        rows = onnx_model(backbone, head, form="embedding", size=f"{height}x{width}")
        for batch in (5, 1):
            first, second = image_pairs(batch, height, width)
            wanted, wanted_map = distances_of_package(theirs, first, second)
            distance, spatial = pairs(first, second)
            np.testing.assert_allclose(distance, wanted, rtol=0, atol=PARITY)
            np.testing.assert_allclose(spatial, wanted_map, rtol=0, atol=PARITY)
            difference = rows(first)[0].astype(np.float64) - rows(second)[0]
            np.testing.assert_allclose(np.square(difference).sum(1), wanted, rtol=0, atol=PARITY)


@pytest.fixture(scope="module")
def squeeze():
    backbone = load_backbone("squeeze", weights="random")
    return backbone, load_head(None, "squeeze", backbone.channels)


@pytest.mark.parametrize("pixels", ["signed", "unit", "uint8"])
@pytest.mark.parametrize("version", ["0.1", "0.0"])
def test_pixels_of_every_kind_give_the_same_distances(pixels, version):
    """Eager graphs: preprocessing is a part of them, whatever they are exported to."""
    backbone, head = ours_of(reference_of("squeeze", version), version, weights="random")
    card = card_of(backbone, head, pixels=pixels, spatial="yes")
    random = np.random.default_rng(0)
    bytes_ = random.integers(0, 256, (2, 3, 3, 33, 40), np.uint8)
    images = {"uint8": bytes_, "unit": np.float32(bytes_ / 255), "signed": bytes_ / 127.5 - 1}
    first, second = images[pixels].astype(np.uint8 if pixels == "uint8" else np.float32)
    with torch.no_grad():
        found = graph_of(backbone, head, card)(torch.from_numpy(first), torch.from_numpy(second))
    signed = card_of(backbone, head, spatial="yes")
    wanted = Reference(backbone, head, signed)(*np.float32(bytes_ / 127.5 - 1))
    assert wanted[0].min() > 0.001
    assert deviation([each.numpy() for each in found], wanted, "pair") < 1e-6


def test_an_onnx_file_takes_the_smallest_images_and_no_pairs_of_two_sizes(exported):
    _, backbone, head, card, content = exported
    model = OnnxModel(content, "the model", threads=1)
    first, second = image_pairs(1, 17, 31)
    wanted = Reference(backbone, head, card)(first, second)
    assert deviation(model(first, second), wanted, "pair") < PARITY
    with pytest.raises(LpipstoreError, match="onnxruntime cannot run the model"):
        model(first, np.zeros((1, 3, 40, 40), np.float32))


def test_an_onnx_file_names_what_it_is_and_no_place_of_this_machine(exported):
    *_, card, content = exported
    model = OnnxModel(content, "the model", threads=1)
    assert ModelCard.of_entries(model.entries, "it") == card
    assert b"site-packages" not in content
    assert b".py" not in content


def test_a_pt2_file_equals_the_reference_and_keeps_its_card(squeeze):
    card = card_of(*squeeze, spatial="yes")
    model = Pt2Model(pt2_bytes(PairGraph(*squeeze, "signed", spatial=True), card))
    assert ModelCard.of_entries(model.entries, "it") == card
    for batch, height, width in ((1, model.smallest_side, 40), (5, 65, 97)):
        pair = image_pairs(batch, height, width)
        wanted = Reference(*squeeze, card)(*pair)
        assert deviation(model(*pair), wanted, "pair") < PARITY


@pytest.mark.slow
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_pt2_files_of_other_backbones_equal_the_package(net):
    theirs = reference_of(net, "0.1")
    backbone, head = ours_of(theirs, "0.1")
    card = card_of(backbone, head, spatial="yes")
    content = pt2_bytes(graph_of(backbone, head, card), card)
    assert_pairs_equal_the_package(theirs, Pt2Model(content))


def test_signed_heads_have_pairs_and_no_embedding(squeeze):
    backbone, head = squeeze
    signed = make_head([weight - np.float32(0.1) for weight in head.weights], "signed")
    with pytest.raises(UsageError, match=r"signed has negative weights.*form=\"pair\""):
        EmbeddingGraph(backbone, signed, "signed", (64, 64))
    first, second = image_pairs(2, 33, 40)
    with torch.no_grad():
        found = PairGraph(backbone, signed, "signed")(
            torch.from_numpy(first), torch.from_numpy(second)
        )
    wanted = Reference(backbone, signed, card_of(backbone, signed))(first, second)
    assert wanted[0].min() < 0
    assert deviation([each.numpy() for each in found], wanted, "pair") < 1e-6


def test_a_deviation_is_found_wherever_it_is(squeeze):
    wanted = [np.array([0.5, 0.25]), np.zeros((2, 1, 4, 4))]
    assert deviation(wanted, wanted, "pair") == 0
    for output, place in ((0, 1), (1, (1, 0, 2, 3))):
        found = [each.copy() for each in wanted]
        found[output][place] += 0.125
        assert deviation(found, wanted, "pair") == 0.125
        found[output][place] = np.nan
        assert not deviation(found, wanted, "pair") <= PARITY
    assert deviation([np.zeros(3)], [np.zeros(2)], "pair") == np.inf
    rows = np.zeros((2, 100))
    shifted = rows.copy()
    shifted[0] += 1e-3  # each number is off by little, and the distance by their sum of squares
    assert deviation([shifted], [rows], "embedding") == pytest.approx(1e-3)
    shifted[0] = 0.5
    assert deviation([shifted], [rows], "embedding") == pytest.approx(25)
