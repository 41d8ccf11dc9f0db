"""The commands that write the metric as a file: ``export model`` and ``export check``."""

from pathlib import Path
from typing import Annotated

import typer

from ..session.settings import Settings
from .options import OUTPUT, path_of, place_of, takes_settings
from .runner import Json, carry_out

QUANTISATION = "int8"
_WITHOUT = (
    "store",
    "store_limit",
    "row_dtype",
    "compress",
    "durable",
    "rehash",
    "trunk_dtype",
    "memory",
    "device_memory",
    "precision",
    "device",
    "workers",
    "dry_run",
)

Samples = Annotated[
    str | None,
    typer.Option(
        parser=place_of,
        metavar="IMAGES",
        rich_help_panel=OUTPUT,
        help="Images to run the file on.",
        show_default="drawn ones",
    ),
]

MODEL_EXAMPLES = """Examples:

lpipstore export model --backbone squeeze --out squeeze.onnx

lpipstore export model --as embedding --size 64 --pixels uint8 --out rows.onnx

lpipstore export model --quantize int8 --calibrate photos --size 64 --out int8.onnx"""


@takes_settings(*_WITHOUT)
def export_model(
    out: Annotated[Path, typer.Option(parser=path_of, metavar="FILE", help="The new file.")],
    settings: Settings,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="onnx|pt2",
            help="onnx for onnxruntime and others; pt2 for torch.export.load.",
            show_default="by the ending of --out, else onnx",
        ),
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="pair|embedding",
            help="pair: two batches of images -> distances; embedding: images -> rows whose "
            "squared Euclidean distance is LPIPS.",
        ),
    ] = "pair",
    spatial: Annotated[
        bool, typer.Option("--spatial", help="Also return the map of distances (pair only).")
    ] = False,
    pixels: Annotated[
        str,
        typer.Option(
            metavar="signed|unit|uint8",
            help="Images are float32 in [-1, 1], float32 in [0, 1], or uint8.",
        ),
    ] = "signed",
    opset: Annotated[
        int | None,
        typer.Option(help="Version of ONNX's operators.", show_default="20"),
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(
            metavar="int8", rich_help_panel=QUANTISATION, help="Quantise the trunk statically."
        ),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            parser=place_of,
            metavar="IMAGES",
            rich_help_panel=QUANTISATION,
            help="Images to calibrate on, a hundred or so; half of them are held out.",
        ),
    ] = None,
    judgements: Annotated[
        Path | None,
        typer.Option(
            parser=path_of,
            metavar="TABLE",
            rich_help_panel=QUANTISATION,
            help="Judgements, as for evaluate: report what int8 changes.",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            parser=path_of,
            metavar="DIR",
            rich_help_panel=QUANTISATION,
            help="Folder that paths in TABLE start from.",
            show_default="that of the table",
        ),
    ] = None,
    samples: Samples = None,
    as_json: Json = False,
) -> None:
    """Write the metric as one file that runs without lpipstore; run and compare it."""
    from ..exporting.choices import ExportChoices
    from ..exporting.model import export_model

    choices = ExportChoices(
        to=to,
        form=form,
        spatial=spatial,
        pixels=pixels,
        opset=opset,
        quantize=quantize,
        calibrate=calibrate,
        judgements=judgements,
        images=images,
        samples=samples,
    )
    carry_out(
        lambda screen: export_model(out, choices, settings, screen),
        quiet=settings.quiet,
        as_json=as_json,
    )


@takes_settings(*_WITHOUT)
def check_model(
    model: Annotated[
        Path,
        typer.Argument(parser=path_of, metavar="MODEL", help="A file of `export model`, as ONNX."),
    ],
    settings: Settings,
    samples: Samples = None,
    as_json: Json = False,
) -> None:
    """Run an exported ONNX file, and compare it with the same computation by lpipstore."""
    from ..exporting.model import check_model

    carry_out(
        lambda screen: check_model(model, samples, settings, screen),
        quiet=settings.quiet,
        as_json=as_json,
    )
