"""Results to look at: groups of near-duplicates, maps of where two images differ."""

from typing import TYPE_CHECKING, Unpack

from ..session.given import Images
from ..session.keywords import Options, PathLike, settings_of
from ..session.logged import LoggedScreen
from ..viewing.run import Run
from .making import images_given

if TYPE_CHECKING:
    from ..viewing.duplicates import Duplicates
    from ..viewing.map import SpatialMap


def duplicates(
    images: "Images | Run",
    below: float | None = None,
    *,
    linkage: str = "single",
    keep: str = "largest",
    **options: Unpack[Options],
) -> "Duplicates":
    """Find groups of near-duplicates and the image of each to keep; nothing is deleted.

    Parameters
    ----------
    images
        A run of `pairs` or `below`, or images as for `pairs`.
    below
        Images closer than this are near-duplicates; None takes what the distances suggest.
    linkage
        "single": chains of close images are one group; "complete": all are close to all.
    keep
        "largest", "sharpest" or "first": which image of a group comes first.

    Returns
    -------
    Duplicates
        ``groups``, each with its paths; ``table()`` has a line for each image.

    Examples
    --------
    >>> import lpipstore, torch
    >>> pictures = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> pictures[3] = pictures[1] * 0.99
    >>> found = lpipstore.duplicates(pictures, 0.01, value_range=(0, 1), weights="random")
    >>> [group.paths for group in found.groups]
    [['python://images/1', 'python://images/3']]
    """
    from ..viewing.duplicates import find_duplicates

    given = [images.path] if isinstance(images, Run) else images_given(images, options)
    with LoggedScreen(progress=options.get("progress", False)) as screen:
        return find_duplicates(
            given, settings_of(options), screen, below=below, linkage=linkage, keep=keep
        )


def spatial_map(
    a: PathLike | Images, b: PathLike | Images, **options: Unpack[Options]
) -> "SpatialMap":
    """Compute where two images differ, with the contribution of each tap of the backbone.

    Parameters
    ----------
    a, b
        Each a name (a path, a URL, ``shard.tar#cat.jpg``), an array [height, width, 3], a tensor
        [3, height, width] or a Pillow image.

    Returns
    -------
    SpatialMap
        ``distance`` as `score` computes it, ``taps`` (they add up to it), ``map`` float32 [height,
        width], and ``save(path, overlay=False)`` draws them.

    Raises
    ------
    UsageError
        An argument is invalid, or there is no such image.
    LpipstoreError
        An image cannot be used.

    Examples
    --------
    >>> import lpipstore, torch
    >>> one, two = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> found = lpipstore.spatial_map(one, two, value_range=(0, 1), weights="random")
    >>> found.map.shape, len(found.taps), abs(sum(found.taps.values()) - found.distance) < 1e-9
    ((64, 64), 5, True)
    """
    from ..viewing.map import map_images

    with LoggedScreen(progress=options.get("progress", False)) as screen:
        return map_images(a, b, settings_of(options), screen)
