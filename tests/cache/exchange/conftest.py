"""A remote folder, stores that push to it and fetch from it, and the lines of warnings."""

import pytest

from lpipstore.cache.store import FeatureStore

from .remote import LIMIT, SPEC, Folder, fill


@pytest.fixture
def folder():
    return Folder()


@pytest.fixture
def warnings():
    """The lines of warnings."""
    return []


@pytest.fixture
def make(tmp_path):
    """A function that opens stores, each in a folder of its own, with some rows."""
    opened = []

    def make_one(numbers=(), spec=SPEC, **options):
        store = FeatureStore(tmp_path / f"store{len(opened)}", **{"limit": LIMIT, **options})
        opened.append(store)
        if len(numbers):
            fill(store, numbers, spec)
        return store

    yield make_one
    for store in opened:
        store.close()
