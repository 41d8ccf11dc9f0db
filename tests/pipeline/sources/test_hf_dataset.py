"""Datasets of Hugging Face's library, as a program gives them."""

import io

import datasets
import numpy as np
import pytest
from PIL import Image

import lpipstore
from lpipstore.cache.errors import UsageError
from lpipstore.pipeline.sources.kinds.hf_dataset import DatasetImages, is_dataset
from lpipstore.pipeline.sources.kinds.image_tables import ImageTable
from lpipstore.pipeline.sources.source import ImageError

IMAGE = datasets.Image()


def png(number) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


IMAGES = [png(number) for number in range(10)]


def made(**columns):
    features = {name: IMAGE if name.startswith("im") else None for name in columns}
    dataset = datasets.Dataset.from_dict(columns)
    for name in (name for name, feature in features.items() if feature):
        dataset = dataset.cast_column(name, IMAGE)
    return dataset


def cells(images=IMAGES):
    return [{"bytes": data, "path": None} for data in images]


def read_all(source):
    return [source.read(member) for member in source.list().members]


def test_encoded_images_are_read_as_they_are_stored():
    dataset = made(image=cells(), label=list(range(10)))
    assert isinstance(dataset[0]["image"], Image.Image)
    source = DatasetImages(dataset)
    assert source.list().members == [str(n) for n in range(10)]
    assert read_all(source) == IMAGES
    assert source.version("3") is None


def test_rows_that_were_chosen_and_their_order_are_respected():
    dataset = made(image=cells(), label=list(range(10)))
    chosen = dataset.shuffle(seed=0).select([3, 1, 4])
    assert read_all(DatasetImages(chosen)) == [IMAGES[n] for n in chosen["label"]]
    joined = datasets.concatenate_datasets([dataset.select([1]), dataset.select([7, 8])])
    assert read_all(DatasetImages(joined)) == [IMAGES[n] for n in (1, 7, 8)]


def test_formats_and_transforms_do_not_matter():
    dataset = made(image=cells(), label=list(range(10)))
    for other in (
        dataset.with_format("numpy"),
        dataset.with_transform(lambda batch: {"label": [0]}),
    ):
        assert read_all(DatasetImages(other)) == IMAGES


def test_images_that_are_only_paths_are_read(tmp_path):
    (tmp_path / "a.png").write_bytes(IMAGES[0])
    places = [str(tmp_path / "a.png"), str(tmp_path / "gone.png"), None]
    source = DatasetImages(made(image=places))
    assert source.read("0") == IMAGES[0]
    for member, said in ("1", "no such file"), ("2", "null"):
        with pytest.raises(ImageError, match=said):
            source.read(member)


def test_what_the_library_saves_is_a_source_too(tmp_path):
    dataset = made(image=cells(), label=list(range(10)))
    dataset.to_parquet(str(tmp_path / "a.parquet"))
    dataset.save_to_disk(str(tmp_path / "saved"))
    [arrow] = (tmp_path / "saved").glob("*.arrow")
    for path in tmp_path / "a.parquet", arrow:
        assert read_all(ImageTable(str(path))) == IMAGES


def test_the_column_is_chosen_or_asked_for():
    dataset = made(image=cells(), image2=cells(IMAGES[::-1]))
    with pytest.raises(UsageError, match="several columns can hold images: image, image2"):
        DatasetImages(dataset)
    assert read_all(DatasetImages(dataset, "image2")) == IMAGES[::-1]
    assert read_all(DatasetImages(made(raw=IMAGES, n=list(range(10))))) == IMAGES
    with pytest.raises(UsageError, match="has no column x"):
        DatasetImages(dataset, "x")


def test_arrays_of_pixels_are_refused_with_advice():
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    features = datasets.Features({"pixels": datasets.Array3D((8, 8, 3), "uint8")})
    dataset = datasets.Dataset.from_dict({"pixels": pixels}, features=features)
    with pytest.raises(UsageError, match=r"cast_column\(NAME, datasets.Image\(\)\)"):
        DatasetImages(dataset)


def test_dictionaries_of_splits_and_streams_are_refused():
    dataset = made(image=cells())
    assert is_dataset(dataset)
    assert not is_dataset([1])
    with pytest.raises(UsageError, match="choose one of its splits, train, test"):
        is_dataset(datasets.DatasetDict(train=dataset, test=dataset))
    with pytest.raises(UsageError, match="without streaming=True"):
        is_dataset(dataset.to_iterable_dataset())


def test_distance_matrix_takes_a_dataset(tmp_path):
    options = {"weights": "random", "size": 64, "store": tmp_path / "store"}
    paths = []
    for number, data in enumerate(IMAGES):
        paths.append(tmp_path / f"{number}.png")
        paths[-1].write_bytes(data)
    expected = lpipstore.distance_matrix(paths, **options)
    dataset = made(image=cells(), label=list(range(10)))
    assert (lpipstore.distance_matrix(dataset, **options) == expected).all()
    order = [4, 2, 9]
    part = lpipstore.distance_matrix(dataset.select(order), **options)
    assert np.allclose(part, expected[np.ix_(order, order)], rtol=0, atol=1e-6)
    with pytest.raises(lpipstore.LpipstoreError, match="images/1: the entry is null"):
        lpipstore.distance_matrix(made(image=[cells()[0], None]), **options)
    with pytest.raises(UsageError, match="choose one of its splits"):
        lpipstore.distance_matrix(datasets.DatasetDict(train=dataset), **options)
    with pytest.raises(lpipstore.LpipstoreError, match="no images in"):
        lpipstore.distance_matrix(dataset.select([]), **options)
    dataset.to_parquet(str(tmp_path / "a.parquet"))
    assert (lpipstore.distance_matrix(tmp_path / "a.parquet", **options) == expected).all()
