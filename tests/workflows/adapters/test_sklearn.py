"""The transformer of scikit-learn: its own checks, and LPIPS as squared Euclidean distances."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks
from sklearn.utils.validation import validate_data

import lpipstore
from lpipstore.cache.errors import LpipstoreError, UsageError
from lpipstore.sklearn import LPIPSEmbedding

MODEL = {"backbone": "squeeze", "weights": "random"}


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)


def squared(vectors):
    return np.square(vectors[:, None].astype(float) - vectors[None]).sum(-1)


class OfTables(LPIPSEmbedding):
    """Takes the tables of numbers that scikit-learn's checks make, as pictures of their lines.

    What is checked is what `LPIPSEmbedding` makes of pictures.
    """

    def _pictures(self, X, reset):
        X = validate_data(self, X, reset=reset, dtype=[np.float64, np.float32])
        levels = 1 / (1 + np.exp(-np.float64(X) / (1 + np.abs(X))))
        columns = np.arange(24 * 24 * 3) % X.shape[1]
        return (levels[:, columns] * 255).astype(np.uint8).reshape(-1, 24, 24, 3)

    def fit(self, X, y=None):
        return super().fit(self._pictures(X, True))

    def transform(self, X):
        if hasattr(self, "n_features_in_"):
            X = self._pictures(X, False)
        return super().transform(X)

    def fit_transform(self, X, y=None):
        return super().fit_transform(self._pictures(X, True))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.no_validation = False
        return tags


@parametrize_with_checks(
    [OfTables(**MODEL, workers=0), OfTables(2, **MODEL, workers=0)],
    expected_failed_checks=lambda _: {},
)
def test_checks_of_scikit_learn(estimator, check):
    torch.set_num_threads(1)
    check(estimator)


def test_lines_of_a_table_are_no_images():
    assert not get_tags(LPIPSEmbedding()).input_tags.two_d_array
    with pytest.warns(SkipTestWarning, match="Can't test estimator LPIPSEmbedding"):
        done = check_estimator(LPIPSEmbedding())
    assert {one["status"] for one in done} == {"passed"}  # those that need no data
    with pytest.raises(ValueError, match=r"X must have the shape .*, and \[20, 3\] came"):
        LPIPSEmbedding(**MODEL).fit(np.zeros((20, 3)))


def test_squared_euclidean_distances_are_lpips(pixels):
    embedding = LPIPSEmbedding(**MODEL)
    vectors = embedding.fit_transform(pixels)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(
        squared(vectors), lpipstore.distance_matrix(pixels, **MODEL), atol=1e-6
    )
    assert np.array_equal(embedding.fit(pixels).transform(pixels), vectors)
    names = embedding.get_feature_names_out()
    assert names.tolist()[:2] == ["lpipsembedding0", "lpipsembedding1"]
    assert len(names) == vectors.shape[1]


def test_projections_are_lower_bounds(pixels):
    true = lpipstore.distance_matrix(pixels, **MODEL)
    before = np.zeros_like(true)
    for count in (1, 3, 8):  # six images differ in five directions
        embedding = LPIPSEmbedding(count, **MODEL)
        vectors = embedding.fit_transform(pixels)
        assert vectors.shape == (6, count)
        found = squared(vectors)
        assert (found <= true + 1e-6).all()
        assert found.sum() >= before.sum() - 1e-6
        before = found
        assert np.array_equal(embedding.transform(pixels[::-1]), vectors[::-1])
        assert np.array_equal(pickle.loads(pickle.dumps(embedding)).transform(pixels), vectors)
    assert not vectors[:, 5:].any()


def test_paths_arrays_tensors_pillow_images_and_columns_are_samples(pixels, tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(len(pixels))]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    embedding = LPIPSEmbedding(**MODEL, value_range=(0, 255)).fit(pixels)
    expected = embedding.transform(pixels)
    ways = [
        paths,
        list(map(str, paths)),
        pd.Series(list(map(str, paths))),
        pd.DataFrame({"path": list(map(str, paths))}),
        np.array(list(map(str, paths))),
        list(pixels),
        torch.from_numpy(pixels).permute(0, 3, 1, 2),
        [Image.fromarray(image) for image in pixels],
        [paths[0], pixels[1], Image.fromarray(pixels[2]), *paths[3:]],
    ]
    for way in ways:
        assert np.array_equal(embedding.transform(way), expected)
    twice = embedding.transform([paths[0], paths[1], paths[0]])
    assert np.array_equal(twice, expected[[0, 1, 0]])


def test_transform_scales_to_the_size_of_fit(pixels):
    embedding = LPIPSEmbedding(**MODEL).fit(pixels)
    assert embedding.size_ == (32, 32)
    large = np.random.default_rng(1).integers(0, 256, (2, 48, 40, 3), np.uint8)
    assert embedding.transform(large).shape == (2, embedding._n_features_out)


def test_in_a_pipeline_neighbours_are_those_of_lpips(pixels):
    search = make_pipeline(LPIPSEmbedding(**MODEL), NearestNeighbors(n_neighbors=2))
    search.fit(pixels)
    vectors = search[0].transform(pixels)
    _, found = search[1].kneighbors(vectors)
    true = lpipstore.distance_matrix(pixels, **MODEL)
    assert np.array_equal(found, np.argsort(true, 1, kind="stable")[:, :2])
    table = clone(search[0]).set_output(transform="pandas").fit_transform(pixels)
    assert list(table.columns[:1]) == ["lpipsembedding0"]


def test_each_image_goes_through_the_trunk_once(pixels, tmp_path, monkeypatch):
    from lpipstore.pipeline.features.features import Features

    computed, compute = [], Features._compute

    def counted(self, contents):
        for batch, rows in compute(self, contents):
            computed.extend(batch)
            yield batch, rows

    monkeypatch.setattr(Features, "_compute", counted)
    LPIPSEmbedding(2, **MODEL).fit_transform(pixels)
    assert len(computed) == len(set(computed)) == 6
    computed.clear()
    kept = LPIPSEmbedding(2, **MODEL, store=tmp_path / "store")
    kept.fit(pixels).transform(pixels)
    assert len(computed) == 6


def test_bad_samples(pixels, tmp_path):
    embedding = LPIPSEmbedding(**MODEL)
    with pytest.raises(NotFittedError):
        embedding.transform(pixels)
    with pytest.raises(UsageError, match="list the images, as by sorted"):
        embedding.fit(str(tmp_path))
    with pytest.raises(UsageError, match="X has 0 samples"):
        embedding.fit([])
    with pytest.raises(UsageError, match="and sample 1 is a int"):
        embedding.fit([pixels[0], 3])
    with pytest.raises(UsageError, match="X must be a sequence of images, not a generator"):
        embedding.fit(image for image in pixels)
    with pytest.raises(LpipstoreError, match="sample 1, .*gone.png"):
        embedding.fit([pixels[0], tmp_path / "gone.png"])
    with pytest.raises(UsageError, match="floating-point images need value_range"):
        embedding.fit(pixels / 255)
    with pytest.raises(UsageError, match="n_components must be a whole number or None, not 2.5"):
        LPIPSEmbedding(2.5, **MODEL).fit(pixels)
    with pytest.raises(UsageError, match="dims=0 must be from 1 to the 24,768 numbers in a row"):
        LPIPSEmbedding(0, **MODEL).fit(pixels)


def test_negative_heads_have_no_vectors(pixels, tmp_path):
    from lpipstore.pipeline.distances.heads import make_head, save_head

    channels = (64, 128, 256, 384, 384, 512, 512)
    weights = [np.full(count, 0.1, np.float32) for count in channels]
    weights[2][5] = -0.1
    save_head(make_head(weights, "negative"), tmp_path / "head.pth")
    with pytest.raises(UsageError, match="has 1 negative weights, and its distances are not those"):
        LPIPSEmbedding(**MODEL, heads=str(tmp_path / "head.pth")).fit(pixels)


def test_other_weights_than_those_of_fit_are_refused(pixels, tmp_path):
    state = lpipstore.LPIPS("squeeze", weights="random").trunk.state_dict()
    torch.save(state, tmp_path / "trunk.pth")
    model = {"backbone": "squeeze", "weights": str(tmp_path / "trunk.pth")}
    embedding = LPIPSEmbedding(**model).fit(pixels)
    state["features.0.bias"] += 1
    torch.save(state, tmp_path / "trunk.pth")
    with pytest.raises(LpipstoreError, match="not those that were fitted: fit again"):
        embedding.transform(pixels)


def test_nothing_is_printed_and_no_warning_is_shown(pixels, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LPIPSEmbedding(2, **MODEL).fit(pixels)
    assert capsys.readouterr() == ("", "")
