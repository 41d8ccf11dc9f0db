"""From decoded images to stored rows on a device: the CPU's rows, few copies, no lost work."""

import os
import signal
import subprocess
import sys
import threading
import weakref
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lpipstore
from lpipstore.cache.errors import LpipstoreError, StoreError, StoreFull
from lpipstore.cache.store import FeatureStore
from lpipstore.pipeline.backbones.load import load_backbone
from lpipstore.pipeline.common.device import installed
from lpipstore.pipeline.common.tasks import threads
from lpipstore.pipeline.features.extractor import Extractor, _batch_of
from lpipstore.pipeline.features.features import Features
from lpipstore.pipeline.features.flow import decoded_at_once, joined
from lpipstore.pipeline.features.pooled import PooledRows
from lpipstore.pipeline.features.rows import RowWriter, write_on_device
from lpipstore.pipeline.images.loader import Decoded, decode_arrays

from ...emulated import Emulated

SIDE, COUNT, BATCH = 32, 28, 8
BATCHES = [8, 8, 8, 4]
BACKBONE = load_backbone("alex", weights="random")
PIXELS = torch.from_numpy(
    np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8)
)
BY_CONTENT = {bytes([number]) * 16: image for number, image in enumerate(PIXELS)}
CONTENTS = list(BY_CONTENT)


def decode(contents, batch):
    return decode_arrays(BY_CONTENT, contents, batch)


@pytest.fixture(autouse=True, scope="module")
def alone():
    """Run on one thread: several would wait for one another in so small a trunk."""
    with threads(1):
        yield


class Scarce(Emulated):
    """Finds no memory in the downloads `fails_down`, and in uploads of more than `room` bytes.

    Knows whether something that was sent is still there when it is to give memory back.
    """

    def __init__(self, *, fails_down=(), room=None, **options):
        super().__init__(**options)
        self.no_room_down, self.room, self.sent = set(fails_down), room, []

    def upload(self, array):
        if self.room is not None and array.nbytes > self.room:
            raise torch.OutOfMemoryError("emulated: out of memory")
        tensor = super().upload(array)
        self.sent.append(weakref.ref(tensor))
        return tensor

    def download(self, tensor):
        ready = super().download(tensor)
        if len(self.downloads) - 1 in self.no_room_down:
            raise torch.OutOfMemoryError("emulated: out of memory")
        return ready

    def forget(self):
        super().forget()
        assert not [tensor for tensor in self.sent if tensor() is not None]


@pytest.fixture
def make(tmp_path):
    """A function that makes features whose device is another."""
    stores = []

    def made(device, *, decode=decode, **options):
        store = FeatureStore(tmp_path / f"store{len(stores)}")
        stores.append(store)
        with installed(device):
            extractor = Extractor(BACKBONE, (SIDE, SIDE), **{"batch": BATCH, **options})
        assert extractor.on_device is not None
        return Features(extractor, store, decode)

    yield made
    for store in stores:
        store.close()


def rows_of_cpu(**options):
    extractor = Extractor(BACKBONE, (SIDE, SIDE), **{"batch": BATCH, **options})
    assert extractor.on_device is None
    return np.concatenate([extractor.rows(part) for part in PIXELS.split(extractor.batch)])


@pytest.fixture(scope="module")
def expected():
    return rows_of_cpu()


def stored(features, contents=CONTENTS):
    """Return the rows that the store has of these images; all have to be there."""
    out = np.empty((len(contents), features.extractor.spec.length), features.extractor.spec.dtype)
    assert features.store.get_many([features.key(content) for content in contents], out).all()
    return out


def committed(features):
    return len(CONTENTS) - len(features.store.missing([features.key(c) for c in CONTENTS]))


# ---- the same rows, with one copy each way


@pytest.mark.parametrize(
    "options", [{}, {"row_dtype": "float32"}, {"trunk_dtype": "bfloat16"}], ids=str
)
def test_rows_are_those_of_the_cpu_with_one_copy_each_way_for_each_batch(make, options):
    device = Emulated()
    features = make(device, **options)
    assert features.ensure(CONTENTS) == 0
    assert np.array_equal(stored(features), rows_of_cpu(**options))
    assert features.forwards == COUNT
    row, number = features.extractor.spec.row_bytes, 4 if "row_dtype" in options else 2
    assert device.uploads == [count * SIDE * SIDE * 3 for count in BATCHES]
    assert device.downloads == [count * row + number for count in BATCHES]
    assert features.ensure(CONTENTS) == COUNT
    assert len(device.uploads) == len(BATCHES)


def test_a_row_does_not_depend_on_its_company(make, expected):
    features = make(Emulated())
    assert np.array_equal(features.rows(CONTENTS[3:4]), expected[3:4])
    assert np.array_equal(features.extractor.rows(PIXELS[5:8]), expected[5:8])
    room = np.zeros((COUNT + 1, expected.shape[1]), np.uint16)
    assert np.shares_memory(features.extractor.rows(PIXELS, room), room)  # more than a batch
    assert np.array_equal(room[:-1], expected)
    assert not room[-1].any()


@settings(max_examples=40)
@given(
    shape=st.tuples(*(st.integers(1, most) for most in (5, 70, 9, 9))),
    dtype=st.sampled_from(["uint16", "int16", "float32"]),
    precision=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    seed=st.integers(0, 99),
)
def test_a_device_writes_the_same_bits_for_the_same_tap(shape, dtype, precision, seed):
    tap = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(precision)
    tap = tap.abs() if dtype == "uint16" else tap
    tap[0, :, 0, 0] = 0
    tap = tap.to(memory_format=torch.channels_last)
    kind = torch.float32 if dtype == "float32" else torch.int16
    ours, theirs = (torch.full((shape[0], tap[0].numel() + 2), 7, dtype=kind) for _ in range(2))
    norms = write_on_device(tap, ours[:, 1:-1], dtype)
    assert torch.equal(norms, RowWriter(dtype).write(tap, theirs[:, 1:-1]))
    assert torch.equal(ours, theirs)


def test_a_whole_job_with_a_device_has_the_same_bytes(pictures, tmp_path, files_of):
    options = {"backbone": "alex", "weights": "random", "workers": 2, "device": "cpu"}
    lpipstore.pairs(pictures, out=tmp_path / "cpu", store=tmp_path / "store", **options)
    device = Emulated()
    with installed(device):
        run = lpipstore.pairs(
            pictures, out=tmp_path / "device", store=tmp_path / "other", **options
        )
    assert run.summary["forwards"] == 8
    assert device.downloads
    assert files_of(tmp_path / "cpu") == files_of(tmp_path / "device")


def test_pooled_rows_are_the_same(make, expected, tmp_path):
    with FeatureStore(tmp_path / "store") as store:
        here = PooledRows(Features(Extractor(BACKBONE, (SIDE, SIDE)), store, decode), (1, 2))
        there = PooledRows(make(Emulated()), (1, 2))
        for pooled in (here, there):
            assert pooled.ensure(CONTENTS) == 0
        assert there.features.forwards == COUNT
        for grid in (1, 2):
            assert np.array_equal(here.read(grid, CONTENTS), there.read(grid, CONTENTS))


# ---- batches


def test_decoded_images_are_joined_to_batches():
    def part(first, count, dtype):
        indices = list(range(first, first + count))
        return Decoded(indices, torch.tensor(indices, dtype=dtype).view(-1, 1, 1, 1), {})

    byte, real = torch.uint8, torch.float32
    parts = [(0, 3, byte), (3, 3, byte), (6, 2, byte), (8, 1, byte), (9, 2, real), (11, 7, byte)]
    batches = list(joined((part(*one) for one in parts), 8))
    assert [batch.indices for batch in batches] == [[*range(8)], [8], [9, 10], [*range(11, 18)]]
    for batch in batches:
        assert batch.pixels.flatten().tolist() == batch.indices
    one = part(0, 8, byte)
    assert next(joined([one], 8)) is one  # not copied


@pytest.mark.parametrize("batch", [1, 3, 32, 33, 64, 100, 138, 512])
def test_batches_of_a_device_are_made_of_short_decoded_ones_with_little_left_over(batch):
    with installed(Emulated()):
        short = decoded_at_once(Extractor(BACKBONE, (SIDE, SIDE), batch=batch))
    assert 1 <= short <= 32
    assert batch - batch // short * short <= batch // 20
    assert decoded_at_once(Extractor(BACKBONE, (SIDE, SIDE), batch=batch)) == batch


def test_batches_follow_from_the_length_of_a_row_and_not_from_free_memory():
    for length in (1, 31_872, 524_288, 600_000, 1_670_000, 6_100_000, 50_000_000):
        assert _batch_of("cpu", length) == max(4, min(32, (64 << 20) // (4 * length)))
        assert 4 <= _batch_of("cuda", length) <= 512
        assert _batch_of("cuda", length) % 32 == 0 or 4 * 32 * length > 256 << 20
    batches = set()
    for memory in (1, 1 << 40):
        with installed(Emulated(memory=memory)):
            batches.add(Extractor(BACKBONE, (SIDE, SIDE)).batch)
    assert batches == {32}


# ---- copying, computing and storing overlap, within bounds


def test_two_more_batches_are_begun_while_one_is_stored_and_no_others(make, expected, monkeypatch):
    begun = [threading.Event() for _ in range(COUNT // 4)]

    class Seen(Emulated):
        def upload(self, array):
            begun[len(self.uploads)].set()
            return super().upload(array)

    features = make(Seen(), batch=4)
    put_many, calls = features.store.put_many, iter(range(100))

    def put(*args):
        assert threading.current_thread() is not threading.main_thread()
        if next(calls) == 1:
            assert begun[3].wait(60)
            assert not begun[4].wait(0.5)
        return put_many(*args)

    monkeypatch.setattr(features.store, "put_many", put)
    features.ensure(CONTENTS)
    assert all(event.is_set() for event in begun)
    assert np.abs(stored(features).astype(int) - expected).max() <= 1


def test_the_next_batch_is_begun_before_the_rows_of_the_last_are_there(make, expected):
    class Slow(Emulated):
        begun = threading.Event()

        def upload(self, array):
            if len(self.uploads) == 1:
                self.begun.set()
            return super().upload(array)

        def download(self, tensor):
            ready = super().download(tensor)

            def wait():
                assert self.begun.wait(60)
                return ready()

            return wait

    features = make(Slow())
    features.ensure(CONTENTS)
    assert np.array_equal(stored(features), expected)


def test_seconds_tell_what_was_waited_for(make, monkeypatch):
    """The thread that stores is not counted; waiting for it is."""
    features = make(Emulated())
    features.ensure(CONTENTS)
    seconds = features.clock.seconds
    assert {"decode", "load", "copy", "forward", "write"} <= seconds.keys()
    names = ("decode", "load", "copy", "forward", "write", "read")
    assert sum(seconds[name] for name in names) <= features.clock.total()


# ---- out of memory


def fail_forward(extractor, calls):
    """Let the trunk find no memory in these calls, counted from 0; return what takes that back."""
    seen = iter(range(10_000))

    def hook(layer, args):
        if next(seen) in calls:
            raise torch.OutOfMemoryError("emulated: out of memory")

    return extractor.backbone.trunk.features[3].register_forward_pre_hook(hook)


@pytest.mark.parametrize("number", [0, 2, 3])
@pytest.mark.parametrize("step", ["upload", "forward", "download"])
def test_a_batch_that_finds_no_memory_once_is_computed_again_as_it_was(
    make, expected, step, number
):
    device = Scarce(
        fails={number} if step == "upload" else set(),
        fails_down={number} if step == "download" else (),
    )
    features = make(device)
    if step == "forward":
        fail_forward(features.extractor, {number})
    features.ensure(CONTENTS)
    assert np.array_equal(stored(features), expected)
    assert features.forwards == COUNT
    assert features.extractor.on_device.at_once == BATCH
    assert device.forgotten == 1


@pytest.mark.parametrize("step", ["upload", "forward", "download"])
def test_batches_are_halved_while_there_is_no_memory(make, expected, step):
    fails = {1, 2, 3, 4}  # in the pipeline, alone, after memory was given back, and of 4 images
    device = Scarce(
        fails=fails if step == "upload" else set(), fails_down=fails if step == "download" else ()
    )
    features = make(device)
    if step == "forward":
        fail_forward(features.extractor, fails)
    features.ensure(CONTENTS)
    assert features.extractor.on_device.at_once == 2
    assert features.extractor.batch == BATCH
    assert features.forwards == COUNT
    assert device.forgotten == 4
    smaller = rows_of_cpu(batch=2)
    got = stored(features)
    assert np.array_equal(got[:8], expected[:8])
    assert np.array_equal(got[8:], smaller[8:])
    assert np.abs(got.astype(int) - expected).max() <= 1


def test_rows_fit_into_what_there_is_and_too_little_is_one_message(make, expected):
    image = SIDE * SIDE * 3
    features = make(Scarce(room=3 * image))
    features.ensure(CONTENTS)
    assert features.extractor.on_device.at_once == 2
    assert np.array_equal(stored(features), rows_of_cpu(batch=2))
    device = Scarce(room=image - 1)
    features = make(device)
    message = "not enough memory for 1 image of 32×32 pixels through alex: choose a smaller"
    with pytest.raises(LpipstoreError, match=message):
        features.ensure(CONTENTS)
    assert not device.downloads
    device.room = None  # others have left the GPU
    features.ensure(CONTENTS)
    assert np.array_equal(stored(features), rows_of_cpu(batch=1))


@pytest.mark.parametrize(
    "text", ["CUDA error: out of memory", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"]
)
def test_libraries_have_errors_of_their_own_for_no_memory(make, expected, monkeypatch, text):
    device = Emulated()
    upload, failed = device.upload, []

    def fail(array):
        if not failed:
            failed.append(1)
            raise RuntimeError(text)
        return upload(array)

    monkeypatch.setattr(device, "upload", fail)
    features = make(device)
    features.ensure(CONTENTS)
    assert failed
    assert np.array_equal(stored(features), expected)


def test_other_errors_of_a_device_are_not_taken_for_no_memory(make, monkeypatch):
    device = Emulated()
    features = make(device)

    def fail(tensor):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(device, "download", fail)
    with pytest.raises(RuntimeError, match="illegal"):
        features.ensure(CONTENTS)
    assert device.forgotten == 0


# ---- errors lose nothing


def test_what_is_not_finite_is_refused_when_it_arrives(tmp_path):
    weights = BACKBONE.trunk.state_dict()
    last = list(weights)[-1]
    broken = {**weights, last: torch.full_like(weights[last], torch.nan)}
    with installed(Emulated()), FeatureStore(tmp_path / "store") as store:
        extractor = Extractor(load_backbone("alex", weights=broken), (SIDE, SIDE), batch=BATCH)
        features = Features(extractor, store, decode)
        with pytest.raises(LpipstoreError, match="alex produced values that are not finite"):
            features.ensure(CONTENTS)
        with pytest.raises(LpipstoreError, match="not finite"):
            extractor.rows(PIXELS[:2])
        assert committed(features) == 0


@pytest.mark.parametrize("number", [0, 1, 3])
def test_an_error_of_the_store_surfaces_and_the_same_call_goes_on(
    make, expected, monkeypatch, number
):
    features = make(Emulated())
    put_many, calls = features.store.put_many, iter(range(100))

    def fail(*args):
        if next(calls) == number:
            raise StoreError("emulated: the disk is broken")
        return put_many(*args)

    monkeypatch.setattr(features.store, "put_many", fail)
    with pytest.raises(StoreError, match="the disk is broken"):
        features.ensure(CONTENTS)
    kept = committed(features)
    assert sum(BATCHES[:number]) <= kept <= COUNT - BATCHES[number]
    assert features.ensure(CONTENTS) == kept
    assert np.array_equal(stored(features), expected)


def test_a_full_disk_ends_storing_and_not_the_run(make, expected, monkeypatch):
    features = make(Emulated())
    put_many, calls = features.store.put_many, iter(range(100))

    def fail(*args):
        if next(calls) == 2:
            raise StoreFull("emulated: no space left")
        return put_many(*args)

    monkeypatch.setattr(features.store, "put_many", fail)
    features.ensure(CONTENTS)
    assert features.full == "emulated: no space left"
    assert committed(features) == sum(BATCHES[:2])
    assert np.array_equal(features.rows(CONTENTS), expected)  # computed again


def test_an_interrupt_leaves_what_is_committed(make, expected):
    def report(stage, done, total):
        reached.append(done)
        if done >= 16:
            raise KeyboardInterrupt

    features, reached, left = make(Emulated()), [], []
    features.report = report
    try:
        features.ensure(CONTENTS)
    except KeyboardInterrupt:  # before what follows closes the store
        left = [thread.name for thread in threading.enumerate()]
    assert left
    assert not [name for name in left if name.startswith("lpipstore-store")]
    kept = committed(features)
    assert reached[-1] <= kept <= reached[-1] + 3 * BATCH
    features.report = lambda *_: None
    assert features.ensure(CONTENTS) == kept
    assert features.forwards == COUNT
    assert np.array_equal(stored(features), expected)


ROOT = str(Path(__file__).resolve().parents[3])  # in which the tests are, installed or not
ENDLESS = """
import sys
sys.path[:0] = {path!r}
from tests.pipeline.features import test_flow as flow
with flow.installed(flow.Emulated()), flow.FeatureStore({store!r}) as store:
    extractor = flow.Extractor(flow.BACKBONE, (flow.SIDE, flow.SIDE), batch=flow.BATCH)
    def decode(contents, batch):
        for decoded in flow.decode(contents, batch):
            yield decoded
        print("waiting", flush=True)
        sys.stdin.read()
    def report(stage, done, total):
        print(done, flush=True)
    features = flow.Features(extractor, store, decode, report=report)
    features.ensure(flow.CONTENTS)
"""


def test_a_process_that_gets_a_signal_leaves_what_is_committed(make, tmp_path, expected):
    """It waits for an image that never comes: what was begun is stored nevertheless."""
    path = str(tmp_path / "store0")
    child = subprocess.Popen(
        [sys.executable, "-c", ENDLESS.format(path=[ROOT, *sys.path], store=path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    reached = []
    for line in child.stdout:
        if line == "waiting\n":
            break
        reached.append(int(line))
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert child.returncode != 0
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert all(a <= b for a, b in pairwise(reached))
    features = make(Emulated())
    contents = CONTENTS[: sum(BATCHES[:-1])]  # the others wait for a full batch
    assert committed(features) == len(contents)
    difference = stored(features, contents).astype(int) - expected[: len(contents)]
    assert np.abs(difference).max() <= 1  # on one thread
