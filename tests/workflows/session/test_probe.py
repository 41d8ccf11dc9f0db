"""What workers are found to have: packages, the store's folder, images."""

import pytest

from lpipstore.cache.errors import LpipstoreError
from lpipstore.workflows.session.probe import probe, sees


class Client:
    """Workers that answer as this process does, changed by one function for each."""

    def __init__(self, *changes):
        self.changes = changes

    def run(self, function, *args, on_error):
        assert on_error == "return"
        return {
            f"tcp://a:{at}": change(function(*args)) for at, change in enumerate(self.changes, 1)
        }


def same(seen):
    return seen


def unshared(seen):
    return {**seen, "shares": False}


def other_torch(seen):
    return {**seen, "versions": {**seen["versions"], "torch": "0.1"}}


def without_us(seen):
    return ModuleNotFoundError("No module named 'lpipstore'")


@pytest.fixture
def store(tmp_path):
    (tmp_path / "open").mkdir()
    yield tmp_path
    assert list((tmp_path / "open").iterdir()) == []


def test_a_store_is_shared_if_all_workers_see_it(store):
    assert probe(Client(same, same), store).shared
    sight = probe(Client(same, unshared), store)
    assert not sight.shared
    assert sight.line(store) == (
        f"1 of 2 workers does not share the store at {store}: images and rows travel through the "
        "Dask scheduler"
    )
    assert "2 of 2 workers do not share" in probe(Client(unshared, unshared), store).line(store)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_torch, r"has torch 0\.1 and this process .*: rows would differ"),
        (without_us, "cannot run lpipstore"),
    ],
)
def test_workers_with_other_packages_are_named(store, change, message):
    with pytest.raises(LpipstoreError, match=f"the Dask worker tcp://a:2 {message}"):
        probe(Client(same, change), store)


def test_images_are_seen_if_all_workers_have_files_of_their_size(pictures):
    names = [str(path) for path in sorted(pictures.iterdir())]
    assert sees(Client(same, same), names)
    assert not sees(Client(same, lambda sizes: [*sizes[:-1], None]), names)
    assert not sees(Client(same, lambda sizes: [*sizes[:-1], 3]), names)
    assert sees(Client(same), ["s3://bucket/a.png"])
    assert sees(Client(same), [*names, str(pictures / "gone.png")])  # gone here, too
