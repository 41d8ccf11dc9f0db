"""Images in, arrays out: no run is kept."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np
from numpy.typing import NDArray

from ..session.given import Images
from ..session.keywords import Options, settings_of
from ..session.logged import LoggedScreen
from ..viewing.run import Run
from .making import images_given

if TYPE_CHECKING:
    from ..adapters.embeddings import Embeddings


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
    from ..scoring.in_memory import score_in_memory

    with tempfile.TemporaryDirectory(prefix="lpipstore-") as scratch:
        if options.get("store") is None:
            options["store"] = Path(scratch) / "store"
        given = images_given(images, options)
        with LoggedScreen(progress=options.get("progress", False)) as screen:
            return score_in_memory(given, settings_of(options), screen)


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
    from ..adapters.embeddings import embeddings_in_memory

    given = [images.path] if isinstance(images, Run) else images_given(images, options)
    with LoggedScreen(progress=options.get("progress", False)) as screen:
        return embeddings_in_memory(given, settings_of(options), screen, dims=dims)
