"""Training from end to end: a planted folder of BAPPS, resuming, kills, processes, the trunk."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import lpipstore
from lpipstore.pipeline.backbones.layout import LPIPS_BACKBONES
from lpipstore.pipeline.distances.heads import load_head, make_head, save_head
from lpipstore.pipeline.distances.threads import one_thread
from lpipstore.pipeline.pairlists.statistics import distances_of_statistics

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0", "--size", "32")
CHANNELS = LPIPS_BACKBONES["squeeze"].channels
PLANTED = 0  # the tap whose channels decide
FAST = ("--epochs", "3", "--batch", "16", "--held-out", "0.25")


def summary_of(outcome):
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def weights_of(folder, name="head.pth"):
    state = torch.load(folder / name, weights_only=True)
    return np.concatenate([tensor.numpy().ravel() for tensor in state.values()])


@pytest.fixture(autouse=True)
def on_one_thread():
    """Images of 32 pixels are not worth sharing among threads."""
    with one_thread():
        yield


@pytest.fixture
def planted(tmp_path, draw, cli):
    """A folder of BAPPS whose judges see the channels of one tap only."""
    root = tmp_path / "bapps"
    files = {}
    for split, count in (("train", 160), ("val", 40)):
        folder = root / "2afc" / split / "cnn"
        sources = draw(tmp_path / f"pictures-{split}", 24, seed=len(split))
        random = np.random.default_rng(len(split))
        for role in ("ref", "p0", "p1", "judge"):
            (folder / role).mkdir(parents=True)
        files[split] = []
        for number in range(count):
            chosen = random.permutation(24)[:3]
            for role, source in zip(("ref", "p0", "p1"), chosen, strict=True):
                os.link(sources[source], folder / role / f"{number:06}.png")
            files[split].append(
                [folder / role / f"{number:06}.png" for role in ("ref", "p0", "p1")]
            )
    lines = [
        (images[0], other) for split in files.values() for images in split for other in images[1:]
    ]
    table = tmp_path / "pairs.csv"
    table.write_text("a,b\n" + "".join(f"{a},{b}\n" for a, b in lines))
    arguments = ("--keep-statistics", "--out", tmp_path / "run", "--json")
    summary_of(cli("score", table, *MODEL, *arguments))
    head = make_head([np.full(c, i == PLANTED, np.float32) for i, c in enumerate(CHANNELS)], "true")
    distances = distances_of_statistics(tmp_path / "run", [head])[0]
    places = lpipstore.open_run(tmp_path / "run").pairs["statistics_row"].to_numpy()
    d0, d1 = distances[places].reshape(-1, 2).T
    judge = iter((d1 < d0).astype(np.float64).tolist())
    for split, triplets in files.items():
        for number in range(len(triplets)):
            np.save(root / "2afc" / split / "cnn" / "judge" / f"{number:06}.npy", [next(judge)])
    save_head(head, tmp_path / "true.pth")
    return root


@pytest.fixture
def triplets(pictures):
    """A table of 60 judgements of eight drawn pictures by voters who see the red in them."""
    random = np.random.default_rng(0)
    reds = []
    for path in sorted(pictures.iterdir()):
        with Image.open(path) as picture:
            reds.append(np.asarray(picture, np.float64)[..., 0])
    lines = ["ref,p0,p1,judge,votes"]
    for _ in range(60):
        ref, p0, p1 = random.permutation(8)[:3]
        votes = random.integers(1, 6)
        d0, d1 = (np.square(reds[ref] - reds[p]).mean() for p in (p0, p1))
        judge = random.binomial(votes, 0.9 if d1 < d0 else 0.1) / votes
        lines.append(f"{ref:03}.png,{p0:03}.png,{p1:03}.png,{judge},{votes}")
    path = pictures / "triplets.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_planted_tap_is_found(cli, planted, tmp_path):
    command = ("train", planted, *MODEL, "--heads", "none", "--held-out-from", planted)
    options = ("--epochs", "40", "--batch", "32", "--out", tmp_path / "H", "--json")
    summary = summary_of(cli(*command, *options))
    assert (summary["learned_from"], summary["held_out"]) == (160, 40)
    assert summary["forwards"] == 0  # scored before
    trained = summary["heads"][-1]
    assert summary["learned"] is True
    assert trained["train"]["agreement"] > 0.95
    assert trained["held_out"]["agreement"] > 0.8
    head = load_head(str(tmp_path / "H"), "squeeze", CHANNELS)
    assert head.nonnegative
    means = [weights.mean() for weights in head.weights]
    assert np.argmax(means) == PLANTED
    command = ("evaluate", planted, *MODEL, "--heads", tmp_path / "H", "--heads")
    scores = summary_of(cli(*command, tmp_path / "true.pth", "--json"))["scores"]
    found = {(line["metric"], line["score"]): line["value"] for line in scores}
    assert found[str(tmp_path / "true.pth"), "2afc"] == 1
    assert found[str(tmp_path / "H"), "agreement"] == trained["held_out"]["agreement"]
    assert found["baseline", "2afc"] < found[str(tmp_path / "H"), "2afc"]
    assert found["ceiling of the votes", "2afc"] == 1


def test_what_a_training_leaves(cli, triplets, tmp_path):
    outcome = cli("train", triplets, *MODEL, *FAST, "--out", tmp_path / "H")
    assert outcome.code == 0, outcome.err
    assert "epoch   3  train loss" in outcome.err
    assert "train ┃ held out ┃ difference" in outcome.out
    names = {path.name for path in (tmp_path / "H").iterdir()} - {"tensorboard"}
    assert names == {
        "manifest.json",
        "head.pth",
        "checkpoint.pt",
        "metrics.parquet",
        "curve.png",
        "images.parquet",
        "judgements.parquet",
        "summary.json",
    }
    metrics = pq.read_table(tmp_path / "H" / "metrics.parquet").to_pydict()
    assert metrics["epoch"] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert metrics["part"] == ["train", "held_out"] * 4
    with Image.open(tmp_path / "H" / "curve.png") as picture:
        picture.verify()
    checkpoint = torch.load(tmp_path / "H" / "checkpoint.pt", weights_only=True)
    assert checkpoint["epoch"] == 3
    assert checkpoint["recipe"]["seed"] == 0


def test_a_second_training_forwards_nothing_and_reads_no_row(cli, triplets, tmp_path):
    command = ("train", triplets, *MODEL, *FAST, "--json")
    first = summary_of(cli(*command, "--out", tmp_path / "H"))
    assert (first["forwards"], first["pairs_kept"]) == (8, 0)
    other = ("--loss", "rank", "--seed", "3", "--dropout", "0.2", "--no-votes")
    second = summary_of(cli(*command, *other, "--out", tmp_path / "H2"))
    assert (second["forwards"], second["rows_read"]) == (0, 0)
    assert second["pairs_kept"] == first["pairs"]
    assert not np.array_equal(weights_of(tmp_path / "H"), weights_of(tmp_path / "H2"))


def test_the_package_gives_the_same_distances(cli, triplets, tmp_path):
    import lpips

    weights = summary_of(cli("train", triplets, *MODEL, *FAST, "--out", tmp_path / "H", "--json"))
    assert weights["epochs"] == 3
    ours = lpipstore.LPIPS(net="squeeze", weights="random", heads=tmp_path / "H")
    model = tmp_path / "H" / "head.pth"
    theirs = lpips.LPIPS(net="squeeze", pnet_rand=True, model_path=str(model), verbose=False)
    trunk = ours.trunk.state_dict()
    with torch.no_grad():
        for name, tensor in theirs.net.state_dict().items():
            tensor.copy_(trunk["features." + name.split(".", 1)[1]])
        images = torch.rand(2, 4, 3, 48, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
        difference = ours(*images).flatten() - theirs.eval()(*images).flatten()
    assert difference.abs().max() < 1e-6


def test_the_same_command_does_not_train_again_and_another_stops(cli, triplets, tmp_path):
    command = ("train", triplets, *MODEL, *FAST, "--out", tmp_path / "H", "--json")
    summary_of(cli(*command))
    before = (tmp_path / "H" / "head.pth").read_bytes()
    stamp = (tmp_path / "H" / "checkpoint.pt").stat().st_mtime_ns
    summary_of(cli(*command))
    assert (tmp_path / "H" / "head.pth").read_bytes() == before
    assert (tmp_path / "H" / "checkpoint.pt").stat().st_mtime_ns == stamp
    outcome = cli(*command, "--seed", "1")
    assert outcome.code == 2
    assert "seed: 0 there, 1 now" in outcome.err


@pytest.mark.parametrize(
    ("count", "options", "words"),
    [
        (1, (), "there are too few judgements (1) to hold out a share of 0.1: nothing tells"),
        (4, (), "there are too few judgements (4) to hold out a share of 0.1: nothing tells"),
        (60, (), "few judgements are held out (6): the agreement with them is uncertain by"),
        (60, ("--held-out", "0.5"), None),
        (4, ("--held-out", "0"), None),
    ],
)
def test_too_few_judgements_are_said_to_be(cli, triplets, tmp_path, count, options, words):
    table = triplets.parent / "some.csv"
    lines = triplets.read_text().splitlines()[: count + 1]
    table.write_text("\n".join(lines) + "\n")
    command = ("train", table, *MODEL, "--epochs", "1", "--out", tmp_path / "H", "-q")
    outcome = cli(*command, *options)
    assert outcome.code == 0, outcome.err
    warnings = [line for line in outcome.err.splitlines() if "judgements" in line]
    assert len(warnings) == (words is not None)
    assert all(words in line for line in warnings)


def test_tensorboard_gets_every_figure_of_every_epoch(cli, triplets, tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard logs are written when it is installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    summary_of(cli("train", triplets, *MODEL, *FAST, "--out", tmp_path / "H", "--json"))
    events = EventAccumulator(str(tmp_path / "H" / "tensorboard"))
    events.Reload()
    metrics = pq.read_table(tmp_path / "H" / "metrics.parquet").to_pylist()
    names = ("loss", "choice", "agreement")
    assert set(events.Tags()["scalars"]) == {
        f"{name}/{part}" for name in names for part in ("train", "held_out")
    }
    for name in names:
        for part in ("train", "held_out"):
            logged = [(event.step, event.value) for event in events.Scalars(f"{name}/{part}")]
            lines = [line for line in metrics if line["part"] == part]
            assert [step for step, _ in logged] == [0, 1, 2, 3]
            assert [value for _, value in logged] == pytest.approx([line[name] for line in lines])


def test_a_checkpoint_of_another_training_is_one_message(cli, triplets, tmp_path):
    command = ("train", triplets, *MODEL, *FAST, "--out")
    summary_of(cli(*command, tmp_path / "H", "--json"))
    summary_of(cli(*command, tmp_path / "other", "--seed", "1", "--json"))
    path = tmp_path / "H" / "checkpoint.pt"
    own = torch.load(path, weights_only=True)
    (tmp_path / "H" / "head.pth").unlink()
    wrong = [
        torch.load(tmp_path / "other" / "checkpoint.pt", weights_only=True),
        {"a": torch.zeros(1)},
        own | {"model": {name: tensor.reshape(-1)[:1] for name, tensor in own["model"].items()}},
        own | {"optimiser": {}},
        [1],
    ]
    for content in wrong:
        torch.save(content, path)
        outcome = cli(*command, tmp_path / "H")
        assert outcome.code == 1
        assert "checkpoint.pt" in outcome.err
        assert sum(line.startswith("error: ") for line in outcome.err.splitlines()) == 1
    assert not (tmp_path / "H" / "head.pth").exists()
    path.unlink()
    assert cli(*command, tmp_path / "H").code == 0


def test_broken_images_take_their_judgements_with_them(cli, triplets, tmp_path):
    path = triplets.parent / "003.png"
    whole = io.BytesIO()
    with Image.open(path) as picture:
        picture.resize((200, 200)).save(whole, "JPEG")
    path.write_bytes(whole.getvalue()[:2000])  # its header is fine
    lost = sum("003.png" in line for line in triplets.read_text().splitlines())
    outcome = cli("train", triplets, *MODEL, *FAST, "--out", tmp_path / "H", "--json")
    summary = summary_of(outcome)
    assert (summary["left_out"], summary["judgements"]) == (lost, 60 - lost)
    assert "003.png is left out" in outcome.err
    through = ("--augment", "flip", "--epochs", "1", "--out", tmp_path / "H2", "--json")
    outcome = cli("train", triplets, *MODEL, *through)
    network = summary_of(outcome)
    assert (network["left_out"], network["judgements"]) == (lost, 60 - lost)
    assert network["learned_from"] + network["held_out"] == 60 - lost
    assert "003.png is left out" in outcome.err


def test_an_image_that_breaks_during_a_training_is_named(cli, triplets, tmp_path, monkeypatch):
    path = triplets.parent / "005.png"
    whole = path.read_bytes()
    save = lpipstore.workflows.learning.train.save_whole

    def break_it(content, target):
        save(content, target)
        if content.get("epoch") == 1:
            path.write_bytes(whole[:100])

    command = ("train", triplets, *MODEL, "--augment", "flip", "--epochs", "3", "--json")
    expected = summary_of(cli(*command, "--out", tmp_path / "whole"))
    monkeypatch.setattr("lpipstore.workflows.learning.train.save_whole", break_it)
    outcome = cli(*command, "--out", tmp_path / "H")
    assert outcome.code == 1
    assert "005.png could be used when the training began, and cannot any more" in outcome.err
    monkeypatch.undo()
    monkeypatch.setenv("LPIPSTORE_STORE", str(tmp_path / "store"))
    path.write_bytes(whole)
    resumed = cli(*command, "--out", tmp_path / "H")
    assert "going on after epoch 1" in resumed.err
    assert summary_of(resumed)["heads"] == expected["heads"]


def test_held_out_judgements_that_are_learned_from_are_noticed(cli, triplets, tmp_path):
    header, *lines = triplets.read_text().splitlines()
    command = ("train", triplets, *MODEL, "--epochs", "1", "--out", tmp_path / "H")
    shutil.copytree(triplets.parent, tmp_path / "copy")  # other files with the same bytes
    turned = [f"{r},{b},{a},{1 - float(j)},{v}" for r, a, b, j, v in (x.split(",") for x in lines)]
    (tmp_path / "copy" / "turned.csv").write_text("\n".join([header, *turned[::2]]) + "\n")
    for table in (triplets, tmp_path / "copy" / "triplets.csv", tmp_path / "copy" / "turned.csv"):
        refused = cli(*command, "--held-out-from", table)
        assert refused.code == 2
        assert "are about triplets that the training learns from" in refused.err
        assert not (tmp_path / "H").exists()
    twin = ["003.png,003.png,001.png,1,2", "003.png,002.png,002.png,1,2"]  # of no triplet before
    partly = tmp_path / "copy" / "partly.csv"
    partly.write_text("\n".join([header, *lines[:6], *twin]) + "\n")
    outcome = cli(*command, "--held-out-from", partly)
    assert outcome.code == 0, outcome.err
    assert f"6 of 8 judgements of --held-out-from {partly} (75%) are about" in outcome.err
    partly.write_text("\n".join([header, *twin]) + "\n")
    outcome = cli(*command[:-1], tmp_path / "H2", "--held-out-from", partly)
    assert "--held-out-from" not in outcome.err


def test_a_training_that_learned_nothing_is_not_called_one(cli, triplets, tmp_path):
    header, *lines = triplets.read_text().splitlines()
    undecided = [f"{','.join(line.split(',')[:3])},0.5,1" for line in lines]
    triplets.write_text("\n".join([header, *undecided]) + "\n")
    command = ("train", triplets, *MODEL, *FAST, "--out", tmp_path / "H")
    outcome = cli(*command)
    assert "warning: the training learned nothing: " in outcome.err
    assert "guessing (0.6931)" in outcome.err or "no epoch had a lower loss" in outcome.err
    assert outcome.out.startswith("Nothing learned")
    assert summary_of(cli(*command, "--json"))["learned"] is False


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--held-out", "1"), "--held-out 1 must lie in"),
        (("--loss", "hinge"), "unknown --loss 'hinge': choose bce, rank"),
        (("--augment", "flip,warp"), "unknown --augment 'warp'"),
        (("--independent",), "--independent is about --augment"),
        (("--schedule", "none"), "unknown --schedule"),
        (("--dropout", "1.5"), "--dropout 1.5"),
        (("--images", "nowhere"), "--images nowhere is not a folder"),
        (("--learning-rate", "0"), "--learning-rate 0"),
        (("--learning-rate", "inf"), "--learning-rate inf"),
        (("--seed", str(1 << 70)), "Invalid value for '--seed'"),
        (("--held-out", "0.999"), "no judgement is left to learn from"),
    ],
)
def test_wrong_options_are_one_message(cli, triplets, tmp_path, options, words):
    outcome = cli("train", triplets, *MODEL, *options, "--out", tmp_path / "H")
    assert outcome.code == 2
    assert words in outcome.err
    assert not (tmp_path / "H").exists()


def test_a_tuned_trunk_can_be_used_afterwards(cli, triplets, tmp_path):
    command = ("train", triplets, *MODEL, "--tune-trunk", "--augment", "flip,swap,colour")
    options = ("--epochs", "2", "--batch", "20", "--at-once", "8", "--clip", "1")
    first = summary_of(cli(*command, *options, "--out", tmp_path / "H", "--json"))
    assert first["forwards"] == 0
    assert set(first["heads"][-1]) == {"head", "train", "held_out"}
    tuned = torch.load(tmp_path / "H" / "trunk.pth", weights_only=True)
    start = lpipstore.LPIPS(net="squeeze", weights="random").trunk.state_dict()
    assert not torch.equal(tuned["features.0.weight"], start["features.0.weight"])
    model = ("--backbone", "squeeze", "--weights", tmp_path / "H" / "trunk.pth", "--size", "32")
    judged = ("evaluate", triplets, *model, "--heads", tmp_path / "H", "--metrics", "baseline")
    outcome = cli(*judged, "--workers", "0", "--json")
    assert "own trunk" not in outcome.err
    scores = summary_of(outcome)["scores"]
    assert {line["metric"] for line in scores} >= {"baseline", str(tmp_path / "H")}
    other = ("--backbone", "squeeze", "--weights", "random", *judged[6:], "--workers", "0")
    warned = cli("evaluate", triplets, *other).err
    assert f"its own trunk, and this one is another: --weights {tmp_path / 'H'}" in warned
    again = summary_of(cli(*command, *options, "--out", tmp_path / "again", "--json"))
    assert np.array_equal(weights_of(tmp_path / "H"), weights_of(tmp_path / "again"))
    assert again["heads"] == first["heads"]


def test_a_trunk_that_computes_in_half_precision_keeps_its_digits(cli, triplets, tmp_path):
    command = ("train", triplets, *MODEL, "--tune-trunk", "--trunk-dtype", "bfloat16")
    options = ("--epochs", "1", "--learning-rate", "1e-12", "--out", tmp_path / "H", "--json")
    summary_of(cli(*command, *options))
    tuned = torch.load(tmp_path / "H" / "trunk.pth", weights_only=True)
    start = lpipstore.LPIPS(net="squeeze", weights="random").trunk.state_dict()
    for name, tensor in tuned.items():
        assert torch.allclose(tensor, start[name], rtol=0, atol=1e-9), name
    manifest = json.loads((tmp_path / "H" / "manifest.json").read_text())
    assert manifest["trunk_dtype"] == "bfloat16"


def _process(arguments, folder, *launcher):
    environment = {**os.environ, "COLUMNS": "200"}
    environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # sums are cut by threads
    environment["LPIPSTORE_STORE"] = str(folder / "store")
    script = folder / "lpipstore.py.script"
    script.write_text("from lpipstore.workflows.cli.app import main\n\nmain()\n")
    command = [*launcher, str(script), *map(str, arguments)]
    return subprocess.Popen(
        [sys.executable, *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_train_the_same_weights(cli, triplets, tmp_path):
    command = ("train", triplets, *MODEL, "--tune-trunk", "--epochs", "2", "--batch", "16")
    command = (*command, "--at-once", "5", "--weights", "random", "--json")
    alone = summary_of(cli(*command, "--out", tmp_path / "one"))
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
    process = _process((*command, "--out", tmp_path / "two"), tmp_path, *launcher)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    together = json.loads(out)  # only the first one prints
    for name in ("head.pth", "trunk.pth"):
        one, two = (weights_of(tmp_path / run, name) for run in ("one", "two"))
        assert np.abs(one - two).max() < 1e-6, name
    for ours, theirs in zip(alone["heads"], together["heads"], strict=True):
        for part in ("train", "held_out"):
            assert ours[part] == pytest.approx(theirs[part], abs=1e-6)


def test_a_killed_training_goes_on_to_the_same_weights(cli, triplets, tmp_path):
    command = ("train", triplets, *MODEL, "--augment", "crop,swap", "--epochs", "4", "--json")
    whole = summary_of(cli(*command, "--out", tmp_path / "whole"))
    process = _process((*command, "--out", tmp_path / "H"), tmp_path)
    for line in process.stderr:
        if line.startswith("epoch   2"):
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait(30) == -signal.SIGKILL
    assert not (tmp_path / "H" / "head.pth").exists()
    outcome = cli(*command, "--out", tmp_path / "H")
    resumed = summary_of(outcome)
    assert "going on after epoch" in outcome.err
    assert np.array_equal(weights_of(tmp_path / "whole"), weights_of(tmp_path / "H"))
    assert resumed["heads"] == whole["heads"]


def test_it_teaches_materials(cli, data, real_weights, tmp_path):
    folder = data / "materials"
    header, *lines = (folder / "train_triplets.csv").read_text().splitlines()
    table = tmp_path / "some.csv"
    table.write_text("\n".join([header, *lines[::10]]) + "\n")
    command = ("train", table, "--images", folder / "images", "--backbone", "squeeze")
    arguments = ("--size", "64", "--epochs", "8", "--out", tmp_path / "H", "--json")
    summary = summary_of(cli(*command, *arguments))
    assert summary["forwards"] == 100
    start, trained = summary["heads"][-2:]
    assert trained["held_out"]["agreement"] > start["held_out"]["agreement"] + 0.05
    assert trained["held_out"]["agreement"] > 0.78  # on all judgements: 0.86
