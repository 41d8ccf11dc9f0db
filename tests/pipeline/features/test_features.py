"""From pixels to rows: quantisation, batches that do not matter, and rows that got lost."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from lpipstore.cache.errors import LpipstoreError, UsageError
from lpipstore.cache.store import FeatureStore
from lpipstore.pipeline.backbones.load import load_backbone
from lpipstore.pipeline.features.extractor import Extractor, choose_device
from lpipstore.pipeline.features.features import Features
from lpipstore.pipeline.features.normalise import unit_normalise
from lpipstore.pipeline.features.rows import STEPS, RowWriter
from lpipstore.pipeline.images.loader import Decoded, decode_arrays


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("squeeze", weights="random")


@pytest.fixture(scope="module")
def pixels():
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (40, 32, 32, 3), generator=random, dtype=torch.uint8)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
@pytest.mark.parametrize("shape", [(3, 64, 40, 33), (1, 512, 3, 3), (5, 7, 1, 1), (2, 96, 55, 1)])
def test_a_tap_is_written_normalised_and_rounded_to_the_nearest_step(dtype, shape, layout):
    random = torch.Generator().manual_seed(0)
    tap = torch.randn(shape, generator=random) * 10
    tap = tap.abs() if dtype == "uint16" else tap
    tap[0, :, 0, 0] = 0  # a position without any activation
    tap[-1, 1:, -1, -1], tap[-1, 0, -1, -1] = 0, 1e-3  # and one with a single one
    expected = unit_normalise(tap.double()).flatten(1)
    bits = torch.float32 if dtype == "float32" else torch.int16
    rows = torch.full((shape[0], 2 + expected.shape[1]), 7, dtype=bits)
    RowWriter(dtype).write(tap.to(memory_format=layout), rows[:, 1:-1])
    assert rows[:, 0].eq(7).all()
    assert rows[:, -1].eq(7).all()
    got = rows[:, 1:-1].numpy().view(dtype).astype(np.float64) / STEPS[dtype]
    error = np.abs(got - expected.numpy()).max()
    assert error <= (0 if dtype == "float32" else 0.5 / STEPS[dtype]) + 2e-7
    assert np.all(got.reshape(shape)[0, :, 0, 0] == 0)


def test_sums_of_norms_tell_what_is_not_finite():
    writer = RowWriter("uint16")
    tap = torch.rand(3, 8, 4, 4)
    tap[1, 2, 3, 3] = torch.nan
    tap[2, 0, 0, 0] = torch.inf
    sums = writer.write(tap, torch.empty(3, 128, dtype=torch.int16))
    assert torch.isfinite(sums).tolist() == [True, False, False]


def test_rows_go_where_they_are_wanted(backbone, pixels):
    extractor = Extractor(backbone, (32, 32))
    expected = extractor.rows(pixels[:5])
    room = np.zeros((7, extractor.layout.length), np.uint16)
    assert np.shares_memory(extractor.rows(pixels[:5], room), room)
    assert np.array_equal(room[:5], expected)
    assert not room[5:].any()


def test_rows_are_the_unit_normalised_taps(backbone, pixels):
    extractor = Extractor(backbone, (32, 32), row_dtype="float32")
    images = pixels[:5].permute(0, 3, 1, 2).float() / 127.5 - 1
    taps = [unit_normalise(tap).flatten(1) for tap in backbone.taps_of(images)]
    rows = extractor.rows(pixels[:5])
    assert rows.shape == (5, extractor.layout.length)
    assert np.allclose(rows, torch.cat(taps, 1).numpy(), atol=1e-6)


def test_company_in_a_batch_does_not_change_a_bit(backbone, pixels):
    extractor = Extractor(backbone, (32, 32), row_dtype="float32", batch=32)
    together = np.concatenate([extractor.rows(part) for part in pixels.split(extractor.batch)])
    assert np.array_equal(extractor.rows(pixels[3:4])[0], together[3])
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(1))
    shuffled = np.concatenate([extractor.rows(p) for p in pixels[order].split(extractor.batch)])
    assert np.array_equal(shuffled, together[order.numpy()])


def test_the_number_of_threads_changes_a_row_by_a_step_at_most(backbone, pixels):
    """On every machine tried so far it changes nothing at all."""
    extractor = Extractor(backbone, (32, 32))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = extractor.rows(pixels[:9]).astype(int)
        torch.set_num_threads(3)
        together = extractor.rows(pixels[:9]).astype(int)
    finally:
        torch.set_num_threads(before)
    assert np.abs(alone - together).max() <= 1


@pytest.mark.parametrize("batch", [2, 5, 16])
def test_the_size_of_batches_changes_a_row_by_a_step_at_most(backbone, pixels, batch):
    usual, other = (Extractor(backbone, (32, 32), batch=b) for b in (None, batch))
    expected = usual.rows(pixels[:5]).astype(int)
    got = np.concatenate([other.rows(p) for p in pixels[:5].split(batch)]).astype(int)
    assert np.abs(got - expected).max() <= 1


@pytest.mark.parametrize("trunk_dtype", ["bfloat16"])
def test_a_trunk_in_half_precision_gives_unit_rows_of_its_own_kind(backbone, pixels, trunk_dtype):
    full = Extractor(backbone, (32, 32), row_dtype="float32")
    half = Extractor(backbone, (32, 32), row_dtype="float32", trunk_dtype=trunk_dtype)
    assert half.spec.digest != full.spec.digest
    a, b = full.rows(pixels[:4]), half.rows(pixels[:4])
    assert 0 < np.abs(a - b).max() < 0.1
    first = half.layout.slices[0]
    tap = b[:, first].reshape(4, *half.layout.taps[0])
    norms = np.sqrt(np.square(tap.astype(np.float64)).sum(1))
    assert np.allclose(norms[norms > 0], 1, atol=1e-5)  # normalised in float32


def test_what_is_not_finite_is_refused(pixels):
    weights = load_backbone("squeeze", weights="random").trunk.state_dict()
    first = next(iter(weights))
    broken = {**weights, first: torch.full_like(weights[first], torch.nan)}
    extractor = Extractor(load_backbone("squeeze", weights=broken), (32, 32))
    with pytest.raises(LpipstoreError, match="not finite"):
        extractor.rows(pixels[:2])


def test_the_key_holds_everything_that_makes_a_row(backbone):
    def key(size=(32, 32), backbone=backbone, **options):
        return Extractor(backbone, size, **options).spec.key(b"content")

    other_weights = {k: v + 1 for k, v in backbone.trunk.state_dict().items()}
    keys = {
        key(),
        key((32, 40)),
        key((40, 32)),
        key(row_dtype="float32"),
        key(trunk_dtype="bfloat16"),
        key(backbone=load_backbone("squeeze", weights="random", version="0.0")),
        key(backbone=load_backbone("squeeze", weights=other_weights)),
        Extractor(backbone, (32, 32)).spec.key(b"other content"),
    }
    assert len(keys) == 8
    assert key() == key(batch=3)


@pytest.mark.parametrize("choice", ["tpu", "cuda:99", "gpu", "meta", ""])
def test_devices_that_are_not_there(choice):
    with pytest.raises(UsageError, match="device"):
        choose_device(choice)


# ---- features: the store and what is computed


class Images:
    """Pixels by content hash, counting how often each one is decoded."""

    def __init__(self, pixels: torch.Tensor) -> None:
        self.pixels = {bytes([n]) * 16: image for n, image in enumerate(pixels)}
        self.contents = list(self.pixels)
        self.decoded: list[bytes] = []
        self.broken: set[bytes] = set()

    def decode(self, contents, batch) -> Iterator[Decoded]:
        self.decoded += contents
        for decoded in decode_arrays(self.pixels, contents, batch):
            good = [k for k, i in enumerate(decoded.indices) if contents[i] not in self.broken]
            failures = {i: "broken" for i in decoded.indices if contents[i] in self.broken}
            indices = [decoded.indices[k] for k in good]
            yield Decoded(indices, decoded.pixels[good], failures)


@pytest.fixture
def images(pixels):
    return Images(pixels)


@pytest.fixture
def features(backbone, images, tmp_path):
    with FeatureStore(tmp_path / "store") as store:
        yield Features(Extractor(backbone, (32, 32)), store, images.decode)


def read(features, contents):
    rows = np.zeros((len(contents), features.extractor.layout.length), np.uint16)
    features.read(contents, rows)
    return rows


def test_each_image_goes_through_the_trunk_once(features, images, pixels):
    twice = images.contents + images.contents[:7]
    assert features.ensure(twice) == 0
    assert features.forwards == 40
    assert features.ensure(twice) == 40
    assert features.forwards == 40
    expected = np.concatenate([features.extractor.rows(part) for part in pixels.split(32)])
    assert np.array_equal(read(features, twice), np.concatenate([expected, expected[:7]]))
    assert len(images.decoded) == 40


def test_rows_that_the_store_lost_are_computed_again(features, images):
    features.ensure(images.contents[:10])
    expected = read(features, images.contents[:20])
    assert features.forwards == 20
    assert np.array_equal(read(features, images.contents[:20]), expected)
    assert features.forwards == 20


def test_failures_are_listed_and_the_rest_goes_on(features, images):
    bad = images.contents[4]
    images.broken.add(bad)
    features.ensure(images.contents)
    assert features.failures == {bad: "broken"}
    assert features.forwards == 39
    with pytest.raises(LpipstoreError, match="cannot be decoded again: broken"):
        read(features, [bad])


def test_failures_of_an_earlier_call_are_not_counted_again(backbone, images, tmp_path, monkeypatch):
    images.broken.update([images.contents[0], images.contents[8]])
    reached = []
    with FeatureStore(tmp_path / "store") as store:
        features = Features(
            Extractor(backbone, (32, 32), batch=4),
            store,
            images.decode,
            report=lambda stage, done, total: reached.append((done, total)),
        )
        features.ensure(images.contents[:4])
        assert list(features.failures) == [images.contents[0]]
        monkeypatch.setattr(store, "put_many", lambda *_: 0)  # the limit is reached
        del reached[:]
        features.ensure(images.contents[4:16])
        assert list(features.failures) == [images.contents[0], images.contents[8]]
        assert reached[0] == (0, 12) and reached[-1] == (12, 12)
        images.broken.remove(images.contents[0])  # such as a folder that is mounted again
        features.ensure(images.contents[:1])
        assert list(features.failures) == [images.contents[8]]


def test_seconds_of_a_row_are_known_once_enough_were_seen(features, images):
    features.ensure(images.contents[:10])
    read(features, images.contents[:10])
    assert features.row_seconds() == (None, None)
    features.ensure(images.contents)
    read(features, images.contents)
    features.clock.seconds |= {"read": 5.0, "decode": 1.0, "forward": 3.0}
    assert features.row_seconds() == (5.0 / 50, 4.0 / 40)
