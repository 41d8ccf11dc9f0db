"""The metric as a file that runs without lpipstore."""

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from ..session.keywords import Options, PathLike, settings_of
from ..session.logged import LoggedScreen
from .making import text_of

if TYPE_CHECKING:
    from ..exporting.model import CheckedModel, ExportedModel


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
    from ..exporting.choices import ExportChoices
    from ..exporting.model import export_model

    choices = ExportChoices(
        to=to,
        form=form,
        spatial=spatial,
        pixels=pixels,
        opset=opset,
        quantize=quantize,
        calibrate=text_of(calibrate),
        judgements=None if judgements is None else Path(judgements),
        images=None if images is None else Path(images),
        samples=text_of(samples),
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
    from ..exporting.model import check_model

    with LoggedScreen(progress=options.get("progress", False)) as screen:
        return check_model(Path(model), text_of(samples), settings_of(options), screen)
