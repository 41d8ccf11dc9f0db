"""Switches of torch that make float32 products short change nothing that is stored or decided."""

import threading
from contextlib import ExitStack, contextmanager
from operator import attrgetter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from lpipstore.cache.store import FeatureStore
from lpipstore.pipeline.backbones.layout import RowLayout
from lpipstore.pipeline.backbones.load import load_backbone
from lpipstore.pipeline.common.device import installed
from lpipstore.pipeline.common.precision import (
    deterministic_algorithms,
    exact_arithmetic,
    fast_products,
    ieee_float32,
)
from lpipstore.pipeline.distances.distances import gram_distances
from lpipstore.pipeline.distances.heads import column_weights, make_head
from lpipstore.pipeline.distances.panels import Columns
from lpipstore.pipeline.features.extractor import Extractor
from lpipstore.pipeline.features.features import Features
from lpipstore.pipeline.features.pooled import PooledRows
from lpipstore.pipeline.features.pooling import GRIDS, pool_rows
from lpipstore.pipeline.features.rows import centre_of
from lpipstore.pipeline.images.loader import decode_arrays
from lpipstore.pipeline.search.bounds import BoundStage
from lpipstore.pipeline.search.pooled_bounds import Grid, project
from lpipstore.pipeline.search.search import Search
from lpipstore.pipeline.search.topk import Neighbours

from ...emulated import Emulated

SINGLE = hasattr(torch.backends.cudnn, "conv")  # one switch for each operation: torch 2.9
OURS = ("cuda.matmul", "cudnn.conv", "mkldnn.matmul", "mkldnn.conv")
NAMES = ("all", "mkldnn", *OURS)


def backend(name):
    """Return what has the switch of that name."""
    return torch.backends if name == "all" else attrgetter(name)(torch.backends)


BACKENDS = {name: backend(name) for name in NAMES} if SINGLE else {}


def precisions():
    """Return what products and convolutions are made of, by the names that torch 2.9 has."""
    if SINGLE:
        return {name: BACKENDS[name].fp32_precision for name in OURS}
    products = {"highest": ("ieee", "ieee"), "high": ("tf32", "tf32"), "medium": ("tf32", "bf16")}
    on_gpu, on_cpu = products[torch.get_float32_matmul_precision()]
    convolutions = "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"
    return dict(zip(OURS, (on_gpu, convolutions, on_cpu, "ieee"), strict=True))


def state():
    """Return all switches, as far as torch tells them."""
    try:
        products = torch.get_float32_matmul_precision()
    except RuntimeError:
        products = "mixed"
    switches = {name: switch.fp32_precision for name, switch in BACKENDS.items()}
    return products, switches, None if SINGLE else torch.backends.cudnn.allow_tf32


@pytest.fixture(autouse=True)
def untouched():
    """Whatever a test sets is set again."""
    before = state()
    yield
    torch.set_float32_matmul_precision("highest")
    for name, precision in before[1].items():
        BACKENDS[name].fp32_precision = precision
    if not SINGLE:
        torch.backends.cudnn.allow_tf32 = before[2]
    assert state() == before


@contextmanager
def switched(name, value):
    """Do what some other code of the process may do, for as long as the test runs."""
    with ExitStack() as stack:
        if name == "products":
            torch.set_float32_matmul_precision(value)
        elif name == "autocast":
            stack.enter_context(torch.autocast("cpu", value))
        elif name == "default dtype":
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(value)
        elif name == "cudnn.allow_tf32":  # of convolutions and of recurrent layers
            allowed = torch.backends.cudnn.allow_tf32
            stack.callback(setattr, torch.backends.cudnn, "allow_tf32", allowed)
            torch.backends.cudnn.allow_tf32 = value
        else:
            BACKENDS[name].fp32_precision = value
        yield


def switch(name, value):
    """Return a switch of torch 2.9 as a parameter of tests."""
    skip = pytest.mark.skipif(not SINGLE, reason="torch 2.8 has no switch for each operation")
    return pytest.param(name, value, marks=skip)


SWITCHES = pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("products", value) for value in ("highest", "high", "medium")),
        *(("autocast", value) for value in (torch.bfloat16, torch.float16)),
        *(("cudnn.allow_tf32", value) for value in (True, False)),
        *(switch(name, "tf32") for name in NAMES),
        *(switch(name, "bf16") for name in ("all", "mkldnn", "mkldnn.matmul", "mkldnn.conv")),
        ("default dtype", torch.float64),
    ],
)


def make_points(width, count=60, seed=0):
    """Points of norm about 1, every other one next to the one before it."""
    random = torch.Generator().manual_seed(seed)
    points = torch.zeros(count, width + 1)
    points[:, :-1] = torch.rand(count, width, generator=random) / width**0.5
    apart = torch.randn(count // 2, width, generator=random) * 1e-3 / width**0.5
    points[1::2, :-1] = points[::2, :-1] + apart
    points[:, -1] = points[:, :-1].square().sum(1)
    return points


@SWITCHES
@settings(max_examples=4, deadline=None)
@given(width=st.sampled_from([8, 128, 1000, 4096, 5000]), seed=st.integers(0, 99))
def test_no_distance_is_under_its_bound(name, value, width, seed):
    points, stage = make_points(width, seed=seed), BoundStage("stage", width, 0.0)
    exact = points[:, :-1].numpy().astype(np.float64)
    distances = np.square(exact[:, None] - exact[None]).sum(2)
    bounds = stage.bounds(points, points)
    with switched(name, value):
        again = stage.bounds(points, points)
    torch.set_float32_matmul_precision("highest")
    assert (again.numpy() <= stage.limit(distances)).all()
    assert torch.equal(bounds, again)


LAYOUT = RowLayout(((24, 13, 13), (48, 6, 6)))


def levels_of(rows, weights):
    """Return pooled rows, points and projections as bytes that can be compared."""
    pooled = pool_rows(rows, LAYOUT, "uint16", GRIDS)
    grid = Grid.of(2, weights, LAYOUT, "uint16", pooled[0])
    points = torch.from_numpy(grid.prepare(pooled[0].numpy()))
    stage, projected = project(grid, points[:40], points.split(16))
    return [*(part.numpy() for part in pooled), points.numpy(), projected, stage.slack]


@SWITCHES
def test_pooled_rows_points_directions_and_distances_keep_every_bit(name, value):
    random = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 1 << 16, (60, LAYOUT.length), generator=random).to(torch.uint16)
    heads = [np.random.default_rng(0).random(c) for c in LAYOUT.channels]
    weights = column_weights(make_head(heads, "random"), LAYOUT)
    columns = Columns.of(weights, "uint16", torch.device("cpu"))

    def everything():
        distances = gram_distances(rows, None, columns, centre_of(rows), 64)
        return [*levels_of(rows, weights), distances.numpy()]

    before = everything()
    with switched(name, value):
        after = everything()
    assert all(map(np.array_equal, before, after))


class Watch(TorchDispatchMode):
    """Notes products and convolutions of the calling thread that are not made as in float32."""

    def __init__(self):
        super().__init__()
        self.seen, self.short = set(), []

    def __torch_dispatch__(self, called, types, args=(), kwargs=None):
        name = called.name().split("::")[1].split(".")[0]
        if any(part in name for part in ("mm", "conv", "baddbmm", "mv", "linear", "dot")):
            self.seen.add(name)
            numbers = {arg.dtype for arg in args if isinstance(arg, torch.Tensor)}
            used = set(precisions().values())
            if used != {"ieee"} or numbers & {torch.bfloat16, torch.float16}:
                self.short.append((name, used, numbers))
        return called(*args, **(kwargs or {}))


class Collection:
    """600 pictures of 32×32 in a store, every third one nearly the same as another."""

    def __init__(self, folder, backbone):
        random = np.random.default_rng(0)
        pixels = np.kron(random.integers(0, 250, (600, 4, 4, 3)), np.ones((1, 8, 8, 1)))
        pixels[::3] = pixels[1::3] + random.integers(0, 5, pixels[1::3].shape)
        images = torch.from_numpy(pixels.astype(np.uint8))
        self.contents = [f"{number:016}".encode() for number in range(len(images))]
        by_content = dict(zip(self.contents, images, strict=True))
        self.store = FeatureStore(folder)
        extractor = Extractor(backbone, (32, 32))
        self.features = Features(
            extractor, self.store, lambda which, batch: decode_arrays(by_content, which, batch)
        )
        random = np.random.default_rng(0)
        heads = [random.random(c) / 30 for c in extractor.layout.channels]
        self.weights = column_weights(make_head(heads, "random"), extractor.layout)

    def answers(self):
        """Return rows, close pairs and neighbours: all from the images' pixels on."""
        pooled = PooledRows(self.features, GRIDS)
        pooled.ensure(self.contents)
        search = Search(self.features, pooled, self.contents, self.weights, 1_000_000_000)
        close = [np.stack(search.below(part, 1e-3)[0]) for part in range(search.parts)]
        found = Neighbours(search.sides.searched, 3)
        for step in range(search.steps):
            search.nearest(step, found, np.inf)
        return [self.features.rows(self.contents[:40]), np.concatenate(close, 1), found.codes]


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("squeeze", weights="random")


@pytest.fixture(scope="module")
def expected(tmp_path_factory, backbone):
    collection = Collection(tmp_path_factory.mktemp("store"), backbone)
    found = collection.answers()
    collection.store.close()
    assert found[1].shape[1] >= 200
    return found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("products", "medium"),
        ("autocast", torch.bfloat16),
        switch("all", "bf16"),
        switch("all", "tf32"),
    ],
)
def test_rows_and_answers_keep_every_byte_and_each_product_is_guarded(
    tmp_path, backbone, expected, name, value
):
    collection, watch = Collection(tmp_path, backbone), Watch()
    with switched(name, value), watch:
        found = collection.answers()
    collection.store.close()
    assert {"conv2d", "addmm_", "mm", "bmm"} <= watch.seen
    assert not watch.short
    assert all(map(np.array_equal, expected, found))


@SWITCHES
def test_switches_are_afterwards_as_they_were(name, value):
    with switched(name, value):
        before = state()
        for guard in (exact_arithmetic, ieee_float32, fast_products):
            with guard():
                fast = guard is fast_products
                products = ("tf32", "bf16") if fast else ("ieee", "ieee")
                expected = dict.fromkeys(OURS, "ieee")
                expected["cuda.matmul"], expected["mkldnn.matmul"] = products
                assert precisions() == expected
                kept = name == "autocast" and guard is ieee_float32
                assert torch.is_autocast_enabled("cpu") == kept
            with pytest.raises(ZeroDivisionError), guard():
                raise ZeroDivisionError
            assert state() == before


CUDNN, PRODUCTS = torch.backends.cudnn, torch.backends.cuda.matmul
OTHERS = {  # what other code may have set, and what holds for rows
    "benchmark": (CUDNN, True, False),
    "deterministic": (CUDNN, False, True),
    "depthwise_kernel": (CUDNN, "native", "auto"),
    "allow_fp16_reduced_precision_reduction": (PRODUCTS, True, False),
    "allow_bf16_reduced_precision_reduction": (PRODUCTS, True, False),
    "allow_fp16_accumulation": (PRODUCTS, True, False),
}
ALGORITHMS = {name: values for name, values in OTHERS.items() if hasattr(values[0], name)}


def algorithms():
    return {name: getattr(owner, name) for name, (owner, *_) in ALGORITHMS.items()}


@pytest.fixture
def set_otherwise():
    """All switches for algorithms are set to what rows must not be computed with."""
    before = algorithms()
    for name, (owner, other, _) in ALGORITHMS.items():
        setattr(owner, name, other)
    yield algorithms()
    for name, value in before.items():
        setattr(ALGORITHMS[name][0], name, value)


RIGHT = {name: right for name, (*_, right) in ALGORITHMS.items()}


def test_algorithms_are_deterministic_inside_and_afterwards_as_they_were(set_otherwise):
    with deterministic_algorithms():
        assert algorithms() == RIGHT
        with deterministic_algorithms():
            pass
        assert algorithms() == RIGHT
    assert algorithms() == set_otherwise
    with pytest.raises(ZeroDivisionError), deterministic_algorithms():
        raise ZeroDivisionError
    assert algorithms() == set_otherwise


@pytest.mark.skipif(
    not hasattr(PRODUCTS, "allow_fp16_reduced_precision_reduction_split_k"),
    reason="this version of torch has no switch for it",
)
def test_the_second_half_of_a_switch_is_restored():
    name = "allow_fp16_reduced_precision_reduction"
    before = getattr(PRODUCTS, name), getattr(PRODUCTS, f"{name}_split_k")
    setattr(PRODUCTS, name, (False, False))
    try:
        with deterministic_algorithms():
            assert getattr(PRODUCTS, f"{name}_split_k")
        assert not getattr(PRODUCTS, f"{name}_split_k")
    finally:
        setattr(PRODUCTS, name, before)


@pytest.mark.parametrize(
    ("name", "value"),
    [("products", "medium"), ("cudnn.allow_tf32", True), ("autocast", torch.bfloat16)],
)
def test_a_trunk_on_a_device_runs_with_all_switches_right(backbone, set_otherwise, name, value):
    with installed(Emulated()):
        extractor = Extractor(backbone, (32, 32), batch=2)
    seen = []

    def note(layer, args):
        seen.append((algorithms(), precisions(), torch.is_autocast_enabled("cpu")))

    layers = extractor.backbone.trunk.features
    hooks = [layers[number].register_forward_pre_hook(note) for number in (0, 3)]
    with switched(name, value):
        extractor.rows(torch.zeros(2, 32, 32, 3, dtype=torch.uint8))
        assert algorithms() == set_otherwise
    for hook in hooks:
        hook.remove()
    assert seen == [(RIGHT, dict.fromkeys(OURS, "ieee"), False)] * 2


def test_threads_share_the_switches_for_algorithms(set_otherwise):
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with deterministic_algorithms():
            inside.set()
            assert leave.wait(60)

    other = threading.Thread(target=hold)
    with deterministic_algorithms():
        other.start()
        assert inside.wait(60)
    assert algorithms() == RIGHT
    leave.set()
    other.join()
    assert algorithms() == set_otherwise


def test_threads_share_the_switches():
    """Who leaves first does not take the guard away; exact wins over fast."""
    torch.set_float32_matmul_precision("medium")
    before, inside, leave = state(), threading.Event(), threading.Event()

    def hold():
        with exact_arithmetic():
            inside.set()
            assert leave.wait(60)

    other = threading.Thread(target=hold)
    with exact_arithmetic():
        other.start()
        assert inside.wait(60)
    assert torch.get_float32_matmul_precision() == "highest"
    with fast_products():
        assert torch.get_float32_matmul_precision() == "highest"
        leave.set()
        other.join()
        assert precisions()["mkldnn.matmul"] == "bf16"
    assert state() == before
