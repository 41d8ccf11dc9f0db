"""Heads: the stock files, files of one's own, and what is said when they do not fit."""

import subprocess
import sys
from importlib.resources import files

import lpips
import numpy as np
import pytest
import torch

from lpipstore.cache.errors import LpipstoreError, UsageError
from lpipstore.pipeline.backbones.layout import LPIPS_BACKBONES, RowLayout
from lpipstore.pipeline.distances.heads import (
    column_weights,
    load_head,
    make_head,
    save_head,
)

SQUEEZE = LPIPS_BACKBONES["squeeze"].channels
ALEX = LPIPS_BACKBONES["alex"].channels


def own_head(channels=ALEX, seed=0):
    generator = np.random.default_rng(seed)
    return make_head([generator.standard_normal(c).astype("f4") for c in channels], "own")


@pytest.mark.parametrize("version", ["0.0", "0.1"])
@pytest.mark.parametrize("name", LPIPS_BACKBONES)
def test_stock_heads_are_the_values_of_the_package(name, version):
    head = load_head(None, name, LPIPS_BACKBONES[name].channels, version)
    theirs = torch.load(
        files("lpips").joinpath(f"weights/v{version}/{name}.pth"),
        map_location="cpu",
        weights_only=True,
    )
    assert head.channels == LPIPS_BACKBONES[name].channels
    assert head.nonnegative
    for tap, weight in enumerate(head.weights):
        assert weight.dtype == np.float32
        assert np.array_equal(weight, theirs[f"lin{tap}.model.1.weight"].flatten().numpy())
    assert load_head("stock", name, head.channels, version).digest == head.digest


def test_the_package_lpips_is_not_imported():
    code = (
        "import sys; from lpipstore.pipeline.distances.heads import load_head; "
        f"load_head(None, 'squeeze', {SQUEEZE}); assert 'lpips' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_digests_tell_heads_apart_and_only_by_their_values():
    heads = [
        load_head(None, n, s.channels, v)
        for n, s in LPIPS_BACKBONES.items()
        for v in ("0.0", "0.1")
    ]
    assert len({head.digest for head in heads}) == 6
    assert make_head(heads[0].weights, "renamed").digest == heads[0].digest
    # the same numbers, cut into taps elsewhere
    assert (
        make_head([np.ones(2), np.ones(3)], "a").digest
        != make_head([np.ones(3), np.ones(2)], "b").digest
    )


def test_a_head_cannot_be_changed_after_its_digest_was_taken():
    values = np.ones(2, dtype=np.float32)
    head = make_head([values], "own")
    values[0] = 5
    assert head.weights[0][0] == 1
    with pytest.raises(ValueError, match="read-only"):
        head.weights[0][0] = 5


def test_none_is_the_unweighted_baseline():
    head = load_head("none", "torchvision:resnet18", (64, 128))
    assert head.channels == (64, 128)
    assert all((weight == 1).all() for weight in head.weights)
    assert "baseline" in head.name


def test_saved_head_comes_back_from_file_and_from_folder(tmp_path):
    head = own_head()
    save_head(head, tmp_path / "training" / "head.pth")
    for choice in (tmp_path / "training" / "head.pth", str(tmp_path / "training")):
        loaded = load_head(choice, "alex", ALEX)
        assert loaded.digest == head.digest
        assert loaded.name == str(tmp_path / "training" / "head.pth")
        assert not loaded.nonnegative
    assert [path.name for path in (tmp_path / "training").iterdir()] == ["head.pth"]


def test_the_package_loads_a_saved_head(tmp_path):
    head = own_head()
    save_head(head, tmp_path / "head.pth")
    theirs = lpips.LPIPS(
        net="alex", pnet_rand=True, model_path=str(tmp_path / "head.pth"), verbose=False
    )
    for lin, weight in zip(theirs.lins, head.weights, strict=True):
        assert np.array_equal(lin.model[-1].weight.detach().flatten().numpy(), weight)


def test_failed_save_leaves_the_older_file(tmp_path):
    target = tmp_path / "head.pth"
    target.mkdir()  # a folder stands where the file should go
    (target / "kept").touch()
    with pytest.raises(LpipstoreError, match="Cannot write the head"):
        save_head(own_head(), target)
    assert [path.name for path in tmp_path.iterdir()] == ["head.pth"]
    assert (target / "kept").exists()


def test_head_of_another_backbone_names_both(tmp_path):
    path = tmp_path / "head.pth"
    save_head(own_head(ALEX), path)
    with pytest.raises(UsageError) as caught:
        load_head(path, "squeeze", SQUEEZE)
    message = str(caught.value)
    assert "fits alex" in message
    assert "backbone squeeze" in message
    assert str(ALEX) in message
    assert str(SQUEEZE) in message


def test_head_of_no_known_backbone_says_so(tmp_path):
    path = tmp_path / "head.pth"
    save_head(own_head((3, 4)), path)
    with pytest.raises(UsageError, match=r"channels \(3, 4\) and fits none of alex, vgg, squeeze"):
        load_head(path, "alex", ALEX)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "not a head"),
        ({"features.0.weight": torch.ones(1)}, "has features.0.weight"),
        ({"lin1.model.1.weight": torch.ones(1, 64, 1, 1)}, "not a head"),
        (
            {"lin0.model.1.weight": torch.ones(1, 64, 1, 1), "extra": torch.ones(1)},
            "nothing else; it has extra",
        ),
        ({"lin0.model.1.weight": torch.ones(64)}, r"shape \(1, C, 1, 1\) was wanted.*\(64,\)"),
        ({"lin0.model.1.weight": torch.full((1, 64, 1, 1), torch.nan)}, "not finite"),
    ],
)
def test_file_that_is_no_head_is_refused(tmp_path, state, message):
    path = tmp_path / "head.pth"
    torch.save(state, path)
    with pytest.raises(UsageError, match=message) as caught:
        load_head(path, "torchvision:resnet18", (64,))
    assert str(path) in str(caught.value)


def test_missing_head_names_the_choices(tmp_path):
    with pytest.raises(UsageError, match="none for the unweighted baseline, or stock"):
        load_head(tmp_path / "missing.pth", "alex", ALEX)


def test_other_backbones_need_their_own_head():
    with pytest.raises(UsageError, match='heads="none"'):
        load_head(None, "torchvision:resnet18", (64,))


def test_unknown_version_is_refused():
    with pytest.raises(UsageError, match="choose 0.1 or 0.0"):
        load_head(None, "alex", ALEX, "0.2")


def test_changed_stock_file_is_refused(tmp_path, monkeypatch):
    weights = tmp_path / "lpips" / "weights" / "v0.1"
    weights.mkdir(parents=True)
    (tmp_path / "lpips" / "__init__.py").touch()
    save_head(own_head(), weights / "alex.pth")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "lpips")
    with pytest.raises(LpipstoreError, match="not the one that lpips 0.1 ships"):
        load_head(None, "alex", ALEX)
    with pytest.raises(LpipstoreError, match="is missing: reinstall"):
        load_head(None, "squeeze", SQUEEZE)


def test_column_weights_divide_each_channel_by_the_positions():
    layout = RowLayout(((2, 1, 3), (1, 2, 2)))
    head = make_head([np.array([3.0, -6.0]), np.array([8.0])], "own")
    expected = np.array([1, 1, 1, -2, -2, -2, 2, 2, 2, 2], dtype=np.float32)
    found = column_weights(head, layout)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)


def test_column_weights_refuse_other_channels():
    with pytest.raises(UsageError, match=r"channels \(2,\), the rows have \(3,\)"):
        column_weights(make_head([np.ones(2)], "own"), RowLayout(((3, 1, 1),)))
