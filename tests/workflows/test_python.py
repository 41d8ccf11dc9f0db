"""The functions of the Python face do what the commands do."""

import gc
import inspect
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import squareform

import lpipstore
from lpipstore.cache.errors import LpipstoreError, UsageError
from lpipstore.workflows.session.keywords import Options

MODEL = {"backbone": "squeeze", "weights": "random"}
PROMPT = ("--backbone", "squeeze", "--weights", "random")


@pytest.fixture(autouse=True)
def own_store(monkeypatch, tmp_path):
    monkeypatch.setenv("LPIPSTORE_STORE", str(tmp_path / "store"))


@pytest.fixture
def arrays(pictures):
    return [np.asarray(Image.open(path)) for path in sorted(pictures.iterdir())]


def matrix_of(run) -> np.ndarray:
    return np.asarray(run.distances)


def test_pairs_are_those_of_the_command(cli, pictures, tmp_path):
    assert cli("pairs", pictures, *PROMPT, "--out", tmp_path / "prompt").code == 0
    run = lpipstore.pairs(pictures, out=tmp_path / "python", **MODEL)
    assert run.summary["forwards"] == 0
    prompt = lpipstore.open_run(tmp_path / "prompt")
    assert np.array_equal(matrix_of(run), matrix_of(prompt))
    assert run.images.equals(prompt.images)


def test_what_is_given_may_be_mixed(pictures, arrays):
    whole = lpipstore.pairs(pictures, **MODEL)
    tensors = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    files = sorted(map(str, pictures.iterdir()))
    for mixed in (
        [*files[:3], *arrays[3:]],
        [arrays[0], files[1], tensors[2:5], *map(Image.fromarray, arrays[5:])],
        (image for image in arrays),
        np.stack(arrays),
        tensors,
    ):
        run = lpipstore.pairs(mixed, **MODEL)
        assert np.array_equal(matrix_of(run), matrix_of(whole))


def test_an_array_and_a_pillow_image_share_a_row(arrays, tmp_path):
    lpipstore.extract(arrays, **MODEL)
    counts = lpipstore.extract(list(map(Image.fromarray, arrays)), **MODEL)
    assert (counts["forwards"], counts["hits"]) == (0, 8)


def test_results_without_a_folder_go_with_the_run(pictures):
    run = lpipstore.pairs(pictures, **MODEL)
    path = run.path
    assert path.exists()
    del run
    gc.collect()
    assert not path.exists()


def test_nothing_is_left_of_a_run_that_failed(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    with pytest.raises(UsageError):
        lpipstore.pairs(pictures, backbone="no such")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_the_condensed_form_is_that_of_scipy(pictures):
    run = lpipstore.pairs(pictures, **MODEL)
    assert np.array_equal(squareform(run.condensed()), matrix_of(run))
    crossed = lpipstore.compare(pictures, pictures, **MODEL)
    with pytest.raises(UsageError, match="condensed"):
        crossed.condensed()


def test_a_run_shows_what_it_is(pictures):
    run = lpipstore.pairs(pictures, **MODEL)
    assert repr(run).startswith("<Run of pairs: 8 images, 28 pairs, mean 0.")
    assert str(run.path) in repr(run)


def test_compare_in_memory_and_paired_by_number(arrays):
    crossed = lpipstore.compare(arrays[:3], arrays[3:], **MODEL)
    assert crossed.distances.shape == (3, 5)
    paired = lpipstore.compare(arrays[:4], arrays[4:], paired=True, **MODEL)
    assert paired.pairs["name"].to_pylist() == ["0", "1", "2", "3"]
    expected = matrix_of(lpipstore.compare(arrays[:4], arrays[4:], **MODEL)).diagonal()
    assert np.abs(np.array(paired.pairs["distance"]) - expected).max() < 1e-6
    with pytest.raises(UsageError, match="paired=True"):
        lpipstore.compare(arrays[:4], arrays[4:], statistics=True, **MODEL)


def test_score_takes_pairs_and_tables(pictures, arrays, tmp_path):
    (tmp_path / "list.csv").write_text("path_a,path_b\n000.png,001.png\n001.png,002.png\n")
    table = lpipstore.score(tmp_path / "list.csv", images=pictures, **MODEL)
    listed = lpipstore.score(
        [(pictures / "000.png", arrays[1]), (arrays[1], Image.fromarray(arrays[2]))], **MODEL
    )
    assert table.pairs["distance"].equals(listed.pairs["distance"])
    assert listed.pairs["path_j"].to_pylist()[0] == "python://pairs/0"
    for wrong in ([], [(1, 2)], ["ab"], [(arrays[0],)]):
        with pytest.raises(UsageError):
            lpipstore.score(wrong, **MODEL)


def test_close_pairs_and_neighbours_are_those_of_the_matrix(pictures):
    matrix = matrix_of(lpipstore.pairs(pictures, **MODEL))
    threshold = float(np.median(matrix[np.triu_indices(8, 1)]))
    close = lpipstore.below(pictures, threshold, **MODEL)
    assert close.pairs.num_rows == (matrix[np.triu_indices(8, 1)] < threshold).sum()
    near = lpipstore.nearest(pictures, 3, **MODEL).pairs.to_pylist()
    for line in near:
        order = np.argsort(matrix[line["i"]] + 9 * np.eye(8)[line["i"]])
        assert order[line["rank"] - 1] == line["j"]


def test_groups_are_folders_or_named(arrays, draw, tmp_path):
    for name, seed in (("one", 1), ("two", 2)):
        draw(tmp_path / "sets" / name, 3, seed=seed)
    folders = lpipstore.groups(tmp_path / "sets", **MODEL)
    held = {
        name: [Image.open(path) for path in sorted((tmp_path / "sets" / name).iterdir())]
        for name in ("one", "two")
    }
    named = lpipstore.groups(held, **MODEL)
    assert named.groups["group"].to_pylist() == ["one", "two"]
    assert named.groups["mean"].equals(folders.groups["mean"])


def test_rescore_runs_no_backbone(arrays):
    run = lpipstore.pairs(arrays, **MODEL)
    plain = lpipstore.rescore(run, "none")
    assert plain.summary["forwards"] == 0
    expected = lpipstore.pairs(arrays, heads="none", **MODEL)
    assert np.array_equal(matrix_of(plain), matrix_of(expected))


def test_lost_rows_of_images_in_memory_say_so(arrays, tmp_path):
    run = lpipstore.pairs(arrays, **MODEL)
    with pytest.raises(LpipstoreError, match="memory of a program"):
        lpipstore.rescore(run, "none", store=tmp_path / "other")


def test_a_trained_head_rescores(pictures, tmp_path):
    lines = ["ref,p0,p1,judge", *["000.png,001.png,002.png,1", "003.png,004.png,005.png,0"] * 10]
    (pictures / "judged.csv").write_text("\n".join(lines))
    options = {"epochs": 3, "held_out": 0.2}
    trained = lpipstore.train(pictures / "judged.csv", train_options=options, **MODEL)
    run = lpipstore.pairs(pictures, **MODEL)
    assert not np.array_equal(matrix_of(lpipstore.rescore(run, trained)), matrix_of(run))
    table = lpipstore.evaluate(
        pictures / "judged.csv", [trained], metrics=["baseline", "SSIM"], **MODEL
    )
    assert table.column_names[:4] == ["kind", "set", "metric", "score"]
    with pytest.raises(UsageError, match="no option epoch of a training"):
        lpipstore.train(pictures / "judged.csv", train_options={"epoch": 3}, **MODEL)


def test_messages_go_to_the_logger(pictures, caplog, capsys):
    with caplog.at_level(logging.INFO, "lpipstore"):
        lpipstore.pairs(pictures, **MODEL)
    assert any("untrained" in record.message for record in caplog.records)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_programs_without_a_logger_hear_nothing(pictures):
    code = f"import lpipstore; lpipstore.pairs({str(pictures)!r}, **{MODEL!r})"
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (printed.stdout, printed.stderr) == ("", "")


def test_the_same_folder_goes_on(pictures, tmp_path):
    first = lpipstore.pairs(pictures, out=tmp_path / "run", **MODEL)
    again = lpipstore.pairs(pictures, out=tmp_path / "run", **MODEL)
    assert again.summary["mean"] == first.summary["mean"]
    with pytest.raises(UsageError, match="different run"):
        lpipstore.pairs(pictures, out=tmp_path / "run", heads="none", **MODEL)


def test_an_open_store_is_shared(pictures, tmp_path):
    with lpipstore.FeatureStore(tmp_path / "mine") as store:
        lpipstore.pairs(pictures, store=store, **MODEL)
        assert store.stat().rows == 8


def test_every_function_has_the_options_and_an_example():
    functions = "pairs", "compare", "score", "nearest", "below", "groups", "distance_matrix"
    for name in (*functions, "neighbours"):
        function = getattr(lpipstore, name)
        assert ">>>" in inspect.getdoc(function)
        with pytest.raises(TypeError, match="no keyword argument 'colour'"):
            function([np.zeros((8, 8, 3), np.uint8)] * 2, *_more(name), colour=1)
    for name in ("rescore", "extract", "train", "evaluate"):
        assert ">>>" in inspect.getdoc(getattr(lpipstore, name))


def _more(name: str) -> tuple:
    image = np.zeros((8, 8, 3), np.uint8)
    return {"compare": ([image],), "neighbours": (image,), "below": (0.1,)}.get(name, ())


def test_every_setting_of_the_prompt_is_a_keyword():
    from dataclasses import fields

    from lpipstore.workflows.session.settings import Settings

    known = {"version" if n == "lpips_version" else n for n in (f.name for f in fields(Settings))}
    keywords = set(Options.__annotations__) | {"heads"}
    assert known - {"dry_run", "quiet", "given"} == keywords - {"progress"}


def test_python_m_is_the_command():
    command = [sys.executable, "-m", "lpipstore", "--version"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == f"lpipstore {lpipstore.__version__}"


def test_pandas_is_optional(pictures, monkeypatch):
    run = lpipstore.pairs(pictures, **MODEL)
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(LpipstoreError, match="pip install pandas"):
        run.to_pandas()


def test_frames_of_pandas(pictures):
    pytest.importorskip("pandas")
    frame = lpipstore.pairs(pictures, **MODEL).to_pandas()
    assert frame.shape == (8, 8)
    assert frame.index[0].endswith("000.png")
    crossed = lpipstore.compare(pictures, sorted(pictures.iterdir())[:3], **MODEL).to_pandas()
    assert crossed.shape == (8, 3)
    assert "distance" in lpipstore.below(pictures, 9.0, **MODEL).to_pandas().columns


def test_tables_of_images_read_back(pictures, tmp_path):
    run = lpipstore.pairs(pictures, out=tmp_path / "run", **MODEL)
    assert pq.read_table(tmp_path / "run" / "images.parquet").equals(run.images)


def test_a_run_has_its_figures(pictures):
    run = lpipstore.pairs(pictures, **MODEL)
    assert (run.kind, run.forwards) == ("pairs", 8)
    for name in ("mean", "std", "stderr"):
        assert getattr(run, name) == run.summary[name]
    none = lpipstore.below(pictures, 0.0, **MODEL)
    assert (none.mean, none.std, none.stderr, none.forwards) == (None, None, None, 0)


def test_the_kind_of_a_run_is_its_function(arrays):
    made = {
        "groups": lpipstore.groups({"one": arrays[:4], "two": arrays[4:]}, **MODEL),
        "below": lpipstore.below(arrays, 9.0, **MODEL),
        "nearest": lpipstore.nearest(arrays, 1, below=9.0, **MODEL),
        "compare": lpipstore.compare(arrays[:4], arrays[4:], paired=True, **MODEL),
        "score": lpipstore.score([(arrays[0], arrays[1])], **MODEL),
    }
    for kind, run in made.items():
        assert run.kind == lpipstore.rescore(run, "none", **MODEL).kind == kind
        assert repr(run).startswith(f"<Run of {kind}: ")
        assert "untrained weights" in repr(run)
    assert "2 images, 1 pair, " in repr(made["score"])
    assert "2 groups" in repr(made["groups"])
    assert "28 listed" in repr(made["below"])


def test_distances_keep_a_run_without_a_folder(arrays):
    distances = lpipstore.pairs(arrays, **MODEL).distances
    gc.collect()
    assert np.array_equal(distances.compute(), matrix_of(lpipstore.pairs(arrays, **MODEL)))
    assert distances[2:4, 0].compute().dtype == np.float32


def test_a_lost_chunk_of_distances_is_an_error(arrays):
    run = lpipstore.pairs(arrays, **MODEL)
    (chunk,) = (path for path in (run.path / "distances.zarr" / "c").rglob("*") if path.is_file())
    chunk.unlink()
    with pytest.raises(LpipstoreError, match="lacks distances"):
        run.distances.compute()
    with pytest.raises(LpipstoreError, match="lacks distances"):
        run.condensed()


def test_numbers_of_numpy_are_numbers(arrays):
    close = lpipstore.below(arrays, np.float32(9), **MODEL)
    assert close.manifest["below"] == 9
    assert lpipstore.nearest(arrays, np.int64(2), **MODEL).pairs.num_rows == 16
    for wrong in ("3", 2.5, 0):
        with pytest.raises(UsageError, match="k takes a whole number"):
            lpipstore.nearest(arrays, wrong, **MODEL)
    for wrong in ("0.1", -1.0, float("nan")):
        with pytest.raises(UsageError, match="below takes a distance"):
            lpipstore.below(arrays, wrong, **MODEL)


def test_a_mapping_of_groups_is_of_images_in_memory(pictures, arrays):
    with pytest.raises(UsageError, match="give a list of folders"):
        lpipstore.groups({"real": pictures, "made": arrays}, **MODEL)
    with pytest.raises(UsageError, match="empty mapping"):
        lpipstore.groups({}, **MODEL)


def test_rescore_takes_the_options_of_the_run(arrays):
    run = lpipstore.pairs(arrays, size=(24, 32), **MODEL)
    for same in ({}, {"size": "24x32"}, {"size": "auto", "version": "0.1", "row_dtype": "uint16"}):
        assert lpipstore.rescore(run, "none", **MODEL, **same).forwards == 0
    for other in ({"size": 16}, {"version": "0.0"}, {"backbone": "alex"}):
        with pytest.raises(UsageError, match=f"made with {next(iter(other))}"):
            lpipstore.rescore(run, "none", **other)


def test_train_finds_images_and_says_where_its_options_go(pictures, tmp_path):
    lines = ["ref,p0,p1,judge", *["000.png,001.png,002.png,1", "003.png,004.png,005.png,0"] * 10]
    (tmp_path / "judged.csv").write_text("\n".join(lines))
    short = {"epochs": 2, "held_out": 0.2}
    one = lpipstore.train(tmp_path / "judged.csv", images=pictures, train_options=short, **MODEL)
    within = {**short, "images": str(pictures)}
    two = lpipstore.train(tmp_path / "judged.csv", train_options=within, **MODEL)
    assert (one.path / "head.pth").read_bytes() == (two.path / "head.pth").read_bytes()
    with pytest.raises(TypeError, match="train_options={'epochs'"):
        lpipstore.train(tmp_path / "judged.csv", epochs=2, **MODEL)


def test_a_dataset_is_taken_everywhere(pictures):
    datasets = pytest.importorskip("datasets")
    files = sorted(map(str, pictures.iterdir()))
    images = datasets.Dataset.from_dict({"image": files}).cast_column("image", datasets.Image())
    whole = lpipstore.pairs(pictures, **MODEL)
    run = lpipstore.pairs(images, **MODEL)
    assert np.array_equal(matrix_of(run), matrix_of(whole))
    assert run.forwards == 0  # the same bytes
    crossed = lpipstore.compare(images.select([1, 2]), pictures, **MODEL)
    assert np.abs(matrix_of(crossed) - matrix_of(whole)[1:3]).max() < 1e-6
    with pytest.raises(UsageError, match="choose one of its splits, train"):
        lpipstore.pairs(datasets.DatasetDict(train=images), **MODEL)


def test_batches_are_taken_as_they_come(arrays):
    loader = torch.utils.data.DataLoader(
        [torch.tensor(array).permute(2, 0, 1) for array in arrays], batch_size=3
    )
    whole = matrix_of(lpipstore.pairs(arrays, **MODEL))
    batches = (np.stack(arrays[start : start + 3]) for start in (0, 3, 6))
    for given in (loader, batches):
        run = lpipstore.pairs(given, **MODEL)
        assert np.array_equal(matrix_of(run), whole)
        assert run.images["path"].to_pylist() == [f"python://images/{n}" for n in range(8)]


def test_arrays_of_several_sizes_come_to_one(arrays, caplog):
    mixed = [arrays[0], arrays[1][:24], arrays[2]]
    with caplog.at_level(logging.INFO, "lpipstore"):
        run = lpipstore.pairs(mixed, size="auto", **MODEL)
    assert run.manifest["size"] == "224x224"
    assert any("224" in record.message for record in caplog.records)
    with pytest.raises(LpipstoreError, match="size"):
        lpipstore.pairs(mixed, size="native", **MODEL)
    assert lpipstore.pairs(mixed, size=(24, 32), **MODEL).manifest["size"] == "24x32"


@pytest.mark.parametrize("wrong", [1, (1, 0), (0, float("nan")), "0,1,2", (0,)])
def test_a_wrong_range_is_named(arrays, wrong):
    with pytest.raises(UsageError, match="value_range"):
        lpipstore.pairs(np.stack(arrays) / 255, value_range=wrong, **MODEL)


def test_values_beyond_the_range_are_named(arrays):
    for given in ({}, {"value_range": (0, 0.5)}):
        with pytest.raises(UsageError, match="value_range"):
            lpipstore.pairs(np.stack(arrays) / 255, **given, **MODEL)


def test_progress_is_drawn_on_stderr_alone(pictures, capsys):
    run = lpipstore.pairs(pictures, progress=True, **MODEL)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "images 8" in printed.err
    assert run.forwards == 8


def test_threads_share_a_store(pictures, arrays):
    whole = matrix_of(lpipstore.pairs(pictures, **MODEL))
    order = [np.roll(np.arange(8), shift) for shift in range(4)]
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda o: lpipstore.pairs([arrays[n] for n in o], **MODEL), order))
    for run, numbers in zip(runs, order, strict=True):
        assert np.abs(matrix_of(run) - whole[np.ix_(numbers, numbers)]).max() < 1e-6
