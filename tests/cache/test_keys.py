import pytest

from lpipstore.cache.errors import UsageError
from lpipstore.cache.keys import PoolSpec

RECIPE = {"backbone": "squeeze", "size": "64x64"}


def spec(**changes):
    return PoolSpec(**{"name": "a", "length": 4, "dtype": "uint16", "recipe": RECIPE, **changes})


def test_the_digest_is_of_everything_but_the_name():
    digest = spec().digest
    assert spec(name="b").digest == digest
    assert spec(recipe=dict(reversed(RECIPE.items()))).digest == digest
    others = [
        spec(length=5),
        spec(dtype="int16"),
        spec(recipe={**RECIPE, "size": "65x64"}),
        spec(recipe={"size": "64x64"}),
    ]
    assert len({digest, *(other.digest for other in others)}) == 5


def test_keys_stay_the_same_over_versions():
    # a change here makes every row of every store out there a miss: it needs a format version
    assert spec().key(b"\x00" * 16).hex() == "af32400430d7155b555e2d81b1c0ac86"


def test_keys_depend_on_pool_and_content():
    keys = {spec().key(b"x"), spec().key(b"y"), spec(length=5).key(b"x")}
    assert len(keys) == 3
    assert all(len(key) == 16 for key in keys)


def test_the_folder_is_safe_for_a_path():
    folder = spec(name="torchvision:resnet50/../x 224×224").folder
    assert "/" not in folder and "." not in folder and ":" not in folder
    assert folder.endswith(spec().digest[:6].hex())


@pytest.mark.parametrize("changes", [{"dtype": "float16"}, {"length": 0}])
def test_what_the_store_cannot_keep_is_refused(changes):
    with pytest.raises(UsageError, match=str(next(iter(changes.values())))):
        spec(**changes)
