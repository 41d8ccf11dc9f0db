"""Real photographs, real weights: distances against the lpips package on the same pixels."""

import json
from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
import zarr
from PIL import Image

import lpipstore
from lpipstore.cache.keys import PoolSpec
from lpipstore.pipeline.images.decode import decode
from lpipstore.pipeline.images.preparation import Preparation


@pytest.fixture(scope="module")
def reference(real_weights):
    """The package's squeeze with the real trunk and its own head."""
    (path,) = real_weights.glob("squeezenet1_1*.pth")
    tensors = torch.load(path, weights_only=True)
    module = lpips.LPIPS(net="squeeze", pnet_rand=True, verbose=False).eval()
    names = {name: f"features.{name.split('.', 1)[1]}" for name in module.net.state_dict()}
    module.net.load_state_dict({name: tensors[ours] for name, ours in names.items()})
    return module


def pixels_of(path: str) -> torch.Tensor:
    image = decode(Path(path).read_bytes(), Preparation((64, 64)))
    return torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 127.5 - 1


@torch.inference_mode()
def by_package(module, paths, pairs) -> np.ndarray:
    images = {k: pixels_of(paths[k]) for k in {int(k) for pair in pairs for k in pair}}
    distances = []
    for start in range(0, len(pairs), 32):
        part = [tuple(map(int, pair)) for pair in pairs[start : start + 32]]
        left, right = (torch.stack([images[pair[side]] for pair in part]) for side in (0, 1))
        distances.append(module(left, right).flatten())
    return torch.cat(distances).numpy()


def run_pairs(cli, *arguments, command="pairs"):
    outcome = cli(command, *arguments, "--backbone", "squeeze", "--size", "64", "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def check_against_package(run, module, tolerance):
    matrix = run.distances.compute()
    assert np.array_equal(matrix, matrix.T)
    assert (matrix.diagonal() == 0).all()
    i, j = np.triu_indices(len(matrix), 1)
    chosen = np.random.default_rng(0).choice(len(i), 300, replace=False)
    chosen = np.union1d(chosen, np.flatnonzero(matrix[i, j] < 1e-2))
    pairs = np.stack([i[chosen], j[chosen]], axis=1)
    expected = by_package(module, run.images.column("path").to_pylist(), pairs)
    assert np.abs(matrix[i[chosen], j[chosen]] - expected).max() < tolerance


@pytest.mark.parametrize(("row_dtype", "tolerance"), [("uint16", 1e-5), ("float32", 2e-6)])
def test_photographs_have_the_distances_of_the_package(
    cli, data, reference, tmp_path, row_dtype, tolerance
):
    options = ("--row-dtype", row_dtype)
    summary = run_pairs(cli, data / "photos", *options, "--out", tmp_path / "one")
    assert (summary["images"], summary["pairs"], summary["forwards"]) == (238, 28_203, 238)
    one = lpipstore.open_run(tmp_path / "one")
    check_against_package(one, reference, tolerance)
    summary = run_pairs(cli, data / "photos", *options, "--out", tmp_path / "two")
    assert (summary["forwards"], summary["hits"]) == (0, 238)
    assert summary["seconds"]["decode"] == summary["seconds"]["forward"] == 0
    files = [sorted((tmp_path / name / "distances.zarr").rglob("*")) for name in ("one", "two")]
    for first, second in zip(*files, strict=True):
        assert first.is_dir() or first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(("row_dtype", "tolerance"), [("uint16", 1e-5), ("float32", 2e-6)])
def test_near_duplicates_have_the_distances_of_the_package(
    cli, data, reference, tmp_path, row_dtype, tolerance
):
    random = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, path in enumerate(sorted((data / "photos").iterdir())[:20]):
        image = decode(path.read_bytes(), Preparation((64, 64))).astype(np.int16)
        noisy = image + random.integers(-1, 2, image.shape)
        touched = image.copy()
        touched[31, 17] = 255 - touched[31, 17]
        for name, pixels in (("a", image), ("noise", noisy), ("pixel", touched)):
            shown = pixels.clip(0, 255).astype(np.uint8)
            Image.fromarray(shown).save(folder / f"{number:02}{name}.png")
    run_pairs(cli, folder, "--row-dtype", row_dtype, "--out", tmp_path / "run")
    run = lpipstore.open_run(tmp_path / "run")
    assert (run.distances.compute()[np.triu_indices(60, 1)] < 1e-2).sum() >= 20
    check_against_package(run, reference, tolerance)


@pytest.mark.parametrize("asked", [250, 8000])  # by single differences, and by products
def test_a_list_has_the_distances_of_the_package(cli, data, reference, tmp_path, asked):
    paths = sorted((data / "photos").iterdir())
    near = decode(paths[0].read_bytes()).astype(np.int16)
    near[:40, :40] += 3
    Image.fromarray(near.clip(0, 255).astype(np.uint8)).save(tmp_path / "near.png")
    paths.append(tmp_path / "near.png")
    pairs = np.random.default_rng(2).integers(0, len(paths), (asked, 2))
    pairs[0] = (0, len(paths) - 1)
    lines = [f"{paths[i]},{paths[j]}\n" for i, j in pairs]
    (tmp_path / "list.csv").write_text("a,b\n" + "".join(lines))
    run_pairs(cli, tmp_path / "list.csv", "--out", tmp_path / "run", command="score")
    found = lpipstore.open_run(tmp_path / "run").pairs["distance"].to_numpy()[:250]
    expected = by_package(reference, [str(path) for path in paths], pairs[:250])
    assert 0 < expected[0] < 1e-2
    assert np.abs(found - expected).max() < 1e-5
    large = expected > 1e-5
    assert (np.abs(found - expected)[large] <= 5e-3 * expected[large]).all()


def test_zarr_reads_the_rows_that_the_store_returns(cli, data, real_weights, tmp_path):
    run_pairs(cli, data / "photos", "--out", tmp_path / "run")
    pool_path = next((tmp_path / "store" / "pools").glob("squeeze-*"))
    pool = zarr.open_array(pool_path, mode="r")
    assert pool.attrs["scale_factor"] == pytest.approx(1 / 65535)
    by_zarr = {row.tobytes() for row in np.asarray(pool[:])}
    fill = np.full(pool.shape[1], pool.fill_value, pool.dtype).tobytes()
    recipe = pool.attrs["recipe"]
    spec = PoolSpec("squeeze-64x64", pool.shape[1], "uint16", recipe)
    contents = lpipstore.open_run(tmp_path / "run").images.column("content_hash").to_pylist()
    with lpipstore.FeatureStore(tmp_path / "store") as store:
        rows = [store.get(spec.key(bytes.fromhex(content))) for content in contents]
    assert {row.tobytes() for row in rows} == by_zarr - {fill}
