"""``compare --top-k`` and ``--below``: what is listed, how it is told, and how it goes on."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lpipstore
from lpipstore.cache.errors import UsageError
from lpipstore.pipeline.backbones.load import load_backbone
from lpipstore.pipeline.distances.heads import make_head, save_head

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")
KEYWORDS = {"backbone": "squeeze", "weights": "random", "workers": 0}


@pytest.fixture
def folders(tmp_path, draw):
    """Nine generated images and twelve of training, of which three were copied, one exactly."""
    generated, training = tmp_path / "generated", tmp_path / "training"
    draw(generated, 6)
    draw(training, 12, seed=1)
    random = np.random.default_rng(0)
    for number, strength in ((2, 1), (7, 4)):
        pixels = np.asarray(Image.open(training / f"{number:03}.png")).astype(int)
        noisy = pixels + random.integers(-strength, strength + 1, pixels.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(generated / f"like{number}.png")
    shutil.copy(training / "005.png", generated / "twin.png")
    return generated, training


def summary_of(outcome):
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def dense(cli, folders, tmp_path, *options):
    summary_of(cli("compare", *folders, *MODEL, *options, "--out", tmp_path / "dense", "--json"))
    return lpipstore.open_run(tmp_path / "dense").distances.compute()


@pytest.mark.parametrize("count", [1, 4, 50])
def test_the_nearest_are_those_of_the_matrix(cli, folders, tmp_path, count):
    matrix = dense(cli, folders, tmp_path)
    most = min(count, 12)
    order = np.argsort(matrix, axis=1, kind="stable")[:, :most]
    command = ("compare", *folders, *MODEL, "--top-k", count, "--out", tmp_path / "run", "--json")
    summary = summary_of(cli(*command))
    run = lpipstore.open_run(tmp_path / "run")
    table = run.pairs
    assert table.column_names == ["i", "j", "path_i", "path_j", "distance", "rank"]
    assert (summary["pairs"], summary["listed"], summary["images"]) == (9 * 12, 9 * most, 21)
    assert (summary["unique"], summary["forwards"]) == (20, 0)
    assert summary["arithmetic"] == summary["arithmetic_of_all"]  # one product, no trials
    assert np.array_equal(table["i"].to_numpy().reshape(9, most)[:, 0], np.arange(9))
    assert np.array_equal(table["j"].to_numpy().reshape(9, most), order)
    distances = np.take_along_axis(matrix, order, 1)
    assert np.array_equal(table["distance"].to_numpy().reshape(9, most), distances)
    assert run.manifest["top_k"] == count
    assert run.kind == "compare"


def test_numbers_and_paths_are_those_of_the_table_of_images(cli, folders, tmp_path):
    summary_of(cli("compare", *folders, *MODEL, "--top-k", "2", "--out", tmp_path / "r", "--json"))
    run = lpipstore.open_run(tmp_path / "r")
    images = run.images.to_pylist()
    assert [image["side"] for image in images] == ["first"] * 9 + ["second"] * 12
    paths = {(image["side"], image["index"]): image["path"] for image in images}
    for line in run.pairs.to_pylist():
        assert paths["first", line["i"]] == line["path_i"]
        assert paths["second", line["j"]] == line["path_j"]
    closest = {
        Path(line["path_i"]).stem: line for line in run.pairs.to_pylist() if line["rank"] < 2
    }
    assert Path(closest["twin"]["path_j"]).name == "005.png"
    assert closest["twin"]["distance"] == 0
    assert Path(closest["like7"]["path_j"]).name == "007.png"


def test_the_list_is_that_of_the_matrix_sorted_by_distance(cli, folders, tmp_path):
    matrix = dense(cli, folders, tmp_path)
    below = float(np.sort(matrix, None)[5])
    command = ("compare", *folders, *MODEL, "--below", below, "--out", tmp_path / "run", "--json")
    summary = summary_of(cli(*command))
    table = lpipstore.open_run(tmp_path / "run").pairs
    i, j = np.nonzero(matrix.astype(np.float64) < below)
    order = np.lexsort((j, i, matrix[i, j]))
    assert list(zip(table["i"].to_pylist(), table["j"].to_pylist(), strict=True)) == list(
        zip(i[order].tolist(), j[order].tolist(), strict=True)
    )
    assert np.allclose(table["distance"], matrix[i, j][order], rtol=0, atol=1e-7)
    assert summary["listed"] == 5
    assert table["distance"][0].as_py() == 0
    assert lpipstore.open_run(tmp_path / "run").kind == "compare"
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "images.parquet",
        "manifest.json",
        "pairs.parquet",
        "summary.json",
    ]


def test_both_questions_at_once(cli, folders, tmp_path):
    matrix = dense(cli, folders, tmp_path)
    below = float(np.median(np.sort(matrix, axis=1)[:, 1]))
    command = ("compare", *folders, *MODEL, "--top-k", "3", "--below", below)
    summary_of(cli(*command, "--out", tmp_path / "run", "--json"))
    table = lpipstore.open_run(tmp_path / "run").pairs.to_pydict()
    order = np.argsort(matrix, axis=1, kind="stable")[:, :3]
    wanted = [(i, j) for i in range(9) for j in order[i] if matrix[i, j] < below]
    assert 9 <= len(wanted) < 27
    assert list(zip(table["i"], table["j"], strict=True)) == wanted


def test_broken_images_of_either_side_are_left_out(cli, folders, tmp_path):
    whole = (folders[0] / "000.png").read_bytes()
    for folder, name in zip(folders, ("000a.png", "003a.png"), strict=True):
        (folder / name).write_bytes(whole[: len(whole) // 2])
    matrix = dense(cli, folders, tmp_path)
    for question in (("--top-k", "12"), ("--below", "1e6")):
        out = tmp_path / question[0]
        outcome = cli("compare", *folders, *MODEL, *question, "--out", out, "--json")
        summary = summary_of(outcome)
        assert (summary["images"], summary["failed"], summary["listed"]) == (21, 2, 108)
        assert "000a.png is left out" in outcome.err
        assert "003a.png is left out" in outcome.err
        run = lpipstore.open_run(out)
        paths = {
            (image["side"], image["index"]): image["path"]
            for image in run.images.to_pylist()
            if image["status"] == "ok"
        }
        for line in run.pairs.to_pylist():
            assert abs(line["distance"] - matrix[line["i"], line["j"]]) <= 1e-7
            assert paths["second", line["j"]] == line["path_j"]
    strict = cli("compare", *folders, *MODEL, "--top-k", "1", "--strict", "--out", tmp_path / "s")
    assert (strict.code, "2 image(s) cannot be used" in strict.err) == (1, True)


def test_a_side_without_usable_images_is_refused(cli, folders, tmp_path):
    empty = tmp_path / "broken"
    empty.mkdir()
    (empty / "a.png").write_bytes(b"\x89PNG broken")
    for sides in ((empty, folders[1]), (folders[0], empty)):
        outcome = cli("compare", *sides, *MODEL, "--top-k", "1", "--out", tmp_path / "run")
        assert (outcome.code, "none of 1 files" in outcome.err) == (1, True), outcome.err


@pytest.mark.parametrize("question", [("--top-k", "3"), ("--below", "0.05")])
def test_memory_workers_and_a_small_store_change_no_byte(cli, folders, tmp_path, question):
    command = ("compare", *folders, "--backbone", "squeeze", "--weights", "random", *question)
    for number, more in enumerate(
        [
            (),
            ("--workers", "2", "--store", tmp_path / "s2"),
            ("--store", tmp_path / "small", "--store-limit", "1.2MB"),
            ("--memory", "2MB"),
        ]
    ):
        summary_of(cli(*command, *more, "--out", tmp_path / f"run{number}", "--json"))
    tables = [(tmp_path / f"run{number}" / "pairs.parquet").read_bytes() for number in range(3)]
    assert tables[1:] == tables[:1] * 2
    # Without memory for the matrix bounds find the same, and the file tells of other work
    plenty, little = (lpipstore.open_run(tmp_path / name).pairs for name in ("run0", "run3"))
    assert plenty.equals(little)
    outcome = cli(*command, "--memory", "1MB", "--out", tmp_path / "x")
    assert (outcome.code, "--memory is too small" in outcome.err) == (2, True)


def test_heads_below_zero_are_told_of_and_answered(cli, folders, tmp_path):
    random = np.random.default_rng(0)
    channels = load_backbone("squeeze", weights="random").channels
    weights = [(random.random(c) - 0.3).astype(np.float32) for c in channels]
    save_head(make_head(weights, "signed"), tmp_path / "signed.pth")
    options = ("--heads", tmp_path / "signed.pth")
    matrix = dense(cli, folders, tmp_path, *options)
    below = float(np.median(matrix))
    for question, wanted in (
        (("--below", below), matrix.astype(np.float64) < below),
        (("--top-k", "2"), matrix <= np.sort(matrix, axis=1)[:, 1:2]),
    ):
        out = tmp_path / question[0]
        outcome = cli("compare", *folders, *MODEL, *options, *question, "--out", out, "--json")
        assert outcome.err.count("weights below 0") == 1
        assert summary_of(outcome)["left"] == {}
        table = lpipstore.open_run(out).pairs.to_pydict()
        found = sorted(map(list, zip(table["i"], table["j"], strict=True)))
        assert found == np.argwhere(wanted).tolist()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--top-k", "0"), "--top-k takes a number from 1 on"),
        (("--below", "nan"), "--below takes a distance"),
        (("--top-k", "2", "--paired"), "leave out --paired"),
        (("--below", "0.1", "--precision", "fast"), "are exact: leave out --precision fast"),
        (("--top-k", "2", "--match", "stem"), "give --paired, too"),
    ],
)
def test_questions_that_cannot_be(cli, folders, tmp_path, options, words):
    outcome = cli("compare", *folders, *MODEL, *options, "--out", tmp_path / "run")
    assert (outcome.code, words in " ".join(outcome.err.split())) == (2, True), outcome.err
    assert not (tmp_path / "run").exists()


def test_another_question_is_another_run(cli, folders, tmp_path):
    command = ("compare", *folders, *MODEL, "--out", tmp_path / "run")
    assert cli(*command, "--top-k", "2").code == 0
    for options, words in ((("--top-k", "3"), "top_k: 2 there, 3 now"), ((), "top_k: 2 there")):
        outcome = cli(*command, *options)
        assert (outcome.code, words in " ".join(outcome.err.split())) == (2, True), outcome.err


def test_what_takes_one_collection_refuses(cli, folders, tmp_path):
    assert cli("compare", *folders, *MODEL, "--below", "0.1", "--out", tmp_path / "run").code == 0
    outcome = cli("duplicates", tmp_path / "run")
    assert (outcome.code, "close pairs of one collection" in outcome.err) == (2, True)
    outcome = cli("pairs", *folders, "--update", tmp_path / "run", "--out", tmp_path / "new")
    assert (outcome.code, "is not a run of all pairs" in outcome.err) == (2, True)
    with pytest.raises(UsageError, match="has no"):
        _ = lpipstore.open_run(tmp_path / "run").distances


def test_a_dry_run_tells_of_both_sides(cli, folders, tmp_path):
    outcome = cli("compare", *folders, *MODEL, "--top-k", "2", "--dry-run", "--out", tmp_path / "r")
    assert outcome.code == 0, outcome.err
    assert "pairs       108 in 1 tile" in outcome.out
    assert "at most" in outcome.out
    assert not (tmp_path / "r").exists()


def test_python_lists_the_same(cli, folders, tmp_path, monkeypatch):
    monkeypatch.setenv("LPIPSTORE_STORE", str(tmp_path / "store"))
    for question, keywords in (
        (("--top-k", "2"), {"k": 2}),
        (("--below", "0.1"), {"below": 0.1}),
        (("--top-k", "2", "--below", "0.1"), {"k": 2, "below": 0.1}),
    ):
        out = tmp_path / "-".join(question)
        summary_of(cli("compare", *folders, *MODEL, *question, "--out", out, "--json"))
        run = lpipstore.compare(*folders, **keywords, **KEYWORDS)
        assert run.pairs.equals(lpipstore.open_run(out).pairs)
        assert run.kind == "compare"
    for wrong, words in (
        ({"k": 2, "paired": True}, "leave out paired=True"),
        ({"k": 1.5}, "k takes a whole number"),
        ({"below": -1}, "below takes a distance"),
    ):
        with pytest.raises(UsageError, match=words):
            lpipstore.compare(*folders, **wrong, **KEYWORDS)


def test_pictures_in_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("LPIPSTORE_STORE", str(tmp_path / "store"))
    pixels = torch.randint(0, 256, (9, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    pixels = pixels.to(torch.uint8)
    run = lpipstore.compare(pixels[:4], pixels[2:], k=1, **KEYWORDS)
    assert run.pairs["j"].to_pylist()[2:] == [0, 1]
    assert run.pairs["distance"].to_pylist()[2:] == [0, 0]
    assert run.pairs["path_j"][2].as_py() == "python://second/0"


KILLED_AT_PART = """
import os, signal
from lpipstore.pipeline.search.results import SearchParts
write = SearchParts.write
def write_and_die(*given):
    write(*given)
    os.kill(os.getpid(), signal.SIGKILL)
SearchParts.write = write_and_die
from lpipstore.workflows.cli.app import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("question", "part"),
    [
        (("--below", "0.001"), "0"),  # by bounds
        (("--below", "0.03"), "matrix"),
        (("--top-k", "5"), "tiles"),  # by the matrix
        (("--top-k", "5", "--below", "0.001"), "nearest"),  # by bounds
    ],
)
def test_a_killed_search_goes_on_and_ends_in_the_same_bytes(tmp_path, draw, question, part):
    """The sides share a block, and the second has copies of some images of the first."""
    first, second = tmp_path / "first", tmp_path / "second"
    draw(first, 300)
    draw(second, 520, seed=1)
    for number in range(0, 300, 30):
        shutil.copy(first / f"{number:03}.png", second / f"copy{number}.png")

    def words(name):
        command = ("compare", first, second, *MODEL, *question, "--store", tmp_path / "store")
        return [str(word) for word in (*command, "--out", tmp_path / name)]

    program = str(Path(sys.executable).with_name("lpipstore"))
    subprocess.run([program, *words("one")], check=True, timeout=240, capture_output=True)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_AT_PART, *words("two")],
        check=False,
        timeout=240,
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    names = [path.name.partition("-")[2] for path in (tmp_path / "two" / "parts").iterdir()]
    assert names == [f"{part}.npz"]
    subprocess.run([program, *words("two")], check=True, timeout=240, capture_output=True)
    tables = [(tmp_path / name / "pairs.parquet").read_bytes() for name in ("one", "two")]
    assert tables[0] == tables[1]
    assert not (tmp_path / "two" / "parts").exists()
    pairs = lpipstore.open_run(tmp_path / "one").pairs
    assert pairs.num_rows >= 10
    assert (pairs["distance"].to_numpy() == 0).sum() == 10
