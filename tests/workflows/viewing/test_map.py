"""Maps: the distance of `score`, taps that add up, the map of LPIPS(spatial=True), a figure."""

import json
import os
import shutil
import tarfile
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import lpipstore
from lpipstore.cache.errors import LpipstoreError, UsageError
from lpipstore.pipeline.distances.heads import make_head, save_head

OPTIONS = {"backbone": "squeeze", "weights": "random"}
MODEL = ("--backbone", "squeeze", "--weights", "random")


@pytest.fixture
def pair(tmp_path, draw):
    """Two pictures of 48 by 64 pixels."""
    return draw(tmp_path / "pair", 2, side=(48, 64))


def as_scored(first, second, **options):
    run = lpipstore.score([(str(first), str(second))], **OPTIONS | options)
    return run.pairs["distance"].to_pylist()[0]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"size": 32},
        {"size": "40x33", "fit": "pad"},
        {"heads": "none"},
        {"version": "0.0"},
        {"row_dtype": "float32"},
        {"backbone": "alex"},
        {"backbone": "torchvision:resnet18", "taps": "layer1,layer2", "heads": "none"},
    ],
)
def test_the_distance_is_that_of_score_and_taps_add_up(pair, options):
    found = lpipstore.spatial_map(*pair, **OPTIONS | options)
    assert found.distance == pytest.approx(as_scored(*pair, **options), abs=1e-6)
    assert sum(found.taps.values()) == pytest.approx(found.distance, abs=1e-12)
    size = found.map.shape
    assert found.first_pixels.shape == found.second_pixels.shape == (*size, 3)
    if not options:
        assert size == (48, 64)
        with Image.open(pair[0]) as image:
            assert (found.first_pixels == np.asarray(image)).all()


def test_near_images_have_the_distance_of_score(pair, tmp_path):
    with Image.open(pair[0]) as image:
        image.point(lambda level: min(255, level + 1)).save(tmp_path / "near.png")
    found = lpipstore.spatial_map(pair[0], tmp_path / "near.png", **OPTIONS)
    assert 0 < found.distance < 1e-2
    assert found.distance == pytest.approx(as_scored(pair[0], tmp_path / "near.png"), abs=1e-6)


def test_the_map_is_that_of_the_module(pair):
    found = lpipstore.spatial_map(*pair, row_dtype="float32", **OPTIONS)
    metric = lpipstore.LPIPS(net="squeeze", weights="random", spatial=True)
    one, two = (torch.from_numpy(np.array(Image.open(path))) for path in pair)
    images = (x.permute(2, 0, 1)[None].float() / 127.5 - 1 for x in (one, two))
    with torch.no_grad():
        value = metric(*images)[0, 0].numpy()
    np.testing.assert_allclose(found.map, value, atol=1e-5)


def test_only_where_images_differ_is_there_a_distance(pair, tmp_path):
    with Image.open(pair[0]) as image:
        changed = image.resize((128, 128))
        changed.save(tmp_path / "a.png")
        changed.paste((255, 0, 255), (96, 96, 128, 128))
        changed.save(tmp_path / "b.png")
    found = lpipstore.spatial_map(tmp_path / "a.png", tmp_path / "b.png", **OPTIONS)
    assert found.map[:40, :40].max() < 0.2 * found.map[96:, 96:].mean()


def test_identical_images_and_one_image_twice(pair, tmp_path):
    shutil.copy(pair[0], tmp_path / "copy.png")
    for second in (pair[0], tmp_path / "copy.png"):
        found = lpipstore.spatial_map(pair[0], second, **OPTIONS)
        assert found.distance == 0
        assert not found.map.any()
        found.save(tmp_path / f"{second.stem}-same.png")
    image = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
    assert lpipstore.spatial_map(image, image, value_range=(0, 1), **OPTIONS).distance == 0


def test_images_in_memory_are_those_of_files(pair):
    images = [Image.open(path) for path in pair]
    arrays = [np.array(image) for image in images]
    tensors = [torch.from_numpy(array).permute(2, 0, 1) for array in arrays]
    expected = lpipstore.spatial_map(*pair, **OPTIONS)
    for given in (images, arrays, tensors, (pair[0], images[1])):
        found = lpipstore.spatial_map(*given, **OPTIONS)
        assert (found.map == expected.map).all()
        assert found.distance == expected.distance
        assert (found.second_pixels == expected.second_pixels).all()


def test_at_the_prompt(cli, pair, tmp_path):
    out = tmp_path / "map.png"
    outcome = cli("map", *pair, *MODEL, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["distance"] == pytest.approx(sum(found["taps"].values()), abs=1e-12)
    assert found["distance"] == pytest.approx(as_scored(*pair), abs=1e-6)
    assert (found["size"], len(found["taps"])) == ([48, 64], 7)
    with Image.open(out) as figure:
        plain = np.asarray(figure.convert("RGB"))
    assert plain.shape[1] > 1000
    assert len(np.unique(plain.reshape(-1, 3), axis=0)) > 500
    outcome = cli("map", *pair, *MODEL, "--overlay", "--out", tmp_path / "over.png")
    assert "features.1 " in outcome.out
    assert "untrained" in outcome.out
    with Image.open(tmp_path / "over.png") as figure:
        laid = np.asarray(figure.convert("RGB"))
    assert laid.shape == plain.shape
    assert (laid != plain).any()


@pytest.mark.parametrize(
    ("ending", "begins"), [("pdf", b"%PDF"), ("svg", b"<?xml"), ("PNG", b"\x89P")]
)
def test_figures_for_papers(pair, tmp_path, ending, begins):
    found = lpipstore.spatial_map(*pair, **OPTIONS)
    found.save(tmp_path / f"map.{ending}", overlay=True, scale=0.5)
    assert (tmp_path / f"map.{ending}").read_bytes().startswith(begins)
    assert sorted(os.listdir(tmp_path)) == [f"map.{ending}", "pair"]


def test_heads_of_negative_weights_have_a_scale_on_both_sides(pair, tmp_path):
    channels = (64, 128, 256, 384, 384, 512, 512)
    random = np.random.default_rng(0)
    head = make_head([random.normal(size=count).astype(np.float32) for count in channels], "odd")
    save_head(head, tmp_path / "odd.pth")
    found = lpipstore.spatial_map(*pair, heads=tmp_path / "odd.pth", **OPTIONS)
    assert found.map.min() < 0
    assert found.distance == pytest.approx(
        as_scored(*pair, heads=tmp_path / "odd.pth"), abs=1e-6 * max(1, abs(found.distance))
    )
    found.save(tmp_path / "odd.png", overlay=True)


def test_members_of_archives_and_odd_names(cli, pair, tmp_path):
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        tar.add(pair[0], "cat.png")
    names = ["$x^2$.png", "a'b\"<b>.png", "line\nbreak 😀.png", os.fsdecode(b"\xff.png"), "x" * 200]
    expected = lpipstore.spatial_map(*pair, **OPTIONS).distance
    for number, name in enumerate(names):
        odd = tmp_path / name
        shutil.copy(pair[1], odd)
        member = f"{tmp_path / 'shard.tar'}#cat.png"
        out = tmp_path / f"{number}.svg"
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # as of signs that no font has
            outcome = cli("map", member, odd, *MODEL, "--out", out, "--json")
        assert outcome.code == 0, outcome.err
        assert json.loads(outcome.out)["distance"] == expected
        assert b"<b>" not in out.read_bytes()


def test_what_people_get_wrong(cli, pair, tmp_path):
    torn = tmp_path / "torn.png"
    torn.write_bytes(pair[0].read_bytes()[:200])
    text = tmp_path / "text.png"
    text.write_text("no image")
    here = tmp_path / "here.png"
    here.write_bytes(b"mine")
    out = ("--out", tmp_path / "map.png")
    for code, command, message in (
        (2, (pair[0], tmp_path / "gone.png", *out), "no such image: "),
        (1, (f"{pair[0]}#member", pair[0], *out), "000.png#member: cannot be read"),
        (1, (pair[0], torn, *out), "torn.png: "),
        (1, (text, pair[0], *out), "text.png: "),
        (1, (tmp_path, pair[0], *out), f"{tmp_path}: "),
        (2, (*pair, "--out", here), "--out "),
        (2, (*pair, "--out", tmp_path / "map.gif"), "must end in .png, .pdf, .svg"),
        (2, (*pair, *out, "--scale", "0"), "--scale 0 must be more than 0"),
        (2, (*pair, *out, "--size", "7"), "squeeze"),
        (1, (*pair, "--out", tmp_path / "none" / "map.png"), "cannot write "),
    ):
        outcome = cli("map", *command, *MODEL)
        assert (outcome.code, outcome.out) == (code, ""), (command, outcome.err)
        assert message in " ".join(outcome.err.split()), command
    assert here.read_bytes() == b"mine"
    assert not (tmp_path / "map.png").exists()
    with pytest.raises(UsageError, match="a pair must be of paths, arrays"):
        lpipstore.spatial_map(1, 2, **OPTIONS)
    with pytest.raises(LpipstoreError, match="torn"):
        lpipstore.spatial_map(pair[0], torn, **OPTIONS)


def test_a_photograph_and_its_worse_copy(data, real_weights, tmp_path):
    options = {"backbone": "squeeze", "weights": next(real_weights.glob("squeezenet1_1*.pth"))}
    photo = sorted((data / "photos").glob("*"))[5]
    with Image.open(photo) as image:
        whole = image.convert("RGB")
    whole.save(tmp_path / "a.png")
    values = []
    for quality in (90, 50, 10):
        whole.save(tmp_path / "b.jpg", quality=quality)
        found = lpipstore.spatial_map(tmp_path / "a.png", tmp_path / "b.jpg", **options)
        assert found.distance == pytest.approx(
            as_scored(tmp_path / "a.png", tmp_path / "b.jpg", **options), abs=1e-6
        )
        assert found.map.mean() == pytest.approx(found.distance, rel=0.2)
        values.append(found.distance)
    assert values == sorted(values)
