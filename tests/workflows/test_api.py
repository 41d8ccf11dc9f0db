"""The Python face: files, tensors and arrays give the same matrix, ranges are explicit."""

import lpips
import numpy as np
import pytest
import torch
from PIL import Image

import lpipstore
from lpipstore.cache.errors import LpipstoreError, UsageError
from lpipstore.pipeline.backbones.load import load_backbone

MODEL = {"backbone": "squeeze", "weights": "random"}


@pytest.fixture(scope="module")
def floats():
    return torch.rand(6, 3, 40, 36, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def expected(floats):
    """The matrix by the lpips package."""
    module = lpips.LPIPS(net="squeeze", pnet_rand=True, verbose=False).eval()
    trunk = load_backbone("squeeze", weights="random").trunk.state_dict()
    names = {name: f"features.{name.split('.', 1)[1]}" for name in module.net.state_dict()}
    module.net.load_state_dict({name: trunk[ours] for name, ours in names.items()})
    matrix = np.zeros((6, 6), np.float32)
    with torch.no_grad():
        for i in range(6):
            for j in range(6):
                matrix[i, j] = module(floats[i : i + 1], floats[j : j + 1], normalize=True)
    return matrix


@pytest.mark.parametrize(("row_dtype", "tolerance"), [("uint16", 1e-5), ("float32", 2e-6)])
def test_tensors_give_the_numbers_of_lpips(floats, expected, row_dtype, tolerance):
    matrix = lpipstore.distance_matrix(floats, value_range=(0, 1), row_dtype=row_dtype, **MODEL)
    assert matrix.dtype == np.float32
    assert np.abs(matrix - expected).max() < tolerance
    assert np.array_equal(matrix, matrix.T)
    assert (matrix.diagonal() == 0).all()


def test_ranges_layouts_and_kinds_agree(floats):
    bytes_ = (floats * 255).round().to(torch.uint8)
    exact = bytes_.to(torch.float64) / 255
    matrices = [
        lpipstore.distance_matrix(bytes_, **MODEL),
        lpipstore.distance_matrix(list(bytes_), **MODEL),
        lpipstore.distance_matrix([image.permute(1, 2, 0).numpy() for image in bytes_], **MODEL),
        lpipstore.distance_matrix(exact.float(), value_range=(0, 1), **MODEL),
        lpipstore.distance_matrix((exact * 2 - 1).float(), value_range=(-1, 1), **MODEL),
    ]
    for matrix in matrices[1:3]:
        assert np.array_equal(matrix, matrices[0])
    for matrix in matrices[3:]:
        assert np.allclose(matrix, matrices[0], atol=1e-5)


def test_files_and_their_arrays_agree(tmp_path, draw):
    paths = draw(tmp_path / "pictures", 4, side=(40, 50))
    arrays = [np.asarray(Image.open(path)) for path in paths]
    for size in ("auto", 32, "24x32"):
        from_folder = lpipstore.distance_matrix(tmp_path / "pictures", size=size, **MODEL)
        from_list = lpipstore.distance_matrix(paths, size=size, **MODEL)
        from_arrays = lpipstore.distance_matrix(arrays, size=size, **MODEL)
        assert np.array_equal(from_folder, from_list)
        assert np.array_equal(from_folder, from_arrays)


def test_a_store_is_filled_once(floats, tmp_path):
    with lpipstore.FeatureStore(tmp_path / "store") as store:
        first = lpipstore.distance_matrix(floats, value_range=(0, 1), store=store, **MODEL)
        rows = store.stat().rows
        second = lpipstore.distance_matrix(floats, value_range=(0, 1), store=store, **MODEL)
        assert rows == store.stat().rows == 6
    third = lpipstore.distance_matrix(floats, value_range=(0, 1), store=tmp_path / "store", **MODEL)
    assert np.array_equal(first, second)
    assert np.array_equal(first, third)


def test_one_image_has_a_matrix_of_one(floats):
    assert lpipstore.distance_matrix(floats[:1], value_range=(0, 1), **MODEL).tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (torch.rand(2, 3, 32, 32), {}, "need value_range"),
        (torch.rand(2, 3, 32, 32) * 255, {"value_range": (0, 1)}, "values from .* expected"),
        (torch.full((2, 3, 32, 32), torch.nan), {"value_range": (0, 1)}, "nan to nan"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.int32), {}, "torch.int32"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), {"value_range": (0, 1)}, "from 0 to 255"),
        (torch.zeros(2, 32, 32, 3, dtype=torch.uint8), {}, r"\[32, 32, 3\]"),
        (np.zeros((2, 3, 32, 32), np.uint8), {}, r"\[3, 32, 32\]"),
        (
            [torch.zeros(3, 32, 32), torch.zeros(3, 32, 40)],
            {"value_range": (0, 1), "size": "native"},
            "one size",
        ),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), {}, "17"),
        ([], {}, "empty list"),
        (["a.png", torch.zeros(3, 32, 32)], {}, "a.png"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), {"size": "big"}, "big"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), {"memory": "lots"}, "lots"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), {"heads": "gone.pth"}, "gone.pth"),
        (torch.zeros(2, 3, 0, 0, dtype=torch.uint8), {"size": 32}, r"\[3, 0, 0\]"),
        (torch.rand(2, 3, 32, 32), {"value_range": (0, 0)}, "lowest, highest"),
        (torch.rand(2, 3, 32, 32), {"value_range": 1}, "two numbers"),
        (torch.rand(2, 3, 32, 32), {"value_range": (0, 1, 2)}, "two numbers"),
        ([np.full((32, 32, 3), None)], {"value_range": (0, 1)}, "not object"),
        ([object()], {}, "not a object"),
        ([b"path.png"], {}, "not a bytes"),
    ],
)
def test_what_cannot_be_says_what_came(images, options, message):
    with pytest.raises(UsageError, match=message) as caught:
        lpipstore.distance_matrix(images, **MODEL, **options)
    assert isinstance(caught.value, ValueError)


def test_kinds_of_numbers_and_lists_do_not_matter(floats):
    expected = lpipstore.distance_matrix(floats, value_range=(0, 1), **MODEL)
    others = (
        floats.double(),
        (image for image in floats),
        [image.permute(1, 2, 0).numpy().astype(">f4") for image in floats],
        floats * (1 + 1e-7),  # a step of rounding over the range
    )
    for images in others:
        matrix = lpipstore.distance_matrix(images, value_range=[0, 1], memory=10**9, **MODEL)
        assert np.allclose(matrix, expected, atol=1e-6)
    half = lpipstore.distance_matrix(floats.bfloat16(), value_range=(0, 1), **MODEL)
    assert np.allclose(half, expected, atol=0.05)


def test_the_callers_random_numbers_are_left_alone(pictures):
    before = torch.random.get_rng_state()
    lpipstore.distance_matrix(pictures.glob("*.png"), **MODEL)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_taps_may_be_one_name():
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    model = {"backbone": "torchvision:resnet18", "weights": "random", "heads": "none"}
    assert (lpipstore.distance_matrix(images, taps="layer1", **model) == 0).all()


def test_a_broken_file_is_not_left_out_in_silence(pictures):
    (pictures / "torn.png").write_bytes((pictures / "000.png").read_bytes()[:80])
    with pytest.raises(LpipstoreError, match="torn.png"):
        lpipstore.distance_matrix(pictures, **MODEL)


def test_importing_the_package_does_not_import_torch():
    import subprocess
    import sys

    code = "import sys, lpipstore; lpipstore.__version__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_progress_is_told_if_that_is_asked(floats, pictures, capsys):
    for images, more in ((floats, {"value_range": (0, 1)}), (pictures, {})):
        quiet = lpipstore.distance_matrix(images, **more, **MODEL)
        assert " in " not in capsys.readouterr().err
        told = lpipstore.distance_matrix(images, progress=True, **more, **MODEL)
        lines = capsys.readouterr().err.splitlines()
        assert f"images {len(told)} in " in "".join(lines)
        assert any(line.startswith("tiles 1 in ") for line in lines)
        assert np.array_equal(quiet, told)
