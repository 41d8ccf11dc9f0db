"""The training loop: steps that add up, splits, projection, early stops, checkpoints."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lpipstore.cache.errors import LpipstoreError
from lpipstore.pipeline.distances.heads import make_head
from lpipstore.pipeline.distances.threads import one_thread
from lpipstore.pipeline.features.normalise import unit_normalise
from lpipstore.pipeline.training.checkpoint import draw_curve, load_checkpoint, save_whole
from lpipstore.pipeline.training.data import KnownStatistics
from lpipstore.pipeline.training.distributed import Processes
from lpipstore.pipeline.training.models import (
    HeadModel,
    LinearHead,
    LogisticJudge,
    RankingNetwork,
    TripletStatistics,
    make_judge,
)
from lpipstore.pipeline.training.sampler import hold_out, seen_before, share, steps
from lpipstore.pipeline.training.trainer import (
    Hyperparameters,
    Split,
    Training,
    figures_on,
    nothing_learned,
    rate_of,
    run_epoch,
    teach,
)

ALONE = Processes()
RECIPE = Hyperparameters(
    epochs=3,
    batch=12,
    at_once=12,
    learning_rate=0.05,
    betas=(0.9, 0.999),
    schedule="cosine",
    patience=10,
    clip=None,
    seed=0,
)


@pytest.fixture(autouse=True)
def on_one_thread():
    """Tensors of a few numbers are not worth sharing among threads."""
    with one_thread():
        yield


class Images:
    """TrainingData of random images that are in memory."""

    def __init__(self, count: int, side: int = 12) -> None:
        random = torch.Generator().manual_seed(0)
        self.images = torch.rand(count, 3, 3, side, side, generator=random, dtype=torch.float64)
        self.judge = torch.rand(count, generator=random, dtype=torch.float64)

    def batches(self, which, seed):
        for numbers in which:
            yield (self.images[numbers] * 2 - 1,), self.judge[numbers]

    @torch.no_grad()
    def distances(self, model, which):
        return model.distances((self.images[which] * 2 - 1,))


class Trunk(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.first = torch.nn.Conv2d(3, 5, 3)
            self.second = torch.nn.Conv2d(5, 7, 3, stride=2)

    def forward(self, images):
        first = self.first(images).relu()
        return first, self.second(first).relu()


def known(count: int = 50, channels: int = 6) -> KnownStatistics:
    """Judgements of people who see channels 1 and 4 only."""
    random = torch.Generator().manual_seed(0)
    statistics = torch.rand(80, channels, generator=random, dtype=torch.float64)
    pairs = torch.randint(0, 80, (count, 2), generator=random)
    seen = statistics[:, 1] * 3 + statistics[:, 4]
    judge = torch.sigmoid(6 * (seen[pairs[:, 0]] - seen[pairs[:, 1]]))
    return KnownStatistics(statistics, pairs, judge)


def head_of(channels, start=0.5) -> LinearHead:
    return LinearHead(make_head([np.full(c, start, np.float32) for c in channels], "start"))


def course_of(data, held: int = 10) -> Split:
    count = len(data.judge)
    learn, weights = np.arange(count - held), np.random.default_rng(0).integers(1, 5, count) * 1.0
    return Split(data, learn, np.arange(count - held, count), learn, weights)


def through_network(at_once: int, *, loss="bce", processes=ALONE):
    """Weights and history after three epochs of 31 judgements in steps of 12, the last of 7."""
    trunk = TripletStatistics(Trunk(), scaled=True, tune=True)
    model = HeadModel(head_of((5, 7)), make_judge(loss, 0.5, 0), trunk).double()
    training = Training(model, replace(RECIPE, at_once=at_once, clip=0.5))
    teach(training, course_of(Images(41)), processes, lambda: None)
    return model.state_dict(), training.history


@pytest.mark.parametrize("at_once", [1, 4, 5, 100])
@pytest.mark.parametrize("loss", ["bce", "rank"])
def test_small_batches_add_up_to_one_step(at_once, loss):
    (whole, _), (parts, _) = (through_network(n, loss=loss) for n in (12, at_once))
    assert whole["trunk.trunk.first.weight"].dtype == torch.float64
    for name, tensor in whole.items():
        assert (tensor - parts[name]).abs().max() < 1e-10, name
    start = Trunk().double().state_dict()
    assert not torch.equal(whole["trunk.trunk.first.weight"], start["first.weight"])


def test_the_gradient_of_a_step_is_that_of_the_mean_weighted_by_votes():
    data = known()
    split = course_of(data)
    model = HeadModel(head_of((6,)), LogisticJudge(0.5)).double()
    recipe = replace(RECIPE, epochs=1, batch=100, at_once=7, learning_rate=1e-3, betas=(0.0, 0.0))
    training = Training(model, recipe)
    seen = []
    training.optimiser.register_step_pre_hook(
        lambda *_: seen.append(model.head.weights.grad.clone())
    )
    expected = HeadModel(head_of((6,)), LogisticJudge(0.5)).double()
    d0, d1 = ((data.statistics[p] @ expected.head.weights) for p in data.pairs[:40].T)
    weight = torch.from_numpy(split.weights[:40])
    expected.loss(d0, d1, data.judge[:40], weight / weight.sum()).backward()
    teach(training, split, ALONE, lambda: None)
    assert torch.allclose(seen[0], expected.head.weights.grad, atol=1e-12)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [1, 7, 12])
def test_processes_share_a_step_so_that_each_judgement_counts_once(world, count):
    step = np.arange(100, 100 + count)
    shares = [share(step, rank, world, 2) for rank in range(world)]
    assert len({len(part.batches) for part in shares}) == 1  # all meet after as many
    assert all(1 <= len(numbers) <= 2 for part in shares for numbers in part.batches)
    seen = [
        number
        for part in shares
        for numbers, counts in zip(part.batches, part.counts, strict=True)
        for number, counted in zip(numbers.tolist(), counts, strict=True)
        if counted
    ]
    assert sorted(seen) == step.tolist()


@pytest.mark.parametrize("count", [50, 49, 20])
def test_one_process_and_several_cut_a_step_in_the_same_places(count):
    """Sums of float32 then differ in the order of a few terms, and Adam has little to enlarge."""
    step = np.arange(count)
    alone = share(step, 0, 1, 13).batches
    for world in (1, 2, 4) if count > 26 else (1, 2):
        shares = [share(step, rank, world, 13) for rank in range(world)]
        together = [numbers.tolist() for part in shares for numbers in part.batches]
        assert together == [numbers.tolist() for numbers in alone]


_TOGETHER = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from test_trainer import through_network
from lpipstore.pipeline.training.distributed import joined
with joined(torch.device("cpu")) as processes:
    state, history = through_network(3, processes=processes)
    if processes.first:
        torch.save({"state": state, "history": history}, sys.argv[2])
"""


def test_two_processes_train_as_one_does(tmp_path):
    script, result = tmp_path / "together.py", tmp_path / "together.pt"
    script.write_text(_TOGETHER)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    command = [sys.executable, *launcher, str(script), str(Path(__file__).parent), str(result)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    together = torch.load(result, weights_only=True)
    state, history = through_network(12)
    for name, tensor in state.items():
        assert (tensor - together["state"][name]).abs().max() < 1e-10, name
    for ours, theirs in zip(history, together["history"], strict=True):
        for figure in ("loss", "choice", "agreement", "judgements"):
            assert ours[figure] == pytest.approx(theirs[figure], abs=1e-10)


def test_steps_take_everything_once():
    assert [part.tolist() for part in steps(np.arange(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]


def test_held_out_triplets_have_not_been_seen():
    random = np.random.default_rng(0)
    triplets = random.integers(0, 6, (400, 3))
    learn, held = hold_out(triplets, 0.2, 3)
    assert sorted([*learn, *held]) == list(range(400))
    assert 60 <= len(held) <= 80
    keys = [(r, *sorted(rest)) for r, *rest in triplets.tolist()]
    assert not {keys[n] for n in learn} & {keys[n] for n in held}
    again = hold_out(triplets, 0.2, 3)
    assert (again[0].tolist(), again[1].tolist()) == (learn.tolist(), held.tolist())
    assert hold_out(triplets, 0.2, 4)[1].tolist() != held.tolist()
    assert len(hold_out(triplets, 0.0, 3)[1]) == 0


def test_triplets_are_the_same_with_p0_and_p1_in_either_order():
    triplets = np.array([[0, 1, 2], [0, 2, 1], [1, 0, 2], [0, 1, 2], [3, 1, 2]])
    assert seen_before(triplets, np.array([0]), np.array([1, 2, 3, 4])).tolist() == [1, 3]
    assert seen_before(triplets, np.array([4]), np.array([0, 1])).tolist() == []


def line(epoch, loss, agreement=0.8, part="held_out"):
    return {"epoch": epoch, "part": part, "loss": loss, "agreement": agreement}


@pytest.mark.parametrize(
    ("history", "best", "reason"),
    [
        ([line(0, 0.6), line(1, 0.5)], 1, None),
        ([line(0, 0.6), line(1, 0.7)], 0, "no epoch had a lower loss"),
        ([line(0, 0.6), line(1, 0.6)], 1, "no epoch had a lower loss"),
        ([line(0, 0.9), line(1, 0.69314)], 1, "no lower than that of guessing"),
        ([line(0, 0.6, 0.8), line(1, 0.5, 0.7)], 1, "agrees with people less often (0.7000)"),
        ([line(0, 0.6, float("nan")), line(1, 0.5, float("nan"))], 1, None),
        # what was held out decides where there is any
        ([line(0, 0.6, part="train"), line(0, 0.6), line(1, 0.4, part="train"), line(1, 0.6)], 1,
         "no epoch had a lower loss"),
        ([line(0, 0.6, part="train"), line(1, 0.4, part="train")], 1, None),
    ],
)  # fmt: skip
def test_what_counts_as_learned(history, best, reason):
    training = Training(HeadModel(head_of((6,)), LogisticJudge(0.5)), RECIPE)
    training.history, training.best_epoch = history, best
    found = nothing_learned(training)
    assert found == reason if reason is None else reason in found
    with torch.no_grad():
        training.model.head.weights.zero_()
    assert "all weights of the head have fallen to 0" in nothing_learned(training)


def test_the_schedules():
    paper = [rate_of("paper", 10, epoch) for epoch in range(10)]
    assert paper == pytest.approx([1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    cosine = [rate_of("cosine", 4, epoch) for epoch in range(4)]
    assert cosine == pytest.approx([1, 0.8535534, 0.5, 0.1464466])
    assert {rate_of("constant", 4, epoch) for epoch in range(4)} == {1.0}


@pytest.mark.parametrize("loss", ["bce", "rank"])
def test_planted_channels_are_found_and_no_weight_is_negative(loss):
    data = known(count=600)
    model = HeadModel(head_of((2, 4)), make_judge(loss, 1.0, 0)).double()
    training = Training(model, replace(RECIPE, epochs=60, batch=64, at_once=64))
    teach(training, course_of(data, held=60), ALONE, lambda: None)
    training.take_best()
    weights = model.head.weights.detach()
    assert (weights >= 0).all()
    assert (weights[[0, 2, 3, 5]] < 0.1 * weights.max()).all()
    assert float(weights[1] / weights[4]) == pytest.approx(3, rel=0.2)
    last = figures_on(model, data, np.arange(600), np.ones(600), ALONE)
    assert last.agreement > 0.97


def test_the_judges_by_hand():
    d0, d1 = torch.tensor([0.3, 0.1]), torch.tensor([0.1, 0.1])
    assert LogisticJudge(0.1)(d0, d1).tolist() == pytest.approx([2.0, 0.0], abs=1e-6)
    network = RankingNetwork()
    assert [tuple(layer.weight.shape) for layer in network.layers[::2]] == [
        (32, 5),
        (32, 32),
        (1, 32),
    ]
    seen = []
    network.layers[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    network(d0, d1)
    assert seen[0][0].tolist() == pytest.approx([0.3, 0.1, 0.2, 0.3 / 0.2, 0.1 / 0.4])


def test_dropout_leaves_the_same_channels_out_of_both_pairs():
    head = head_of((400,))
    head.dropout = 0.5
    statistics = torch.ones(3, 400)
    d0, d1 = head.train()(statistics, statistics)
    assert torch.equal(d0, d1)
    assert not torch.equal(d0, head(statistics, statistics)[0])
    assert head.eval()(statistics, statistics)[0].tolist() == [200, 200, 200]


def test_a_seed_repeats_a_training_and_leaves_the_random_state_alone():
    def train(seed):
        model = HeadModel(head_of((6,)), LogisticJudge(0.5)).double()
        model.head.dropout = 0.3
        training = Training(model, replace(RECIPE, seed=seed))
        teach(training, course_of(known()), ALONE, lambda: None)
        return model.head.weights.detach()

    before = torch.get_rng_state()
    first = train(5)
    assert torch.equal(first, train(5))
    assert not torch.equal(first, train(6))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("stop", [1, 2])
def test_a_checkpoint_goes_on_to_the_same_weights(tmp_path, stop):
    def begin():
        model = HeadModel(head_of((6,)), make_judge("rank", 1, 0)).double()
        model.head.dropout = 0.3
        return Training(model, RECIPE)

    whole, first, second = begin(), begin(), begin()
    split = course_of(known())
    teach(whole, split, ALONE, lambda: None)

    def after() -> None:
        if first.epoch == stop:
            save_whole(first.state(), tmp_path / "checkpoint.pt")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teach(first, split, ALONE, after)
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert set(content) >= {"model", "optimiser", "scheduler", "random", "epoch", "history"}
    second.restore(load_checkpoint(tmp_path / "checkpoint.pt"))
    teach(second, split, ALONE, lambda: None)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name
    strip = [{**line, "seconds": 0} for line in whole.history]
    assert strip == [{**line, "seconds": 0} for line in second.history]


def test_a_damaged_checkpoint_is_one_message(tmp_path):
    assert load_checkpoint(tmp_path / "none.pt") is None
    (tmp_path / "torn.pt").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(LpipstoreError, match="damaged"):
        load_checkpoint(tmp_path / "torn.pt")


def test_it_stops_early_and_the_best_epoch_is_kept():
    data = known()
    flipped = data.judge.clone()
    flipped[40:] = 1 - flipped[40:]  # what is held out contradicts what is taught
    data = replace(data, judge=flipped)
    model = HeadModel(head_of((6,)), LogisticJudge(0.5)).double()
    training = Training(model, replace(RECIPE, epochs=50, patience=4))
    teach(training, course_of(data), ALONE, lambda: None)
    assert training.epoch - training.best_epoch == 4
    held = [line["loss"] for line in training.history if line["part"] == "held_out"]
    assert np.argmin(held) == training.best_epoch
    training.take_best()
    now = figures_on(model, data, np.arange(40, 50), course_of(data).weights, ALONE)
    assert now.loss == pytest.approx(min(held))


def test_a_training_that_comes_apart_is_one_message():
    data = known()
    data.statistics[0] = torch.nan
    model = HeadModel(head_of((6,)), LogisticJudge(0.5)).double()
    with pytest.raises(LpipstoreError, match="not a finite number"):
        teach(Training(model, RECIPE), course_of(data), ALONE, lambda: None)


def test_the_trunk_of_triplets_gives_the_distances_of_the_module():
    from lpipstore import LPIPS

    metric = LPIPS(net="squeeze", weights="random")
    images = torch.rand(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    trunk = TripletStatistics(metric.trunk, scaled=True, tune=False)
    model = HeadModel(LinearHead(metric.head()), LogisticJudge(1.0), trunk)
    d0, d1 = model.distances((images,))
    assert torch.allclose(d0, metric(images[:, 0], images[:, 1]).flatten(), atol=1e-6)
    assert torch.allclose(d1, metric(images[:, 0], images[:, 2]).flatten(), atol=1e-6)


def half_training(precision, at_once=12, scale=None):
    """A training in float32 whose trunk computes in `precision`, and what its layers gave."""
    trunk = TripletStatistics(Trunk(), scaled=True, tune=True, precision=precision)
    training = Training(
        HeadModel(head_of((5, 7)), LogisticJudge(0.5), trunk),
        replace(RECIPE, at_once=at_once, clip=0.5),
    )
    seen = []
    trunk.trunk.first.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    if scale is not None and precision == torch.float16:
        state = training.state()
        training.restore(state | {"scaler": state["scaler"] | {"scale": scale}})
    data = Images(41)
    data.images, data.judge = data.images.float(), data.judge.float()
    return training, course_of(data), seen


HALVES = pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])


@pytest.mark.parametrize(
    ("precision", "bound"), [(torch.bfloat16, 0.16), (torch.float16, 0.05), (torch.float32, 1e-5)]
)
def test_a_trunk_in_half_precision_learns_what_a_whole_one_does(precision, bound):
    steps_of = {}
    for place, kind in enumerate((torch.float32, precision)):
        training, split, seen = half_training(kind, at_once=(12, 5)[place], scale=2.0**10)
        found = steps_of[place] = []
        training.optimiser.register_step_pre_hook(
            lambda optimiser, *_, found=found: found.append(
                [p.grad.clone() for p in optimiser.param_groups[0]["params"]]
            )
        )
        teach(training, split, ALONE, lambda: None)
    assert set(seen) == {precision}
    assert training.scaler.is_enabled() == (precision == torch.float16)
    assert len(found) == 9
    for whole, half in zip(steps_of[0][0], found[0], strict=True):  # of the first step
        assert half.dtype == torch.float32
        assert (whole - half).norm() < bound * whole.norm()
    assert {tensor.dtype for tensor in training.model.state_dict().values()} == {torch.float32}
    train = [line["loss"] for line in training.history if line["part"] == "train"]
    assert train[-1] < train[0]


@HALVES
def test_taps_in_half_precision_are_normalised_in_float32(precision):
    training, split, _ = half_training(precision)
    taps = []
    trunk = training.model.trunk
    trunk.trunk.register_forward_hook(lambda _, __, output: taps.extend(output))
    images = split.data.images[:4] * 2 - 1
    with torch.no_grad():
        first, second = trunk(images)
    assert {tap.dtype for tap in taps} == {precision}
    assert first.dtype == second.dtype == torch.float32
    normal = [unit_normalise(tap.double()).unflatten(0, (4, 3)) for tap in taps]
    for place, found in enumerate((first, second), start=1):
        sides = [(tap[:, 0] - tap[:, place]).square().mean((2, 3)) for tap in normal]
        assert torch.allclose(found.double(), torch.cat(sides, 1), rtol=1e-5, atol=1e-9)


@pytest.mark.filterwarnings("error")
def test_a_step_whose_gradients_overflow_is_left_out_and_the_scale_falls():
    training, split, _ = half_training(torch.float16, scale=2.0**40)
    start = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    run_epoch(training, split, ALONE, training.model)  # three steps
    assert training.scaler.get_scale() == 2.0**37
    for name, tensor in training.model.state_dict().items():
        assert torch.equal(tensor, start[name]), name
    again, _, _ = half_training(torch.float16)
    again.restore(training.state())
    assert again.scaler.get_scale() == 2.0**37


def test_normalising_keeps_float64():
    tap = torch.rand(1, 4, 2, 2, dtype=torch.float64)
    assert torch.allclose(unit_normalise(tap).square().sum(1), torch.ones(1, 2, 2).double())
    assert unit_normalise(tap).dtype == torch.float64
    assert unit_normalise(tap.half()).dtype == torch.float32


def test_the_curve_is_a_picture(tmp_path):
    from PIL import Image

    lines = [
        {"epoch": epoch, "part": part, "loss": 0.5, "agreement": 0.8}
        for epoch in range(3)
        for part in ("train", "held_out")
    ]
    draw_curve(lines, 1, tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.size[0] > 800
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10
