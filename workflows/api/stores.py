"""Fill the store, and score from it what was scored before."""

from pathlib import Path
from typing import Any, Unpack

from ..session.given import Images
from ..session.keywords import Options, OptionsWithoutHead, PathLike, need_same, settings_of
from ..session.logged import LoggedScreen
from ..viewing.run import Run, open_run
from .making import finished_run, images_given, making_run


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
    from ..store.extract import extract_features

    settings = settings_of(options)
    with LoggedScreen(progress=options.get("progress", False)) as screen:
        return extract_features(images_given(images, options), settings, screen).entries()


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
    from ...pipeline.runs.reopen import reopen_recipe
    from ..rerun.rescore import rescore_run

    source = Path(run.path if isinstance(run, Run) else run)
    need_same(reopen_recipe(open_run(source)), options)
    head = str(heads.path if isinstance(heads, Run) else heads)
    with making_run(out, options) as (making, settings, screen):
        rescore_run(
            source, [head], making.folder, settings, screen, compute=compute, from_rows=from_rows
        )
    return finished_run(making, out)
