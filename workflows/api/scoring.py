"""Score pairs: of one collection, of two, of a list, within groups."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Unpack

from ...cache.errors import UsageError
from ..session.given import Images, pairs_of
from ..session.keywords import Options, PathLike, count_of, distance_of, is_path
from ..viewing.run import Run
from .making import finished_run, images_given, making_run


def pairs(images: Images, *, out: PathLike | None = None, **options: Unpack[Options]) -> Run:
    """Score all pairs of a collection; each image goes through the backbone once, ever.

    Parameters
    ----------
    images
        Paths, URLs or patterns, tensors [N, 3, height, width], arrays [N, height, width, 3], single
        images, Pillow images, a Hugging Face dataset, or any mixture of those in a list.
    out
        Folder of the run, or a URL such as "s3://bucket/run"; the same call with the same `out`
        goes on where it was interrupted. None keeps the results as long as the returned object.

    Returns
    -------
    Run
        ``run.distances`` is the matrix [N, N], ``run.condensed()`` its upper half.

    Raises
    ------
    UsageError
        An argument is invalid; also a ValueError.
    LpipstoreError
        Fewer than two images can be used, or the run cannot be written.

    Examples
    --------
    >>> import lpipstore, torch
    >>> pictures = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> run = lpipstore.pairs(pictures, value_range=(0, 1), weights="random")
    >>> run.summary["images"], run.distances.shape, run.condensed().shape
    (4, (4, 4), (6,))
    """
    from ..scoring.all_pairs import score_pairs

    given = images_given(images, options)
    with making_run(out, options) as (making, settings, screen):
        score_pairs(given, making.folder, settings, screen)
    return finished_run(making, out)


def compare(
    first: Images,
    second: Images,
    *,
    out: PathLike | None = None,
    paired: bool = False,
    match: str = "name",
    statistics: bool = False,
    k: int | None = None,
    below: float | None = None,
    **options: Unpack[Options],
) -> Run:
    """Score each image of one collection against each of another, or against its namesake.

    With `k` or `below` only close pairs are listed, exactly, without computing all distances.

    Parameters
    ----------
    first, second
        As for `pairs`.
    paired
        Only pairs of the same name within their folder or archive; images in memory are paired by
        their numbers.
    match
        With `paired`: "name", or "stem" to pair a.png with a.jpg.
    statistics
        With `paired`: keep the statistics of the pairs, so that other heads need no rows.
    k
        List for each image of the first collection the `k` nearest of the second.
    below
        List only pairs closer than this; without `k`, all of them, the closest first.

    Returns
    -------
    Run
        ``run.distances`` is the matrix [N, M]; with `paired`, `k` or `below`, ``run.pairs`` has the
        pairs.

    Examples
    --------
    >>> import lpipstore, torch
    >>> pictures = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> run = lpipstore.compare(pictures[:2], pictures[2:], value_range=(0, 1), weights="random")
    >>> run.distances.shape
    (2, 3)
    >>> near = lpipstore.compare(
    ...     pictures[:2], pictures[1:], k=1, value_range=(0, 1), weights="random"
    ... )
    >>> near.pairs.select(["i", "j"]).to_pylist()[1], near.pairs["distance"][1].as_py()
    ({'i': 1, 'j': 0}, 0.0)
    """
    from ..scoring.close_across import compare_close
    from ..scoring.compare import compare_folders, compare_paired

    distance, k = distance_of(below), count_of(k)
    close = distance is not None or k is not None
    if close and paired:
        raise UsageError("k and below search all pairs: leave out paired=True")
    one, two = images_given(first, options, "first"), images_given(second, options, "second")
    with making_run(out, options) as (making, settings, screen):
        if paired:
            compare_paired(
                one, two, making.folder, settings, screen, match=match, statistics=statistics
            )
        elif statistics or match != "name":
            raise UsageError("statistics and match are about paired images: give paired=True, too")
        elif close:
            compare_close(one, two, making.folder, settings, screen, below=distance, top_k=k)
        else:
            compare_folders(one, two, making.folder, settings, screen)
    return finished_run(making, out)


def score(
    pairs: PathLike | Iterable[tuple[Any, Any]],
    *,
    out: PathLike | None = None,
    columns: tuple[str, str] | None = None,
    images: PathLike | None = None,
    statistics: bool = False,
    **options: Unpack[Options],
) -> Run:
    """Score a list of pairs.

    Parameters
    ----------
    pairs
        A table (.csv, .tsv, .parquet) with two columns of paths, or pairs of paths, arrays
        [height, width, 3], tensors [3, height, width] or Pillow images.
    columns
        The two columns of a table; None finds them by their names.
    images
        The folder that the paths of a table start from; None is that of the table.
    statistics
        Keep the statistics of the pairs, so that other heads need no rows.

    Returns
    -------
    Run
        ``run.pairs`` has the pairs in their order: i, j, path_i, path_j, distance.

    Examples
    --------
    >>> import lpipstore, torch
    >>> a, b = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> run = lpipstore.score([(a, b), (a, a)], value_range=(0, 1), weights="random")
    >>> [round(d, 3) > 0 for d in run.pairs["distance"].to_pylist()]
    [True, False]
    """
    from ..scoring.table import score_list, score_table

    with making_run(out, options) as (making, settings, screen):
        if is_path(pairs):
            score_table(
                Path(pairs),
                making.folder,
                settings,
                screen,
                columns=None if columns is None else ",".join(columns),
                images=None if images is None else Path(images),
                statistics=statistics,
            )
        else:
            if columns is not None or images is not None:
                raise UsageError("columns and images are about tables, and a list of pairs came")
            listed, held = pairs_of(pairs, options.get("value_range"))
            score_list(listed, making.folder, settings, screen, given=[held], statistics=statistics)
    return finished_run(making, out)


def groups(
    images: Images | Mapping[str, Images],
    *,
    out: PathLike | None = None,
    **options: Unpack[Options],
) -> Run:
    """Score the pairs within each group of images: the diversity of each, and their mean.

    Parameters
    ----------
    images
        As for `pairs`, where every folder, and every archive, is a group that is called as it is;
        or a mapping from names to images in memory.

    Returns
    -------
    Run
        ``run.groups`` has a line for each group (group, images, pairs, mean, std, stderr),
        ``run.pairs`` the pairs with their group.

    Examples
    --------
    >>> import lpipstore, torch
    >>> pictures = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> sets = {"whole": pictures[:4], "half": pictures[4:] / 2}
    >>> run = lpipstore.groups(sets, value_range=(0, 1), weights="random")
    >>> run.groups.select(["images", "pairs"]).to_pylist()
    [{'images': 4, 'pairs': 6}, {'images': 2, 'pairs': 1}]
    """
    from ..scoring.groups import score_groups

    named = images if isinstance(images, Mapping) else {"images": images}
    given = [
        one for name, group in named.items() for one in images_given(group, options, str(name))
    ]
    if not given:
        raise UsageError("an empty mapping of groups came")
    if isinstance(images, Mapping) and (paths := [str(one) for one in given if is_path(one)]):
        raise UsageError(
            f"a mapping names groups of images in memory, and {paths[0]} came: give a list of "
            "folders and files, which are called as they are"
        )
    with making_run(out, options) as (making, settings, screen):
        score_groups(given, making.folder, settings, screen)
    return finished_run(making, out)
