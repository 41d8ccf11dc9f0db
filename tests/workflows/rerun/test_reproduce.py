"""A run made again from its manifest."""

import json
import os

import numpy as np
import pytest
import torch
import torchvision

import lpipstore
from lpipstore.pipeline.distances.heads import make_head, save_head

MODEL = ("--backbone", "squeeze", "--weights", "random", "--workers", "0")
TIMES = {"seconds", "hits", "forwards", "rows_read"}
CHANNELS = (64, 128, 256, 384, 384, 512, 512)


def own_head(path):
    """Write a head, under which distances of the pictures lie between 0.7 and 1.1."""
    random = np.random.default_rng(0)
    save_head(make_head([random.random(count) for count in CHANNELS], "own"), path)


def summary_of(folder):
    summary = lpipstore.open_run(folder).summary
    return {name: value for name, value in summary.items() if name not in TIMES}


def manifest_of(folder):
    manifest = lpipstore.open_run(folder).manifest
    return {name: value for name, value in manifest.items() if name not in ("folder", "head")}


@pytest.mark.parametrize("kind", ["plain", "grouped", "own head"])
def test_a_run_made_again_is_the_same(cli, pictures, tmp_path, monkeypatch, draw, kind, files_of):
    draw(pictures / "sub", 3, seed=3)
    (pictures / "broken.png").write_bytes(b"")
    own_head(tmp_path / "own.pth")
    more = {
        "plain": ("--size", "40", "--row-dtype", "float32"),
        "grouped": ("--group-by", "folder"),
        "own head": ("--heads", "own.pth", "--lpips-version", "0.0"),
    }[kind]
    monkeypatch.chdir(tmp_path)
    assert cli("pairs", "pictures", *MODEL, *more, "--out", "run").code == 0
    draw(pictures, 12)  # new images take no part, the others stay as they are
    monkeypatch.chdir(os.path.sep)
    again = ("--from", tmp_path / "run" / "manifest.json", "--store", tmp_path / "store2")
    outcome = cli("pairs", *again, "--out", tmp_path / "again")
    assert outcome.code == 0, outcome.err
    assert "last digits" not in outcome.err
    one, two = (tmp_path / name for name in ("run", "again"))
    assert manifest_of(one) == manifest_of(two)
    assert files_of(one / "distances.zarr") == files_of(two / "distances.zarr")
    if kind == "grouped":
        tables = [lpipstore.open_run(path).groups for path in (one, two)]
        assert tables[0].drop_columns(["group"]).equals(tables[1].drop_columns(["group"]))


def test_a_default_that_was_given_contradicts(cli, finished, tmp_path):
    finished()
    given = ("--backbone", "alex", "contradicts --from"), ("--weights", "imagenet", "weights")
    for *option, words in given:
        outcome = cli("pairs", "--from", tmp_path / "run", *option, "--out", tmp_path / "again")
        assert (outcome.code != 0, words in outcome.err) == (True, True), outcome.err
    outcome = cli(
        "pairs", "--from", tmp_path / "run", "--backbone", "squeeze", "--out", tmp_path / "again"
    )
    assert outcome.code == 0, outcome.err


def test_images_that_changed_are_named(cli, pictures, tmp_path, draw):
    assert cli("pairs", pictures, *MODEL, "--out", tmp_path / "run").code == 0
    (pictures / "002.png").unlink()
    (new,) = draw(tmp_path / "other", 1, seed=9)
    new.replace(pictures / "005.png")
    outcome = cli("pairs", "--from", tmp_path / "run", "--out", tmp_path / "again")
    assert outcome.code == 1
    assert "2 of 8 images are not what they were" in outcome.err
    assert "002.png (cannot be read: No such file" in outcome.err
    assert "005.png (other content)" in outcome.err
    assert "003.png" not in outcome.err
    assert not (tmp_path / "again").exists()


def test_other_versions_are_told(cli, finished, tmp_path):
    finished()
    path = tmp_path / "run" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(manifest))
    outcome = cli("pairs", "--from", path, "--out", tmp_path / "again")
    assert outcome.code == 0
    assert "was made with torch 1.0 (now " in outcome.err


def test_a_head_that_is_gone(cli, pictures, tmp_path):
    own_head(tmp_path / "own.pth")
    head = ("--heads", tmp_path / "own.pth")
    assert cli("pairs", pictures, *MODEL, *head, "--out", tmp_path / "run").code == 0
    (tmp_path / "own.pth").rename(tmp_path / "moved.pth")
    command = ("pairs", "--from", tmp_path / "run", "--out", tmp_path / "again")
    outcome = cli(*command)
    assert (outcome.code, "the head is another" in outcome.err) == (1, True)
    assert cli(*command, "--heads", tmp_path / "moved.pth").code == 0


def test_weights_of_a_file_are_found_again(cli, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(torchvision.models.squeezenet1_1().features.state_dict(prefix="features."), "w.pth")
    model = ("--backbone", "squeeze", "--weights", "w.pth", "--workers", "0")
    assert cli("pairs", pictures, *model, "--out", "run").code == 0
    monkeypatch.chdir(os.path.sep)
    command = ("pairs", "--from", tmp_path / "run", "--workers", "0")
    outcome = cli(*command, "--out", tmp_path / "again", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["forwards"] == 0
    (tmp_path / "w.pth").unlink()
    outcome = cli(*command, "--out", tmp_path / "third")
    assert outcome.code != 0
    assert "weights" in outcome.err


LISTS = ["below", "top-k", "both", "across", "below across"]
KINDS = ["pairs", "groups", "compare", "paired", "score", *LISTS]


@pytest.mark.parametrize("kind", [*KINDS, "paired with statistics", "score with statistics"])
def test_runs_of_all_kinds_are_made_again_to_the_byte(cli, jobs, tmp_path, files_of, kind):
    name, keep, _ = kind.partition(" with statistics")
    own_head(tmp_path / "own.pth")
    more = ("--heads", tmp_path / "own.pth", *(["--keep-statistics"] if keep else []))
    one, two = (tmp_path / name for name in ("run", "again"))
    first = cli(*jobs[name], *MODEL, *more, "--out", one)
    assert first.code == 0, first.err
    again = ("pairs", "--from", one, "--store", tmp_path / "store2", "--workers", "0")
    outcome = cli(*again, "--out", two)
    assert outcome.code == 0, outcome.err
    assert manifest_of(one) == manifest_of(two)
    assert files_of(one) == files_of(two)
    summary = summary_of(two)
    assert summary_of(one) == summary
    assert 0 < summary.get("listed", 1) < summary["pairs"]
    shown, before = (
        [line for line in out.splitlines() if not line.startswith(("forwards", "seconds"))]
        for out in (outcome.out, first.out)
    )
    assert shown[1:-1] == before[1:-1]  # but for the title and the folder
    (two / "summary.json").unlink()
    assert cli(*again, "--out", two).code == 0  # goes on, with nothing left to do
    assert files_of(one) == files_of(two)


@pytest.mark.parametrize("kind", ["compare", "paired", "score"])
def test_where_the_command_is_given_does_not_matter(cli, jobs, tmp_path, monkeypatch, kind):
    command = [str(word).replace(f"{tmp_path}/", "") for word in jobs[kind]]
    monkeypatch.chdir(tmp_path)
    assert cli(*command, *MODEL, "--out", "run").code == 0
    monkeypatch.chdir(os.path.sep)
    outcome = cli("pairs", "--from", tmp_path / "run", "--out", tmp_path / "again")
    assert outcome.code == 0, outcome.err
    one, two = (lpipstore.open_run(tmp_path / name) for name in ("run", "again"))
    assert np.array_equal(one.distances.compute(), two.distances.compute())
    tables = [run.images for run in (one, two)]
    if kind != "compare":
        tables += [run.pairs for run in (one, two)]
    for old, new in zip(tables[::2], tables[1::2], strict=True):
        own = [name for name in old.column_names if not name.startswith("path")]
        assert own == [name for name in new.column_names if not name.startswith("path")]
        assert old.select(own).equals(new.select(own))
        for name in set(old.column_names) - set(own):
            rooted = [path and f"{tmp_path}/{path}" for path in old.column(name).to_pylist()]
            assert new.column(name).to_pylist() == rooted


def test_a_list_with_strange_lines_is_made_again(cli, pictures, tmp_path, files_of):
    (pictures / "torn.png").write_bytes((pictures / "001.png").read_bytes()[:900])
    odd = os.fsdecode(b"caf\xe9 \n.png")
    (pictures / odd).write_bytes((pictures / "001.png").read_bytes() + b"other bytes")
    lines = [
        b"i,b,distance,statistics_row,b2",
        b"000.png,000.png,1,x,7",
        b"000.png,torn.png,2,y,8",
        b'"caf\xe9 \n.png",001.png,3,,9',
        b",002.png,4,z,10",
        b"gone\\n.png,003.png,5,z,11",
        b'"gone\n.png",003.png,6,z,12',
        b"./000.png,002.png,6,z,12",
    ]
    (pictures / "pairs.csv").write_bytes(b"\n".join(lines) + b"\n")
    one, two = (tmp_path / name for name in ("run", "again"))
    assert cli("score", pictures / "pairs.csv", *MODEL, "--out", one).code == 0
    outcome = cli("pairs", "--from", one, "--out", two)
    # Two files that are not there have one name in the tables: which is which cannot be told
    assert (outcome.code, "does not hold the pairs" in outcome.err) == (1, True)
    del lines[6]
    (pictures / "pairs.csv").write_bytes(b"\n".join(lines) + b"\n")
    one = tmp_path / "run2"
    assert cli("score", pictures / "pairs.csv", *MODEL, "--out", one).code == 0
    outcome = cli("pairs", "--from", one, "--out", two)
    assert outcome.code == 0, outcome.err
    assert files_of(one) == files_of(two)
    assert summary_of(two)["failed_pairs"] == 3


def test_a_rescored_run_is_made_again(cli, jobs, tmp_path, monkeypatch, files_of):
    (tmp_path / "elsewhere").mkdir()
    own_head(tmp_path / "elsewhere" / "own.pth")
    assert cli(*jobs["below"], *MODEL, "--out", tmp_path / "run").code == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    rescored = tmp_path / "rescored"
    assert cli("rescore", tmp_path / "run", "--heads", "own.pth", "--out", rescored).code == 0
    monkeypatch.chdir(os.path.sep)
    outcome = cli("pairs", "--from", rescored, "--out", tmp_path / "again")
    assert outcome.code == 0, outcome.err
    assert files_of(rescored) == files_of(tmp_path / "again")


def test_a_run_from_statistics_is_made_again_from_rows(cli, jobs, tmp_path):
    keep = ("--keep-statistics", "--out", tmp_path / "run")
    assert cli(*jobs["score"], *MODEL, *keep).code == 0
    rescored = tmp_path / "rescored"
    own_head(tmp_path / "own.pth")
    head = ("--heads", tmp_path / "own.pth")
    assert cli("rescore", tmp_path / "run", *head, "--out", rescored).code == 0
    outcome = cli("pairs", "--from", rescored, "--out", tmp_path / "again")
    assert outcome.code == 0, outcome.err
    assert "was scored from kept statistics" in outcome.err
    one, two = (lpipstore.open_run(path) for path in (rescored, tmp_path / "again"))
    assert np.abs(one.distances.compute() - two.distances.compute()).max() < 1e-6
    assert one.pairs.drop_columns(["distance"]).equals(two.pairs.drop_columns(["distance"]))


def test_an_update_is_made_again_in_one_piece(cli, pictures, tmp_path, draw):
    assert cli("pairs", pictures, *MODEL, "--out", tmp_path / "run").code == 0
    draw(pictures, 10)
    (pictures / "003.png").unlink()
    update = ("--update", tmp_path / "run", "--weights", "random", "--out", tmp_path / "updated")
    assert cli("pairs", pictures, *update).code == 0
    outcome = cli("pairs", "--from", tmp_path / "updated", "--out", tmp_path / "again")
    assert outcome.code == 0, outcome.err
    assert "took over distances of an earlier one" in outcome.err
    one, two = (lpipstore.open_run(tmp_path / name) for name in ("updated", "again"))
    assert one.images.equals(two.images)
    assert np.abs(one.distances.compute() - two.distances.compute()).max() < 1e-7


def test_what_making_it_again_would_take(cli, jobs, tmp_path):
    for kind in ("below", "compare", "score"):
        assert cli(*jobs[kind], *MODEL, "--out", tmp_path / kind).code == 0
        out = tmp_path / "again"
        outcome = cli("pairs", "--from", tmp_path / kind, "--dry-run", "--out", out, "--json")
        assert json.loads(outcome.out)["forwards"] == 0
        assert not out.exists()


def test_what_cannot_be_made_again(cli, jobs, tmp_path):
    out = ("--out", tmp_path / "again")
    outcome = cli("pairs", "--from", tmp_path / "nowhere", *out)
    assert (outcome.code, "is not a run" in outcome.err) == (2, True)
    run = tmp_path / "run"
    assert cli(*jobs["score"], *MODEL, "--out", run).code == 0
    manifest = json.loads((run / "manifest.json").read_text())

    def again(**changes):
        (run / "manifest.json").write_text(json.dumps({**manifest, **changes}))
        return cli("pairs", "--from", run, *out)

    outcome = again(command="train")
    assert (outcome.code, "--from takes runs of pairs, compare and score" in outcome.err) == (
        2,
        True,
    )
    outcome = again(list="0" * 32)
    assert (outcome.code, "does not hold the pairs" in outcome.err) == (1, True)
    outcome = again(command="compare", first=99)
    assert (outcome.code, "is damaged: 99 of 10 images" in outcome.err) == (1, True)
    outcome = again(command="pairs", below="near")
    assert (outcome.code, "no numbers under below and top_k" in outcome.err) == (1, True)
    outcome = again(command="compare", paired=True)
    assert (outcome.code, "pairs.parquet" in outcome.err) == (1, True)
    (run / "pairs.parquet").write_bytes(b"torn")
    outcome = again()
    assert (outcome.code, "pairs.parquet" in outcome.err) == (1, True)
    (run / "summary.json").unlink()
    outcome = again()
    assert (outcome.code, "is not finished" in outcome.err) == (2, True)
    assert not (tmp_path / "again").exists()


def test_options_that_exclude_each_other(cli, pictures, tmp_path):
    out = ("--out", tmp_path / "again")
    outcome = cli("pairs", pictures, "--from", tmp_path, *out)
    assert (outcome.code, "leave out IMAGES" in outcome.err) == (2, True)
    outcome = cli("pairs", pictures, "--update", tmp_path, "--top-k", 3, *out)
    assert (outcome.code, "exclude each other" in outcome.err) == (2, True)
    outcome = cli("pairs", *out)
    assert (outcome.code, "pairs needs images" in outcome.err) == (2, True)
