"""What is counted before a run: work grows with the images, and not with their square."""

from types import SimpleNamespace

import pytest

from lpipstore.pipeline.features.features import Features
from lpipstore.workflows.session import estimate as module
from lpipstore.workflows.session.estimate import Work, estimate


class Counted(bytes):
    """A content hash that counts how often it is looked up."""

    looked_up = 0

    def __hash__(self):
        Counted.looked_up += 1
        return super().__hash__()


@pytest.fixture
def look_ups(monkeypatch):
    """A function that counts the look-ups for so many images, half of them in the store."""
    for name in ("forward", "reading", "product"):
        monkeypatch.setattr(module, f"_seconds_of_{name}", lambda *_: 0.0)

    def count(images):
        contents = [Counted(b"%016d" % number) for number in range(images)]
        features = Features(
            extractor=SimpleNamespace(spec=SimpleNamespace(row_bytes=2, key=bytes)),
            store=SimpleNamespace(missing=lambda keys: keys[::2]),
            decode=None,
        )
        Counted.looked_up = 0
        found = estimate(features, contents, None, Work(0, 0, 0, 0, 0), 1)
        assert (found.forwards, found.hits) == (images // 2, images // 2)
        return Counted.looked_up

    return count


def test_four_times_the_images_take_four_times_the_look_ups(look_ups):
    assert look_ups(4000) <= 4 * look_ups(1000)
