"""Search a collection, exactly, without computing all distances."""

from typing import Unpack

from ..session.given import Images
from ..session.keywords import Options, PathLike, count_of, distance_of
from ..viewing.run import Run
from .making import finished_run, images_given, making_run


def nearest(
    images: Images,
    k: int = 10,
    *,
    below: float | None = None,
    out: PathLike | None = None,
    **options: Unpack[Options],
) -> Run:
    """Find the `k` nearest images of each image, exactly, without computing all distances.

    Parameters
    ----------
    below
        List only neighbours closer than this.

    Returns
    -------
    Run
        ``run.pairs`` has a line for each image and neighbour: i, rank, j, path_i, path_j, distance.

    Examples
    --------
    >>> import lpipstore, torch
    >>> pictures = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> run = lpipstore.nearest(pictures, 2, value_range=(0, 1), weights="random")
    >>> run.pairs.num_rows
    12
    """
    return _close(images, below, k, out, options)


def neighbours(
    images: Images | Run,
    query: Images,
    k: int | None = None,
    *,
    below: float | None = None,
    out: PathLike | None = None,
    **options: Unpack[Options],
) -> Run:
    """Find the images of a collection that are nearest to new ones, exactly.

    Parameters
    ----------
    images
        The collection, as for `pairs`; or a run, whose settings are taken, and none of whose images
        goes through the backbone again as long as the store has their rows.
    query
        The new images, as for `pairs`.
    k
        Neighbours of each; None is 10, or without limit where `below` is given.
    below
        List only images closer than this.
    options
        Of a run, `store` must be its store.

    Returns
    -------
    Run
        As of ``compare(query, images, k=k)``: i is the number of the query, j that of the image in
        the collection.

    Examples
    --------
    >>> import lpipstore, torch
    >>> pictures = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> run = lpipstore.pairs(pictures, value_range=(0, 1), weights="random")
    >>> near = lpipstore.neighbours(run, pictures[4] * 0.99, 2, value_range=(0, 1))
    >>> near.pairs["j"][0].as_py(), near.pairs.num_rows
    (4, 2)
    """
    from ..viewing.neighbours import find_neighbours

    distance, k = distance_of(below), count_of(k)
    asked = images_given(query, options, "query")
    given = [images.path] if isinstance(images, Run) else images_given(images, options)
    with making_run(out, options) as (making, settings, screen):
        find_neighbours(given, asked, making.folder, settings, screen, below=distance, top_k=k)
    return finished_run(making, out)


def below(
    images: Images, distance: float, *, out: PathLike | None = None, **options: Unpack[Options]
) -> Run:
    """Find all pairs closer than a distance, exactly, without computing all distances.

    Returns
    -------
    Run
        ``run.pairs`` has the pairs, the closest first: i, j, path_i, path_j, distance.

    Examples
    --------
    >>> import lpipstore, torch
    >>> pictures = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> pictures[3] = pictures[1]
    >>> run = lpipstore.below(pictures, 0.01, value_range=(0, 1), weights="random")
    >>> run.pairs.select(["i", "j", "distance"]).to_pylist()
    [{'i': 1, 'j': 3, 'distance': 0.0}]
    """
    return _close(images, distance, None, out, options)


def _close(
    images: Images,
    distance: float | None,
    k: int | None,
    out: PathLike | None,
    options: Options,
) -> Run:
    from ..scoring.close_pairs import find_close

    distance, k = distance_of(distance), count_of(k)
    given = images_given(images, options)
    with making_run(out, options) as (making, settings, screen):
        find_close(given, making.folder, settings, screen, below=distance, top_k=k)
    return finished_run(making, out)
