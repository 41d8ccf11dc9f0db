"""Products of halves, on emulated tensor cores: their bounds, their shapes, whole distances."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lpipstore.pipeline.backbones.load import load_backbone
from lpipstore.pipeline.distances import halves as of_halves
from lpipstore.pipeline.distances import kernels
from lpipstore.pipeline.distances.distances import gram_distances
from lpipstore.pipeline.distances.halves import (
    BOUND,
    FAST_BOUND,
    PANELS,
    bytes_of_products,
    products_of_halves,
)
from lpipstore.pipeline.distances.heads import column_weights, load_head
from lpipstore.pipeline.distances.kernels import FLOAT32, Kernel
from lpipstore.pipeline.distances.panels import Columns
from lpipstore.pipeline.features.extractor import Extractor
from lpipstore.pipeline.features.rows import centre_of
from lpipstore.pipeline.images.decode import decode
from lpipstore.pipeline.images.preparation import Preparation

from ...emulated import multiply_halves

CPU = torch.device("cpu")
SIDE = 16  # in place of a GPU's, which takes a CPU seconds
STEPS = {"uint16": 65535, "int16": 32767, "float32": 1}


@pytest.fixture(autouse=True, scope="module")
def small():
    """Products of few rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_halves, "SIDE", SIDE)
        yield


def truncated(a, b, at_once=16):
    """As tensor cores are known to: sums of 16 products, each step cut off after 24 bits."""
    assert a.dtype == b.dtype == torch.float16
    sums = torch.zeros(len(a), a.shape[1], b.shape[2], dtype=torch.float64)
    for start in range(0, a.shape[2], at_once):
        part = slice(start, start + at_once)
        sums += torch.bmm(a[:, :, part].double(), b[:, part].double())
        mantissas, exponents = torch.frexp(sums)
        sums = torch.ldexp((mantissas * 2**24).trunc(), exponents - 24)
    return sums.to(torch.float32)


def backwards(a, b):
    """One product after another from the last on, rounded each time."""
    return multiply_halves(a.flip(2), b.flip(1))


def exact(rows, others, weights, centre, steps):
    """Products and the sums of their terms' absolute values, in float64."""
    x, y = ((some.double() - centre.double()) / steps for some in (rows, others))
    v = torch.from_numpy(weights).double()
    return x @ (y * v).T, x.abs() @ (y * v).abs().T


def some_rows(count, length, dtype, seed):
    random = np.random.default_rng(seed)
    unit = random.random((count, length)) ** 4 * random.choice([0, 1, 1], length)
    if dtype == "uint16":
        return torch.from_numpy((unit * 65535).round().astype(np.uint16))
    signed = unit * random.choice([-1, 1], (count, length))
    if dtype == "int16":
        return torch.from_numpy((signed * 32767).round().astype(np.int16))
    return torch.from_numpy(signed.astype(np.float32))


def some_weights(length, seed, *, signed):
    random = np.random.default_rng(seed)
    weights = random.random(length).astype(np.float32) ** 6 * 10.0 ** random.integers(-6, 3)
    weights[random.random(length) < 0.3] = 0
    weights[length // 3 : length // 2] = 0
    return weights * random.choice([-1, 1], length).astype(np.float32) if signed else weights


@pytest.mark.parametrize("multiply", [multiply_halves, truncated, backwards])
@settings(max_examples=30)
@given(
    st.sampled_from(["uint16", "int16", "float32"]),
    st.integers(1, 4000),
    st.booleans(),
    st.integers(0, 1 << 20),
)
def test_errors_keep_to_the_derived_bounds(multiply, dtype, length, signed, seed):
    rows, others = some_rows(5, length, dtype, seed), some_rows(3, length, dtype, seed + 1)
    weights = some_weights(length, seed, signed=signed)
    columns, centre = Columns.of(weights, dtype, CPU), centre_of(rows)
    true, absolute = exact(rows, others, weights, centre, STEPS[dtype])
    for fast, bound in ((False, BOUND), (True, FAST_BOUND)):
        found, norms, _ = products_of_halves(
            rows, others, columns, centre, 256, fast=fast, multiply=multiply
        )
        # The roots of the weights are float32 numbers: 2**-23 of each term
        allowed = (bound + 2**-22) * absolute + 1e-12 * absolute.max()
        assert ((found[:5, :3] - true).abs() <= allowed).all()
        squares, own = exact(rows, rows, weights, centre, STEPS[dtype])
        assert ((norms[:5] - squares.diagonal()).abs() <= 2**-21 * own.diagonal()).all()


def test_every_product_has_the_same_shape_whatever_is_asked(monkeypatch):
    shapes = set()

    def watched(a, b):
        shapes.add((*a.shape[:2], b.shape[2]))
        return multiply_halves(a, b)

    rows = some_rows(SIDE + 40, 3000, "uint16", 0)
    columns = Columns.of(some_weights(3000, 0, signed=False), "uint16", CPU)
    centre = centre_of(rows)
    whole, norms, _ = products_of_halves(rows, None, columns, centre, 256, multiply=watched)
    part, own, others = products_of_halves(
        rows[SIDE:], rows[:7], columns, centre, 16, multiply=watched
    )
    assert shapes == {(PANELS, SIDE, SIDE)}
    assert torch.allclose(part[:40, :7], whole[:7, SIDE : SIDE + 40].T, rtol=0, atol=1e-7)
    assert torch.equal(own[:40], norms[SIDE : SIDE + 40])
    assert torch.equal(others[:7], norms[:7])
    again = products_of_halves(rows[:SIDE], rows[SIDE:], columns, centre, 256, multiply=watched)
    assert torch.equal(again[0][:, :40], whole[:SIDE, SIDE : SIDE + 40])


def test_products_that_are_known_already_are_left_out():
    rows = some_rows(2 * SIDE, 500, "uint16", 0)
    columns = Columns.of(some_weights(500, 0, signed=False), "uint16", CPU)
    asked = []

    def counted(a, b):
        asked.append(a)
        return multiply_halves(a, b)

    spared = {(row, column) for row in (0, 1) for column in (2, 3)}
    for known, count in ((spared, 2), (set(list(spared)[:3]), 3), ((), 3)):
        asked.clear()
        products_of_halves(
            rows, None, columns, centre_of(rows), SIDE // 2, known, fast=True, multiply=counted
        )
        assert len(asked) == count


def test_a_head_of_zeros_gives_zeros():
    rows = some_rows(3, 100, "uint16", 0)
    columns = Columns.of(np.zeros(100, np.float32), "uint16", CPU)
    products, norms, _ = products_of_halves(
        rows, None, columns, centre_of(rows), 16, multiply=multiply_halves
    )
    assert not products.any()
    assert not norms.any()


@pytest.fixture
def halves(monkeypatch):
    """Put the kernel of tensor cores, emulated, in the CPU's place."""

    def put(multiply):
        kernel = Kernel(partial(products_of_halves, multiply=multiply), BOUND)
        monkeypatch.setattr(kernels, "kernel_of", lambda device: kernel)

    return put


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
@pytest.mark.parametrize("multiply", [multiply_halves, truncated])
def test_distances_are_the_cpus_to_rounding_near_pairs_to_the_bit(halves, dtype, multiply):
    rows = some_rows(60, 2000, dtype, 3)
    rows = torch.cat([rows, rows[:5], rows[:5]])
    words = rows.view(torch.int16) if dtype == "uint16" else rows
    words[65:, ::97] += 1 if dtype != "float32" else 1e-4
    columns = Columns.of(some_weights(2000, 3, signed=False), dtype, CPU)
    centre = centre_of(rows[:32])
    here = gram_distances(rows, None, columns, centre, 256)
    halves(multiply)
    there = gram_distances(rows, None, columns, centre, 256)
    near = here < 0.009
    assert near.sum() > len(rows)
    assert torch.equal(there[near], here[near])
    assert torch.equal(there, there.T)
    assert (there - here).abs().max() <= 2e-6 * here.mean()
    parts = [gram_distances(rows[:64], rows[64:], columns, centre, 16)]
    assert (parts[0] - here[:64, 64:]).abs().max() <= 2e-6 * here.mean()


def test_photographs_keep_to_the_accuracy_of_the_cpu(data, real_weights, halves):
    """SqueezeNet's rows of photographs and of near-duplicates, cut off as on tensor cores."""
    paths = sorted((data / "photos").rglob("*.JPEG"))[:12]
    images = [decode(path.read_bytes(), Preparation((32, 32))) for path in paths]
    images += [image ^ (np.arange(32)[:, None, None] % 2).astype(np.uint8) for image in images[:4]]
    trunk = load_backbone("squeeze")
    extractor = Extractor(trunk, (32, 32))
    pixels = torch.from_numpy(np.stack(images))
    stored = np.concatenate([extractor.rows(part) for part in pixels.split(extractor.batch)])
    rows = torch.from_numpy(stored)
    head = load_head(None, "squeeze", trunk.channels, trunk.version)
    weights = column_weights(head, extractor.layout)
    columns, centre = Columns.of(weights, "uint16", CPU), centre_of(rows)
    true = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for number, row in enumerate(rows):
        apart = (rows.double() - row.double()) / 65535
        true[number] = apart.square() @ torch.from_numpy(weights).double()
    halves(truncated)
    found = gram_distances(rows, None, columns, centre, 256)
    assert (found - true).abs().max() <= 1e-6 * true.mean()
    fast = gram_distances(rows, None, columns, centre, 256, fast=True)
    assert (fast - true).abs().max() <= 1e-3 * true.mean()


def test_the_cpu_keeps_its_own_kernel():
    assert kernels.kernel_of(CPU) is FLOAT32


def test_memory_of_products_is_bounded_and_grows_with_the_rows():
    assert bytes_of_products(1, 1) == bytes_of_products(SIDE, SIDE)
    assert bytes_of_products(4096, 4096) > bytes_of_products(2048, 2048)
    assert bytes_of_products(4096, 4096) < 2**30


def test_halves_are_multiplied_under_the_guards(monkeypatch):
    switches = torch.backends.cuda.matmul
    names = "allow_fp16_reduced_precision_reduction", "allow_fp16_accumulation"
    before = [getattr(switches, name) for name in names]
    seen = []

    def watched(a, b):
        seen.append([getattr(switches, name) for name in names])
        assert not torch.is_autocast_enabled("cpu")
        return multiply_halves(a, b)

    rows = some_rows(3, 100, "uint16", 0)
    columns = Columns.of(some_weights(100, 0, signed=False), "uint16", CPU)
    try:
        for name in names:
            setattr(switches, name, True)
        with torch.autocast("cpu", torch.bfloat16):
            products_of_halves(rows, None, columns, centre_of(rows), 16, multiply=watched)
        assert [getattr(switches, name) for name in names] == [True, True]
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(switches, name, value)
    assert seen
    assert not any(map(any, seen))


@pytest.mark.gpu
def test_tensor_cores_keep_to_the_bounds():
    rows = some_rows(600, 30_000, "uint16", 0)
    weights = some_weights(30_000, 0, signed=False)
    columns, centre = Columns.of(weights, "uint16", torch.device("cuda")), centre_of(rows)
    true, absolute = exact(rows, rows, weights, centre, 65535)
    for fast, bound in ((False, BOUND), (True, FAST_BOUND)):
        found, _, _ = products_of_halves(
            rows.cuda(), rows.cuda(), columns, centre.cuda(), 256, fast=fast
        )
        assert ((found[:600, :600].cpu() - true).abs() <= (bound + 2**-22) * absolute).all()
