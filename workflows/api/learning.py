"""Train heads on human judgements, and evaluate them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from ...cache.errors import UsageError
from ...pipeline.common.text import printable
from ...pipeline.sources.names import is_url
from ..session.keywords import Options, OptionsWithoutHead, PathLike, is_path, settings_of
from ..session.logged import LoggedScreen
from ..viewing.run import Run
from .making import finished_run, making_run, paths_of

if TYPE_CHECKING:
    import pyarrow

    from ..learning.options import TrainOptions


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
    from ..learning.options import TrainOptions
    from ..learning.train import train_head

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
    with making_run(out, options) as (making, settings, screen):
        train_head(paths_of(judgements), making.folder, settings, train_options, screen)
    return finished_run(making, out)


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

    from ..learning.evaluate import METRICS, evaluate_heads

    some = [heads] if isinstance(heads, Run) or is_path(heads) else list(heads)
    with LoggedScreen(progress=options.get("progress", False)) as screen:
        summary = evaluate_heads(
            paths_of(judgements),
            settings_of(options),
            screen,
            heads=[str(head.path if isinstance(head, Run) else head) for head in some],
            metrics=",".join(METRICS if metrics is None else metrics),
            images=None if images is None else Path(images),
            split=split,
            seed=seed,
        )
    return pa.Table.from_pylist(summary["scores"])
