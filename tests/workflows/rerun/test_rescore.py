"""Other heads on the images of a finished run: the bytes of a fresh run, and no forward."""

import json
import pickle
import shutil

import numpy as np
import pyarrow.parquet
import pytest
import torch

import lpipstore
from lpipstore.cache.errors import setting
from lpipstore.pipeline.distances.heads import make_head, save_head
from lpipstore.pipeline.features.extractor import Extractor, extract_rows
from lpipstore.pipeline.features.pooling import GRIDS
from lpipstore.pipeline.runs.reopen import reopen_extractor
from lpipstore.workflows.rerun.rescore import RowsMissing

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")
CHANNELS = (64, 128, 256, 384, 384, 512, 512)
TIMES = {"seconds", "hits", "forwards", "rows_read"}


def summary_of(folder):
    summary = json.loads((folder / "summary.json").read_text())
    return {name: value for name, value in summary.items() if name not in TIMES}


@pytest.fixture
def heads(tmp_path):
    """Three heads for squeeze; the last one has weights under 0 and some that are 0."""
    paths = []
    for number in range(3):
        random = np.random.default_rng(number)
        weights = [random.random(count) for count in CHANNELS]
        if number == 2:
            weights = [np.where(weight < 0.3, 0, weight - 0.4) for weight in weights]
        paths.append(tmp_path / f"head{number}.pth")
        save_head(make_head(weights, "drawn"), paths[-1])
    return paths


@pytest.fixture
def no_trunk(monkeypatch):
    """From `set` on, neither weights nor a forward can be had."""

    def forbid():
        def fail(*_, **__):
            raise AssertionError("no trunk is needed")

        monkeypatch.setattr("lpipstore.pipeline.runs.reopen.load_backbone", fail)
        monkeypatch.setattr("lpipstore.pipeline.backbones.lpips_nets.load_weights", fail)
        monkeypatch.setattr(Extractor, "rows", fail)

    return forbid


@pytest.mark.parametrize(
    "kind",
    [
        "pairs",
        "groups",
        "compare",
        "paired",
        "score",
        "below",
        "top-k",
        "both",
        "across",
        "below across",
    ],
)
def test_each_head_gives_the_bytes_of_a_fresh_run(
    cli, finished, finished_runs, heads, tmp_path, no_trunk, kind, files_of
):
    finished(kind)
    jobs = finished_runs.jobs
    for number, head in enumerate(heads):
        fresh = (*jobs[kind], *MODEL, "--heads", head, "--out", tmp_path / f"fresh{number}")
        assert cli(*fresh).code == 0
    no_trunk()
    chosen = [argument for head in heads for argument in ("--heads", head)]
    outcome = cli("rescore", tmp_path / "run", *chosen, "--out", tmp_path / "all", "--json")
    assert outcome.code == 0, outcome.err
    told = json.loads(outcome.out)
    assert told["forwards"] == 0
    assert [run["folder"] for run in told["runs"]] == [
        str(tmp_path / "all" / f"head{number}") for number in range(3)
    ]
    for number in range(3):
        fresh, again = tmp_path / f"fresh{number}", tmp_path / "all" / f"head{number}"
        assert files_of(again) == files_of(fresh)
        assert summary_of(again) == summary_of(fresh)
        fresh, again = (lpipstore.open_run(path).manifest for path in (fresh, again))
        assert again.pop("rescored_from") == str(tmp_path / "run")
        assert again == fresh


def test_rows_are_read_once_for_all_heads(cli, finished, heads, tmp_path, monkeypatch):
    finished()
    counts = []
    for chosen in (heads[:1], heads):
        options = [argument for head in chosen for argument in ("--heads", head)]
        out = tmp_path / f"out{len(chosen)}"
        told = json.loads(cli("rescore", tmp_path / "run", *options, "--out", out, "--json").out)
        counts.append(told["rows_read"])
    assert counts[0] == counts[1] > 0


def test_one_head_makes_a_run_that_its_own_command_recognises(
    cli, pictures, heads, tmp_path, files_of
):
    cli("pairs", pictures, *MODEL, "--out", tmp_path / "run")
    command = ("rescore", tmp_path / "run", "--heads", heads[0], "--out", tmp_path / "two")
    assert cli(*command).code == 0
    before = files_of(tmp_path / "two")
    assert cli(*command).code == 0  # goes on where nothing is left to do
    again = ("pairs", pictures, *MODEL, "--heads", heads[0], "--out", tmp_path / "two", "--json")
    assert json.loads(cli(*again).out)["forwards"] == 0
    assert files_of(tmp_path / "two") == before
    other = cli("rescore", tmp_path / "run", "--heads", heads[1], "--out", tmp_path / "two")
    assert (other.code, "head_digest" in other.err) == (2, True)
    both = ("--heads", heads[0], "--heads", heads[1])
    refused = cli("rescore", tmp_path / "run", *both, "--out", tmp_path / "two")
    assert (refused.code, "holds a run" in refused.err) == (2, True)


def test_rows_that_left_the_store(cli, pictures, heads, tmp_path, files_of):
    cli("pairs", pictures, *MODEL, "--out", tmp_path / "run")
    fresh = ("--heads", heads[0], "--out", tmp_path / "fresh")
    cli("pairs", pictures, *MODEL, *fresh)
    assert cli("store", "clear").code == 0
    command = ("rescore", tmp_path / "run", "--heads", heads[0], "--out", tmp_path / "two")
    refused = cli(*command, "--no-compute")
    assert refused.code == 1
    assert "8 of 8 rows are not in the store" in refused.err
    assert refused.out.splitlines() == [str(pictures / f"{n:03}.png") for n in range(8)]
    assert not (tmp_path / "two").exists()
    told = json.loads(cli(*command, "--json").out)
    assert told["forwards"] == 8
    assert files_of(tmp_path / "two") == files_of(tmp_path / "fresh")


@pytest.mark.parametrize("lost", ["pooled rows", "all rows"])
def test_rows_of_a_search_that_left_the_store(cli, jobs, heads, tmp_path, files_of, lost):
    assert cli(*jobs["below"], *MODEL, "--out", tmp_path / "run").code == 0
    fresh = ("--heads", heads[0], "--out", tmp_path / "fresh")
    assert cli(*jobs["below"], *MODEL, *fresh).code == 0
    with lpipstore.FeatureStore(tmp_path / "store", limit=None) as store:
        if lost == "pooled rows":
            assert sum(store.clear({"pooled": f"{g}x{g}"}).freed.rows for g in GRIDS) >= 13
        else:
            store.clear()
    command = ("rescore", tmp_path / "run", "--heads", heads[0], "--out", tmp_path / "two")
    outcome = cli(*command, "--no-compute", "--json")
    if lost == "pooled rows":  # they are made of the rows
        assert json.loads(outcome.out)["forwards"] == 0
    else:
        assert (outcome.code, "13 of 13 rows are not" in outcome.err) == (1, True)
        assert len(outcome.out.splitlines()) == 13
        assert json.loads(cli(*command, "--json").out)["forwards"] == 13
    assert files_of(tmp_path / "two") == files_of(tmp_path / "fresh")


def test_a_search_that_was_cut_short_goes_on(cli, finished, heads, tmp_path, files_of):
    finished("top-k")
    command = ("rescore", tmp_path / "run", "--heads", heads[0], "--out", tmp_path / "two")
    assert cli(*command).code == 0
    before = files_of(tmp_path / "two")
    (tmp_path / "two" / "pairs.parquet").unlink()
    (tmp_path / "two" / "summary.json").unlink()
    assert cli(*command).code == 0
    assert files_of(tmp_path / "two") == before


def test_no_pair_may_be_close_under_another_head(cli, jobs, heads, tmp_path):
    command = ("pairs", *jobs["pairs"][1:], *MODEL, "--below", "0.2", "--out", tmp_path / "run")
    assert cli(*command).code == 0
    options = ("--heads", heads[1], "--out", tmp_path / "two")
    outcome = cli("rescore", tmp_path / "run", *options)
    assert outcome.code == 0, outcome.err
    assert "1 close of 91 pairs" in outcome.out  # the twins
    assert lpipstore.open_run(tmp_path / "two").summary["listed"] == 1


def test_lost_rows_of_images_that_are_gone(cli, pictures, heads, tmp_path):
    cli("pairs", pictures, *MODEL, "--out", tmp_path / "run")
    cli("store", "clear")
    (pictures / "004.png").unlink()
    outcome = cli("rescore", tmp_path / "run", "--heads", heads[0], "--out", tmp_path / "two")
    assert outcome.code == 1
    assert "004.png" in outcome.err


def test_lost_rows_of_other_weights(cli, finished, heads, tmp_path, real_weights):
    finished()
    cli("store", "clear")
    (weights,) = real_weights.glob("squeezenet1_1*.pth")
    command = ("rescore", tmp_path / "run", "--heads", heads[0], "--out", tmp_path / "two")
    outcome = cli(*command, "--weights", weights)
    assert outcome.code == 1
    assert "not those of the run" in outcome.err


def test_lost_rows_of_images_with_any_name(cli, pictures, heads, tmp_path, monkeypatch, files_of):
    for name in (b"caf\xe9 \n.png", "wide\u00a0space.png".encode(), b"back\\nslash.png"):
        source = (pictures / "000.png").read_bytes()
        odd = bytes(pictures) + b"/" + name
        with open(odd, "wb") as file:
            file.write(source + name)  # other bytes after the picture's end: another image
    monkeypatch.chdir(pictures.parent)
    cli("pairs", "pictures", *MODEL, "--out", tmp_path / "run")
    fresh = ("--heads", heads[0], "--out", tmp_path / "fresh")
    cli("pairs", "pictures", *MODEL, *fresh)
    cli("store", "clear")
    monkeypatch.chdir("/")
    command = ("rescore", tmp_path / "run", "--heads", heads[0], "--out", tmp_path / "two")
    outcome = cli(*command, "--json")
    assert json.loads(outcome.out)["forwards"] == 11
    assert files_of(tmp_path / "two") == files_of(tmp_path / "fresh")


def test_backbones_of_torchvision(cli, pictures, tmp_path, no_trunk, files_of):
    model = ("--backbone", "torchvision:resnet18", "--taps", "layer1,layer2", "--weights", "random")
    weights = [np.random.default_rng(0).random(count) for count in (64, 128)]
    save_head(make_head(weights, "drawn"), tmp_path / "own.pth")
    own = ("--heads", tmp_path / "own.pth")
    cli("pairs", pictures, *model, "--heads", "none", "--out", tmp_path / "run")
    cli("pairs", pictures, *model, *own, "--out", tmp_path / "fresh")
    no_trunk()
    assert cli("rescore", tmp_path / "run", *own, "--out", tmp_path / "two").code == 0
    assert files_of(tmp_path / "two") == files_of(tmp_path / "fresh")


def test_kept_statistics_need_no_rows(cli, finished, finished_runs, heads, tmp_path, no_trunk):
    finished("score with statistics")
    fresh = ("--heads", heads[2], "--out", tmp_path / "fresh")
    assert cli(*finished_runs.jobs["score"], *MODEL, *fresh).code == 0
    assert cli("store", "clear").code == 0
    no_trunk()
    command = ("rescore", tmp_path / "run", "--heads", heads[2], "--out", tmp_path / "two")
    outcome = cli(*command, "--no-compute", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["rows_read"] == 0
    one, two = (lpipstore.open_run(tmp_path / name) for name in ("fresh", "two"))
    assert two.manifest["from_statistics"]
    assert two.pairs.column_names == one.pairs.column_names
    expected, found = (run.pairs.column("distance").to_pylist() for run in (one, two))
    for a, b in zip(expected, found, strict=True):
        assert (a is None) == (b is None)
        assert a is None or abs(a - b) < 1e-6
    assert two.pairs.column("distance").null_count == 2
    assert np.abs(one.distances.compute() - two.distances.compute()).max() < 1e-6
    assert summary_of(tmp_path / "two")["mean"] == pytest.approx(one.summary["mean"], abs=1e-6)


def test_rows_are_read_if_that_is_asked(cli, finished, finished_runs, heads, tmp_path, files_of):
    finished("score with statistics")
    fresh = ("--heads", heads[2], "--out", tmp_path / "fresh")
    assert cli(*finished_runs.jobs["score"], *MODEL, *fresh).code == 0
    command = ("rescore", tmp_path / "run", "--heads", heads[2], "--out", tmp_path / "two")
    assert cli(*command, "--from-rows").code == 0
    assert files_of(tmp_path / "two") == files_of(tmp_path / "fresh")


def test_a_matrix_that_was_cut_short_goes_on(cli, finished, heads, tmp_path, files_of):
    finished()
    options = ("--heads", heads[0], "--heads", heads[1], "--out", tmp_path / "two")
    cli("rescore", tmp_path / "run", *options)
    before = files_of(tmp_path / "two")
    (tmp_path / "two" / "head1" / "distances.zarr" / "c" / "0" / "0").unlink()
    (tmp_path / "two" / "head1" / "summary.json").unlink()
    assert cli("rescore", tmp_path / "run", *options).code == 0
    assert files_of(tmp_path / "two") == before


def test_heads_with_one_name_get_folders_of_their_own(cli, finished, heads, tmp_path):
    finished()
    for number in (0, 1):
        (tmp_path / f"trained{number}").mkdir()
        shutil.copy(heads[number], tmp_path / f"trained{number}" / "head.pth")
    chosen = [tmp_path / f"trained{n}" / "head.pth" for n in (0, 1)]
    options = ("--heads", chosen[0], "--heads", chosen[1], "--heads", "none")
    assert cli("rescore", tmp_path / "run", *options, "--out", tmp_path / "two").code == 0
    folders = sorted(path.name for path in (tmp_path / "two").iterdir())
    assert len(folders) == 3
    for name in folders:
        run = lpipstore.open_run(tmp_path / "two" / name)
        assert name == "none" or name == f"head-{run.manifest['head_digest'][:8]}"
    twice = cli("rescore", tmp_path / "run", *options[:2], *options[:2], "--out", tmp_path / "no")
    assert (twice.code, "given twice" in twice.err) == (2, True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backbone": None}, "no text under backbone"),
        ({"backbone": "alexandria"}, "no backbone"),
        ({"size": "wide"}, "is no size"),
        ({"format": 99}, "format 99"),
        ({"trunk_dtype": "float8"}, "float8"),
        ({"resize": "nearest"}, "in another way"),
        ({"command": "train"}, "rescore takes runs of pairs"),
    ],
)
def test_manifests_that_are_wrong(cli, finished, heads, tmp_path, change, words):
    finished()
    manifest = tmp_path / "run" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **change}))
    outcome = cli("rescore", tmp_path / "run", "--heads", heads[0], "--out", tmp_path / "two")
    assert outcome.code in (1, 2)
    assert words in outcome.err


def test_a_head_of_another_backbone(cli, finished, tmp_path):
    finished()
    head = {f"lin{n}.model.1.weight": torch.ones(1, 8, 1, 1) for n in range(5)}
    torch.save(head, tmp_path / "other.pth")
    command = ("rescore", tmp_path / "run", "--heads", tmp_path / "other.pth")
    outcome = cli(*command, "--out", tmp_path / "two")
    assert (outcome.code, "channels" in outcome.err) == (2, True)
    assert not (tmp_path / "two").exists()


def test_a_damaged_table_of_images(cli, finished, heads, tmp_path):
    finished()
    images = tmp_path / "run" / "images.parquet"
    table = pyarrow.parquet.read_table(images)
    command = ("rescore", tmp_path / "run", "--heads", heads[0], "--out", tmp_path / "two")
    pyarrow.parquet.write_table(table.drop_columns(["content_hash"]), images)
    outcome = cli(*command)
    assert (outcome.code, "is damaged" in outcome.err) == (1, True)
    images.write_bytes(b"torn")
    outcome = cli(*command)
    assert (outcome.code, "is damaged" in outcome.err) == (1, True)


def test_a_list_of_equal_images_from_its_statistics(cli, pictures, heads, tmp_path):
    (pictures / "same.csv").write_text("a,b\n000.png,000.png\n001.png,001.png\n002.png,gone.png\n")
    command = ("score", pictures / "same.csv", *MODEL, "--keep-statistics")
    assert cli(*command, "--out", tmp_path / "run").code == 0
    outcome = cli("rescore", tmp_path / "run", "--heads", heads[0], "--out", tmp_path / "two")
    assert outcome.code == 0, outcome.err
    assert lpipstore.open_run(tmp_path / "two").pairs["distance"].to_pylist() == [0, 0, None]


def test_groups_are_told_by_their_mean(cli, finished, heads, tmp_path):
    finished("groups")
    command = ("rescore", tmp_path / "run", "--heads", heads[0], "--out", tmp_path / "two")
    outcome = cli(*command)
    groups = summary_of(tmp_path / "two")["groups"]
    assert f"mean {groups['mean']:.4f} of {groups['scored']} groups" in outcome.out


@pytest.mark.parametrize("kind", ["pairs", "score", "below"])
def test_failed_images_are_counted(cli, finished, heads, tmp_path, kind):
    finished(kind)
    failed = summary_of(tmp_path / "run")["failed"]
    assert failed > 0
    command = ("rescore", tmp_path / "run", "--heads", heads[0], "--out", tmp_path / "two")
    told = json.loads(cli(*command, "--json").out)
    assert [told["failed"], *(run["failed"] for run in told["runs"])] == [failed, failed]


def test_runs_lie_in_folders_of_their_own_wherever_heads_are(
    cli, finished, heads, tmp_path, monkeypatch
):
    finished()
    training = tmp_path / "training"
    (training / "sub").mkdir(parents=True)
    shutil.copy(heads[0], training / "head.pth")
    shutil.copy(heads[1], training / ".pth")
    shutil.copy(heads[1], training / "...pth")
    command = ("rescore", tmp_path / "run", "--heads", "none", "--out", tmp_path / "several")
    for here, choice in ((training, "."), (training / "sub", "..")):
        monkeypatch.chdir(here)
        outcome = cli(*command, "--heads", choice)
        assert outcome.code == 0, outcome.err
        assert {path.name for path in (tmp_path / "several").iterdir()} == {"none", "training"}
    for choice in (".pth", "...pth"):
        outcome = cli(*command, "--heads", training / choice)
        assert (outcome.code, "no name for the folder" in outcome.err) == (2, True)
    assert {path.name for path in (tmp_path / "several").iterdir()} == {"none", "training"}


@pytest.mark.parametrize("kind", ["groups", "score", "paired"])
def test_fast_lists_say_how_far_they_are_from_exact(cli, jobs, heads, tmp_path, kind):
    for name in ("fast", "exact"):
        command = (*jobs[kind], *MODEL, "--precision", name, "--out", tmp_path / name)
        outcome = cli(*command)
        assert ("fast: within" in outcome.out) == (name == "fast")
    found, exact = (
        lpipstore.open_run(tmp_path / name).pairs["distance"].drop_null().to_numpy()
        for name in ("fast", "exact")
    )
    summary = summary_of(tmp_path / "fast")
    assert summary["precision"] == "fast"
    largest = np.abs(found.astype(np.float64) - exact).max()  # one product has all pairs
    assert summary["precision_error"] == pytest.approx(largest, abs=1e-7)
    assert "precision_error" not in summary_of(tmp_path / "exact")
    command = ("rescore", tmp_path / "fast", "--heads", heads[0], "--out", tmp_path / "two")
    assert "fast: within" in cli(*command).out
    cli(*jobs[kind], *MODEL, "--precision", "fast", "--heads", heads[0], "--out", tmp_path / "new")
    assert summary_of(tmp_path / "two") == summary_of(tmp_path / "new")


def test_that_rows_are_missing_can_be_told_across_processes():
    missing = RowsMissing(f"{setting('store')} lacks rows", ["a.png", "b.png"])
    told = pickle.loads(pickle.dumps(missing))
    assert (type(told), told.message) == (RowsMissing, missing.message)
    assert told.paths == ["a.png", "b.png"]


def test_the_extractor_of_a_run_can_be_loaded_in_another_process(cli, pictures, tmp_path):
    assert cli("pairs", pictures, *MODEL, "--out", tmp_path / "run").code == 0
    run = lpipstore.open_run(tmp_path / "run")
    extractor = reopen_extractor(run, "random", torch.device("cpu"))
    spec = pickle.loads(pickle.dumps(extractor.portable()))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    expected = extractor.rows(torch.from_numpy(pixels))
    assert np.array_equal(extract_rows(spec, pixels), expected)


def test_a_refused_rescoring_leaves_no_folder(cli, draw, tmp_path):
    draw(tmp_path / "images" / "one", 9)
    images = (tmp_path / "images", "--group-by", "folder", "--store", tmp_path / "s")
    assert cli("pairs", *images, *MODEL, "--out", tmp_path / "run").code == 0
    outcome = cli(
        *("rescore", tmp_path / "run", "--heads", "none", "--store", tmp_path / "s"),
        *("--memory", "1000", "--out", tmp_path / "again"),
    )
    assert (outcome.code, "memory" in outcome.err) == (2, True)
    assert not (tmp_path / "again").exists()
