"""Clusters: those of the matrix, named by their medoids, counted by a reason that is told."""

import json
import os
import re
import shutil

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from PIL import Image

import lpipstore
from lpipstore.cache.errors import LpipstoreError, UsageError

MODEL = ("--backbone", "squeeze", "--weights", "random", "--size", "32")
OPTIONS = {"backbone": "squeeze", "weights": "random", "size": 32}
ODD = ["a'b\"c.png", "x<b>y.png", "line\nbreak.png", "😀.png", b"\xff\xfe.png", "comma,;.png"]


@pytest.fixture(scope="module")
def families(tmp_path_factory, draw):
    """Three pictures, each with four slightly darker copies; their run."""
    folder = tmp_path_factory.mktemp("families")
    draw(folder / "images", 3, side=48)
    for number in range(3):
        with Image.open(folder / "images" / f"{number:03}.png") as image:
            for step in range(1, 5 - number):
                darker = image.point(lambda level, step=step: level * (1 - step / 50))
                darker.save(folder / "images" / f"{number:03}-{step}.png")
    lpipstore.pairs(folder / "images", out=folder / "run", store=folder / "store", **OPTIONS)
    return folder / "run"


def run(cli, *command):
    outcome = cli(*command, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def names(cluster) -> list[str]:
    return sorted(os.path.basename(path) for path in cluster["paths"])


@pytest.mark.parametrize("choice", [(), ("--count", "3"), ("--below", "0.1")])
@pytest.mark.parametrize("linkage", ["average", "complete", "single"])
def test_families_are_found_however_the_cut_is_chosen(cli, families, choice, linkage):
    found = run(cli, "clusters", families, *choice, "--linkage", linkage)
    assert [cluster["size"] for cluster in found["clusters"]] == [5, 4, 3]
    for number, cluster in enumerate(found["clusters"]):
        assert {name[:3] for name in names(cluster)} == {f"{number:03}"}
        assert cluster["medoid"] == cluster["paths"][0]
    if not choice:
        assert "of 2 to 11 clusters these have the largest mean silhouette" in found["reason"]
        assert found["silhouette"] > 0.5


def test_medoids_and_distances_are_those_of_the_matrix(families):
    opened = lpipstore.open_run(families)
    matrix = np.asarray(opened.distances)
    found = opened.clusters(2)
    table = found.table().to_pydict()
    for label, cluster in enumerate(found.clusters):
        of = np.flatnonzero(found.labels == label)
        medoid = of[np.argmin(matrix[np.ix_(of, of)].sum(1, dtype=np.float64))]
        assert cluster.medoid == found.paths[medoid]
        assert table["medoid"][medoid]
        np.testing.assert_array_equal(np.array(table["distance"])[of], matrix[medoid][of])
        near = matrix[medoid, of].sum(dtype=np.float64) / max(1, len(of) - 1)
        assert cluster.mean == pytest.approx(near, abs=1e-6)
        order = [matrix[medoid, found.paths.index(path)] for path in cluster.paths]
        assert order == sorted(order)
    assert sum(table["medoid"]) == 2
    assert table["cluster"] == found.labels.tolist()
    assert [os.path.basename(path) for path in table["path"]] == [
        os.path.basename(path) for path in opened.images["path"].to_pylist()
    ]


def test_the_table_is_written_in_each_format(cli, families, tmp_path):
    for ending in ("csv", "parquet", "json"):
        run(cli, "clusters", families, "--count", "3", "--out", tmp_path / f"c.{ending}")
    for table in (pa_csv.read_csv(tmp_path / "c.csv"), pq.read_table(tmp_path / "c.parquet")):
        assert table.column_names == ["path", "cluster", "medoid", "distance"]
        assert table["cluster"].to_pylist().count(0) == 5
        assert sum(table["medoid"].to_pylist()) == 3
    assert len(json.loads((tmp_path / "c.json").read_text())["clusters"]) == 3
    again = cli("clusters", families, "--out", tmp_path / "c.csv")
    assert (again.code, "exists" in again.err) == (2, True)


def test_people_read_the_medoids(cli, families):
    outcome = cli("clusters", families, "--count", "12")
    assert "12 (average linkage): as many as asked for" in outcome.out
    assert "1 image: " in outcome.out
    more = cli("clusters", families, "--count", "40")
    assert "40 were asked for, and there are only 12 images" in more.out
    few = cli("clusters", families, "--count", "2")
    assert "images around " in few.out


def test_two_images_and_images_that_are_all_the_same(cli, tmp_path, draw):
    draw(tmp_path / "two", 2, side=48)
    assert cli("pairs", tmp_path / "two", *MODEL, "--out", tmp_path / "run2").code == 0
    outcome = cli("clusters", tmp_path / "run2")
    assert outcome.code == 0
    assert "1 (average linkage): fewer than three images" in outcome.out
    assert "the clusters do not stand apart" in outcome.err
    assert len(run(cli, "clusters", tmp_path / "run2", "--count", "2")["clusters"]) == 2
    for number in range(1, 5):
        shutil.copy(tmp_path / "two" / "000.png", tmp_path / "two" / f"00{number}.png")
    assert cli("pairs", tmp_path / "two", *MODEL, "--out", tmp_path / "run5").code == 0
    assert [c["size"] for c in run(cli, "clusters", tmp_path / "run5")["clusters"]] == [5]
    split = run(cli, "clusters", tmp_path / "run5", "--count", "2")["clusters"]
    assert [cluster["size"] for cluster in split] == [4, 1]


def test_failed_images_and_odd_names(cli, tmp_path, draw):
    paths = draw(tmp_path / "odd", len(ODD), side=48)
    for path, name in zip(paths, ODD, strict=True):
        path.rename(path.parent / os.fsdecode(name))
    (tmp_path / "odd" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert cli("pairs", tmp_path / "odd", *MODEL, "--out", tmp_path / "run").code == 0
    table = tmp_path / "labels.csv"
    found = run(cli, "clusters", tmp_path / "run", "--count", "6", "--out", table)
    assert (found["failed"], found["images"]) == (1, 6)
    shown = {os.path.basename(cluster["medoid"]) for cluster in found["clusters"]}
    assert {"a'b\"c.png", "x<b>y.png", "line\\nbreak.png", "😀.png", "\\xff\\xfe.png"} < shown
    assert {os.path.basename(path) for path in pa_csv.read_csv(table)["path"].to_pylist()} == shown
    outcome = cli("clusters", tmp_path / "run", "--count", "6")
    assert "line\\nbreak.png" in outcome.out


def test_missing_distances_are_told(cli, families, tmp_path):
    shutil.copytree(families, tmp_path / "torn")
    for chunk in (tmp_path / "torn" / "distances.zarr" / "c").rglob("*"):
        if chunk.is_file():
            chunk.unlink()
    for command in (("clusters",), ("pick", "--count", "2")):
        outcome = cli(command[0], tmp_path / "torn", *command[1:])
        assert outcome.code == 1
        assert re.search("lacks distances|missing or not finite", outcome.err)
    with pytest.raises(LpipstoreError, match="again"):
        lpipstore.open_run(tmp_path / "torn").clusters()


def test_what_people_get_wrong(cli, families, tmp_path, draw):
    draw(tmp_path / "some", 4, side=48)
    some = tmp_path / "some"
    cli("pairs", some, *MODEL, "--below", "0.1", "--out", tmp_path / "close")
    cli("compare", some, some, *MODEL, "--out", tmp_path / "crossed")
    cli("pairs", tmp_path, *MODEL, "--group-by", "folder", "--out", tmp_path / "groups")
    for command, message in (
        ((tmp_path / "close",), "needs the distances of all pairs of one collection"),
        ((tmp_path / "crossed",), "without --below, --top-k and --group-by"),
        ((tmp_path / "groups",), "is a run of groups"),
        ((some,), "manifest.json"),
        ((families, "--count", "2", "--below", "0.1"), "--count and --below exclude each other"),
        ((families, "--count", "0"), "--count 0 must be at least 1"),
        ((families, "--below", "0"), "--below 0 must be more than 0"),
        ((families, "--linkage", "ward"), "unknown --linkage 'ward': choose average"),
        ((families, "--memory", "1kB"), "clustering 12 images takes 1.73 kB, and --memory grants"),
        ((families, "--out", tmp_path / "c.txt"), "must end in .csv, .json, .parquet"),
    ):
        outcome = cli("clusters", *command)
        assert (outcome.code, outcome.out) == (2, ""), command
        assert message in " ".join(outcome.err.split()), command
    with pytest.raises(UsageError, match="count=0 must be at least 1"):
        lpipstore.open_run(families).clusters(0)


def test_many_images_are_warned_of(families, caplog, monkeypatch):
    monkeypatch.setattr("lpipstore.workflows.viewing.clusters._LARGE", 1000)
    lpipstore.open_run(families).clusters(3)
    assert "clustering 12 images takes 1.73 kB of memory" in caplog.messages


def test_photographs_of_one_colour_come_together(cli, data, real_weights, tmp_path):
    """Blue skies and green grass: what people see first is what LPIPS at 64 px sees first."""
    model = ("--backbone", "squeeze", "--size", "64", "--weights")
    weights = next(real_weights.glob("squeezenet1_1*.pth"))
    assert cli("pairs", data / "photos", *model, weights, "--out", tmp_path / "run").code == 0
    found = run(cli, "clusters", tmp_path / "run", "--count", "10", "--linkage", "complete")
    matrix = np.asarray(lpipstore.open_run(tmp_path / "run").distances)
    labels = lpipstore.open_run(tmp_path / "run").clusters(10, linkage="complete").labels
    same = labels[:, None] == labels[None]
    np.fill_diagonal(same, val=False)
    apart = ~same & ~np.eye(len(labels), dtype=bool)
    assert matrix[same].mean() < matrix[apart].mean() - 0.05
    assert len(found["clusters"]) == 10
