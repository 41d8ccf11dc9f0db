"""Put the rows of images into a store, as long as it takes them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...cache.errors import StoreFull
from ...cache.keys import PoolSpec
from ...cache.store import FeatureStore


def store_rows(
    store: FeatureStore, spec: PoolSpec, contents: Sequence[bytes], rows: NDArray[np.generic]
) -> str | None:
    """Put the rows of images into a store; return the reason if it takes no more."""
    try:
        kept = store.put_many(spec, [spec.key(content) for content in contents], rows)
    except StoreFull as error:
        return error.message
    return None if kept == len(contents) else has_no_room(store)


def has_no_room(store: FeatureStore) -> str:
    """Return the reason why a store that is at its limit takes no more rows."""
    return f"the store at {store.path} has reached its limit"
