"""The Python face: what the commands do, as functions that take images and return runs.

Every function also takes the keyword arguments of `lpipstore.workflows.session.keywords.Options`.
Nothing is printed unless ``progress=True``; messages go to the logger ``lpipstore``.
"""

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from ..cache.errors import UsageError
from ..pipeline.common.text import printable
from ..pipeline.sources.names import is_url
from .session.given import Images, pairs_of, sources_of
from .session.keywords import (
    Options,
    OptionsWithoutHead,
    PathLike,
    count_of,
    distance_of,
    is_path,
    need_same,
    settings_of,
)
from .session.logged import LoggedScreen
from .session.settings import Settings
from .session.staging import Staged, staged_run
from .viewing.run import Run, open_run

if TYPE_CHECKING:
    import pyarrow

    from .adapters.embeddings import Embeddings
    from .exporting.model import CheckedModel, ExportedModel
    from .learning.options import TrainOptions
    from .viewing.duplicates import Duplicates
    from .viewing.map import SpatialMap


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
    from .scoring.all_pairs import score_pairs

    given = _given(images, options)
    with _making(out, options) as (making, settings, screen):
        score_pairs(given, making.folder, settings, screen)
    return _run(making, out)


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
    from .scoring.close_across import compare_close
    from .scoring.compare import compare_folders, compare_paired

    distance, k = distance_of(below), count_of(k)
    close = distance is not None or k is not None
    if close and paired:
        raise UsageError("k and below search all pairs: leave out paired=True")
    one, two = _given(first, options, "first"), _given(second, options, "second")
    with _making(out, options) as (making, settings, screen):
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
    return _run(making, out)


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
    from .scoring.table import score_list, score_table

    with _making(out, options) as (making, settings, screen):
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
    return _run(making, out)


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
    from .viewing.neighbours import find_neighbours

    distance, k = distance_of(below), count_of(k)
    asked = _given(query, options, "query")
    given = [images.path] if isinstance(images, Run) else _given(images, options)
    with _making(out, options) as (making, settings, screen):
        find_neighbours(given, asked, making.folder, settings, screen, below=distance, top_k=k)
    return _run(making, out)


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
    from .scoring.groups import score_groups

    named = images if isinstance(images, Mapping) else {"images": images}
    given = [one for name, group in named.items() for one in _given(group, options, str(name))]
    if not given:
        raise UsageError("an empty mapping of groups came")
    if isinstance(images, Mapping) and (paths := [str(one) for one in given if is_path(one)]):
        raise UsageError(
            f"a mapping names groups of images in memory, and {paths[0]} came: give a list of "
            "folders and files, which are called as they are"
        )
    with _making(out, options) as (making, settings, screen):
        score_groups(given, making.folder, settings, screen)
    return _run(making, out)


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
    from .viewing.duplicates import find_duplicates

    given = [images.path] if isinstance(images, Run) else _given(images, options)
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
    from .viewing.map import map_images

    with LoggedScreen(progress=options.get("progress", False)) as screen:
        return map_images(a, b, settings_of(options), screen)


def embeddings(
    images: "Images | Run", dims: int | None = None, **options: Unpack[Options]
) -> "Embeddings":
    """Return a vector for each image, whose squared Euclidean distances are LPIPS.

    For more than fits in memory there is ``lpipstore export embeddings``.

    Parameters
    ----------
    images
        As for `pairs`; or a run, whose images, backbone and head are taken.
    dims
        Project the vectors to so many numbers, along the directions in which the images differ
        most: squared distances are then lower bounds of LPIPS, up to rounding. None keeps rows
        whole: D numbers, such as 31,872 with alex at 64 pixels.

    Returns
    -------
    Embeddings
        ``vectors``, float32 [N, D or dims], and ``names``, the path of each image. Images that
        cannot be used have none.

    Raises
    ------
    UsageError
        The head has negative weights, or the vectors take more than `memory`.
    LpipstoreError
        No image can be used.

    Examples
    --------
    >>> import lpipstore, numpy as np, torch
    >>> pictures = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> vectors, names = lpipstore.embeddings(pictures, value_range=(0, 1), weights="random")
    >>> vectors.shape, names[3]
    ((4, 31872), 'python://images/3')
    >>> run = lpipstore.pairs(pictures, value_range=(0, 1), weights="random")
    >>> squared = np.square(vectors[0] - vectors[1]).sum()
    >>> bool(abs(squared - run.condensed()[0]) < 1e-5)
    True
    """
    from .adapters.embeddings import embeddings_in_memory

    given = [images.path] if isinstance(images, Run) else _given(images, options)
    with LoggedScreen(progress=options.get("progress", False)) as screen:
        return embeddings_in_memory(given, settings_of(options), screen, dims=dims)


def rescore(
    run: Run | PathLike,
    heads: PathLike | Run,
    *,
    out: PathLike | None = None,
    compute: bool = True,
    from_rows: bool = False,
    **options: Unpack[OptionsWithoutHead],
) -> Run:
    """Score the pairs of a finished run under another head, from the store: no backbone runs.

    Parameters
    ----------
    run
        A run of any of the other functions or of the command.
    heads
        A head file, "none", "stock", or a run of `train`.
    compute
        Compute rows that the store has lost; if False, they are an error.
    from_rows
        Read rows even if statistics were kept.
    options
        Backbone, size and so on are those of the run, and may be given if they are the same;
        `store` must be the store of the run.

    Raises
    ------
    UsageError
        An option is not what the run was made with.
    LpipstoreError
        Rows are not in the store, and their images are gone.

    Examples
    --------
    >>> import lpipstore, torch
    >>> pictures = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> run = lpipstore.pairs(pictures, value_range=(0, 1), weights="random")
    >>> plain = lpipstore.rescore(run, "none")
    >>> plain.summary["forwards"], plain.distances.shape
    (0, (4, 4))
    """
    from ..pipeline.runs.reopen import reopen_recipe
    from .rerun.rescore import rescore_run

    source = Path(run.path if isinstance(run, Run) else run)
    need_same(reopen_recipe(open_run(source)), options)
    head = str(heads.path if isinstance(heads, Run) else heads)
    with _making(out, options) as (making, settings, screen):
        rescore_run(
            source, [head], making.folder, settings, screen, compute=compute, from_rows=from_rows
        )
    return _run(making, out)


def extract(images: Images, **options: Unpack[Options]) -> dict[str, Any]:
    """Run the backbone on the images whose rows the store lacks, scoring nothing yet.

    Returns
    -------
    dict
        images, unique, failed, forwards, hits, bytes, and the seconds of each stage.

    Examples
    --------
    >>> import lpipstore, torch
    >>> pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> counts = lpipstore.extract(pictures, value_range=(0, 1), weights="random")
    >>> counts["forwards"] + counts["hits"]
    2
    """
    from .store.extract import extract_features

    settings = settings_of(options)
    with LoggedScreen(progress=options.get("progress", False)) as screen:
        return extract_features(_given(images, options), settings, screen).entries()


def train(
    judgements: PathLike | Sequence[PathLike],
    *,
    out: PathLike | None = None,
    images: PathLike | None = None,
    train_options: "TrainOptions | Mapping[str, Any] | None" = None,
    **options: Unpack[Options],
) -> Run:
    r"""Train a head on human judgements; no image goes through the backbone twice.

    Parameters
    ----------
    judgements
        Tables of judgements, or folders of BAPPS, as for ``lpipstore train``.
    images
        The folder that paths of tables start from; None is that of each table.
    train_options
        Epochs, loss and so on: a `lpipstore.workflows.learning.options.TrainOptions`, or its fields
        as a mapping.

    Returns
    -------
    Run
        The folder has ``head.pth``; give the run as `heads` to `rescore` and `evaluate`.

    Examples
    --------
    >>> import lpipstore, numpy as np, pathlib, tempfile
    >>> from PIL import Image
    >>> random, folder = np.random.default_rng(0), pathlib.Path(tempfile.mkdtemp())
    >>> for name in "abcd":
    ...     noise = random.integers(0, 256, (64, 64, 3), np.uint8)
    ...     Image.fromarray(noise).save(folder / f"{name}.png")
    >>> lines = ["ref,p0,p1,judge", *["a.png,b.png,c.png,1", "b.png,d.png,a.png,0"] * 10]
    >>> _ = (folder / "judged.csv").write_text("\n".join(lines))
    >>> short = {"epochs": 2, "held_out": 0.2}
    >>> run = lpipstore.train(folder / "judged.csv", train_options=short, weights="random")
    >>> (run.path / "head.pth").exists()
    True
    """
    from .learning.options import TrainOptions
    from .learning.train import train_head

    if out is not None and is_url(os.fspath(out)):  # its processes write and read one folder
        raise UsageError(
            f"a training takes a folder of this machine, not {printable(os.fspath(out))}: "
            "lpipstore.copy_run copies it to a URL when it is finished"
        )
    known = {field.name for field in fields(TrainOptions)}
    for name in options.keys() & known:
        raise TypeError(
            f"{name} is an option of the training: give train_options={{{name!r}: ...}}"
        )
    if not isinstance(train_options, TrainOptions):
        chosen = dict(train_options or {})
        if unknown := chosen.keys() - known:
            raise UsageError(f"there is no option {', '.join(sorted(unknown))} of a training")
        for name in ("images", "held_out_from"):
            if chosen.get(name) is not None:
                chosen[name] = Path(chosen[name])
        train_options = TrainOptions(**chosen)
    if images is not None:
        train_options = replace(train_options, images=Path(images))
    with _making(out, options) as (making, settings, screen):
        train_head(_paths(judgements), making.folder, settings, train_options, screen)
    return _run(making, out)


def evaluate(
    judgements: PathLike | Sequence[PathLike],
    heads: PathLike | Run | Sequence[PathLike | Run] = (),
    *,
    metrics: Sequence[str] | None = None,
    images: PathLike | None = None,
    split: str = "val",
    seed: int = 0,
    **options: Unpack[OptionsWithoutHead],
) -> "pyarrow.Table":
    r"""Score heads and metrics on human judgements, side by side.

    Parameters
    ----------
    heads
        Head files or runs of `train`.
    metrics
        Some of "L2", "PSNR", "SSIM", "baseline" and "stock"; None takes all.
    images
        The folder that paths of tables start from.
    split
        The split of BAPPS folders.
    seed
        Of the bootstrap.

    Returns
    -------
    pyarrow.Table
        A line for each score: kind, set, metric, score, value, low, high, count.

    Examples
    --------
    >>> import lpipstore, numpy as np, pathlib, tempfile
    >>> from PIL import Image
    >>> random, folder = np.random.default_rng(0), pathlib.Path(tempfile.mkdtemp())
    >>> for name in "abc":
    ...     noise = random.integers(0, 256, (64, 64, 3), np.uint8)
    ...     Image.fromarray(noise).save(folder / f"{name}.png")
    >>> _ = (folder / "judged.csv").write_text("ref,p0,p1,judge\na.png,b.png,c.png,1")
    >>> table = lpipstore.evaluate(folder / "judged.csv", metrics=["baseline"], weights="random")
    >>> sorted(set(table["score"].to_pylist()))
    ['2afc', 'agreement']
    """
    import pyarrow as pa

    from .learning.evaluate import METRICS, evaluate_heads

    some = [heads] if isinstance(heads, Run) or is_path(heads) else list(heads)
    with LoggedScreen(progress=options.get("progress", False)) as screen:
        summary = evaluate_heads(
            _paths(judgements),
            settings_of(options),
            screen,
            heads=[str(head.path if isinstance(head, Run) else head) for head in some],
            metrics=",".join(METRICS if metrics is None else metrics),
            images=None if images is None else Path(images),
            split=split,
            seed=seed,
        )
    return pa.Table.from_pylist(summary["scores"])


def export_model(
    out: PathLike,
    to: str | None = None,
    form: str = "pair",
    *,
    spatial: bool = False,
    pixels: str = "signed",
    opset: int | None = None,
    quantize: str | None = None,
    calibrate: PathLike | None = None,
    judgements: PathLike | None = None,
    images: PathLike | None = None,
    samples: PathLike | None = None,
    **options: Unpack[Options],
) -> "ExportedModel":
    """Write the metric as one file that runs without lpipstore; run the file and compare it.

    Parameters
    ----------
    out
        The new file; it is kept only if it deviates by 1e-5 at most.
    to
        "onnx" or "pt2" (`torch.export`); None goes by the ending of `out`, else "onnx".
    form
        "pair": two batches of images in, distances out; "embedding": images in, rows out whose
        squared Euclidean distance is LPIPS, for the one `size`.
    spatial
        Return the map of distances, too ("pair" only).
    pixels
        Images are "signed" (float32 in [-1, 1]), "unit" (float32 in [0, 1]) or "uint8".
    opset
        Version of ONNX's operators, 18 to 23; None is 20.
    quantize
        "int8": quantise the trunk statically, on the images of `calibrate`.
    judgements, images
        A table of judgements to report what int8 changes, and the folder its paths start from.
    samples
        Images to run the file on; None draws some.

    Returns
    -------
    ExportedModel
        ``check.deviation``, ``card`` (the metadata), ``int8`` (the report) and ``entries()``.

    Raises
    ------
    UsageError
        Arguments are unknown or contradict each other, or the file exists.
    LpipstoreError
        A package is missing, or the file cannot be written or deviates.

    Examples
    --------
    >>> import lpipstore, pathlib, tempfile
    >>> out = pathlib.Path(tempfile.mkdtemp()) / "rows.pt2"
    >>> options = {"backbone": "squeeze", "weights": "random", "size": 32}
    >>> model = lpipstore.export_model(out, form="embedding", **options)
    >>> out.exists(), model.check.passed
    (True, True)
    """
    from .exporting.choices import ExportChoices
    from .exporting.model import export_model

    choices = ExportChoices(
        to=to,
        form=form,
        spatial=spatial,
        pixels=pixels,
        opset=opset,
        quantize=quantize,
        calibrate=_text(calibrate),
        judgements=None if judgements is None else Path(judgements),
        images=None if images is None else Path(images),
        samples=_text(samples),
    )
    with LoggedScreen(progress=options.get("progress", False)) as screen:
        return export_model(Path(out), choices, settings_of(options), screen)


def check_model(
    model: PathLike, *, samples: PathLike | None = None, **options: Unpack[Options]
) -> "CheckedModel":
    """Run an ONNX file of `export_model`, and compare it with the same computation by lpipstore.

    Parameters
    ----------
    samples
        Images to run the file on; None draws some.

    Raises
    ------
    UsageError
        There is no such file, it is damaged, or it was made from another backbone, head or weights.
    LpipstoreError
        It deviates by more than 1e-5.

    Examples
    --------
    >>> import lpipstore, pathlib, tempfile
    >>> torn = pathlib.Path(tempfile.mkdtemp()) / "torn.onnx"
    >>> _ = torn.write_bytes(b"half a file")
    >>> try:
    ...     lpipstore.check_model(torn)
    ... except lpipstore.LpipstoreError as error:
    ...     print("is not an ONNX model" in str(error))
    True
    """
    from .exporting.model import check_model

    with LoggedScreen(progress=options.get("progress", False)) as screen:
        return check_model(Path(model), _text(samples), settings_of(options), screen)


def distance_matrix(images: Images, **options: Unpack[Options]) -> NDArray[np.float32]:
    """Compute the LPIPS distances of all pairs: the short way, images in, a matrix out.

    Unlike `pairs`, it leaves no image out: one that cannot be read is an error. Without `store`,
    rows are kept only during this call.

    Returns
    -------
    ndarray of shape (N, N), float32
        Symmetric, 0 on the diagonal and for identical images.

    Raises
    ------
    UsageError
        An argument is invalid; the message shows the value received. Also a ValueError.
    LpipstoreError
        There are no images, or an image cannot be read.

    Examples
    --------
    >>> import lpipstore, torch
    >>> pictures = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> d = lpipstore.distance_matrix(pictures, value_range=(0, 1), weights="random")
    >>> d.shape, bool((d == d.T).all()), d.diagonal().tolist()
    ((3, 3), True, [0.0, 0.0, 0.0])
    """
    from .scoring.in_memory import score_in_memory

    with tempfile.TemporaryDirectory(prefix="lpipstore-") as scratch:
        if options.get("store") is None:
            options["store"] = Path(scratch) / "store"
        given = _given(images, options)
        with LoggedScreen(progress=options.get("progress", False)) as screen:
            return score_in_memory(given, settings_of(options), screen)


def _close(
    images: Images,
    distance: float | None,
    k: int | None,
    out: PathLike | None,
    options: Options,
) -> Run:
    from .scoring.close_pairs import find_close

    distance, k = distance_of(distance), count_of(k)
    given = _given(images, options)
    with _making(out, options) as (making, settings, screen):
        find_close(given, making.folder, settings, screen, below=distance, top_k=k)
    return _run(making, out)


def _given(images: Images, options: OptionsWithoutHead, place: str = "images") -> list[Any]:
    return sources_of(images, options.get("value_range"), options.get("image_column"), place)


def _text(place: PathLike | None) -> str | None:
    """Return the place of images as text: a path or a URL."""
    return None if place is None else os.fspath(place)


def _paths(given: PathLike | Sequence[PathLike]) -> list[Path]:
    return [Path(given)] if is_path(given) else [Path(path) for path in given]


@contextmanager
def _making(
    out: PathLike | None, options: OptionsWithoutHead
) -> Iterator[tuple[Staged, Settings, LoggedScreen]]:
    """Yield folder, settings and screen of a run; a temporary folder is removed on failure."""
    settings = settings_of(options)
    place = tempfile.mkdtemp(prefix="lpipstore-run-") if out is None else os.fspath(out)
    try:
        with (
            LoggedScreen(progress=options.get("progress", False)) as screen,
            staged_run(os.path.expanduser(place), screen, keep=True) as making,
        ):
            yield making, settings, screen
    except BaseException:
        if out is None:
            shutil.rmtree(place)
        raise


def _run(made: Staged, out: PathLike | None) -> Run:
    """Open a finished run; a temporary folder goes with the object."""
    run = open_run(made.folder)
    if out is None or made.copied is not None:
        weakref.finalize(run, shutil.rmtree, made.folder, ignore_errors=True)
    return run
