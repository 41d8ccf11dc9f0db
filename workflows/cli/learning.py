"""The commands on human judgements: ``train`` and ``evaluate``.

torch is imported only when a command runs, so that ``--help`` responds at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from ..session.settings import Settings
from .messages import option
from .options import OUTPUT, path_of, takes_settings
from .runner import Json, show, watched

JUDGED, TRAINING, NETWORK = "The judgements", "The training", "Through the network"

Triplets = Annotated[
    list[Path],
    typer.Argument(
        parser=path_of,
        metavar="JUDGEMENTS…",
        help="Tables (.csv, .tsv, .parquet) or folders laid out as those of BAPPS.",
    ),
]
Images = Annotated[
    Path | None,
    typer.Option(
        parser=path_of,
        metavar="DIR",
        rich_help_panel=JUDGED,
        help="Folder that relative paths in tables start from.",
        show_default="that of the table",
    ),
]
TRAIN_EXAMPLES = """Examples:

lpipstore train triplets.csv --images photos --backbone squeeze --size 128 --out H

lpipstore train bapps --backbone alex --held-out-from bapps --out H

torchrun --nproc-per-node 4 --no-python lpipstore train bapps --tune-trunk --augment flip,swap
--out H"""

EVALUATE_EXAMPLES = """Examples:

lpipstore evaluate triplets.csv --images photos --backbone squeeze --heads H

lpipstore evaluate bapps --backbone alex --heads H --heads other.pth --out scores.parquet"""


@takes_settings("precision", "dry_run")
def train(
    sources: Triplets,
    out: Annotated[
        Path, typer.Option(parser=path_of, metavar="H", help="Folder of the trained head.")
    ],
    settings: Settings,
    images: Images = None,
    split: Annotated[
        str,
        typer.Option(rich_help_panel=JUDGED, help="Split of a folder to learn from."),
    ] = "train",
    held_out: Annotated[
        float,
        typer.Option(
            metavar="SHARE", rich_help_panel=JUDGED, help="Share of judgements to hold out."
        ),
    ] = 0.1,
    held_out_from: Annotated[
        Path | None,
        typer.Option(
            parser=path_of,
            metavar="JUDGEMENTS",
            rich_help_panel=JUDGED,
            help="Hold out these instead; of a folder its split val.",
        ),
    ] = None,
    no_votes: Annotated[
        bool,
        typer.Option(
            "--no-votes",
            rich_help_panel=JUDGED,
            help="Count every judgement alike, however many votes it had.",
        ),
    ] = False,
    loss: Annotated[
        str,
        typer.Option(
            metavar="bce|rank",
            rich_help_panel=TRAINING,
            help="On d0 − d1 with a learned temperature, or LPIPS' ranking network.",
        ),
    ] = "bce",
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, rich_help_panel=TRAINING, help="At most.", show_default="60; network 10"
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            rich_help_panel=TRAINING,
            help="Judgements in a step, over all processes.",
            show_default="256; network 50",
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(rich_help_panel=TRAINING, help="Of Adam.", show_default="0.1; network 1e-4"),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            metavar="constant|cosine|paper",
            rich_help_panel=TRAINING,
            help="paper: half of the epochs constant, then linearly down.",
            show_default="cosine; network paper",
        ),
    ] = None,
    patience: Annotated[
        int,
        typer.Option(
            min=1,
            rich_help_panel=TRAINING,
            help="Stop after so many epochs without a lower held-out loss.",
        ),
    ] = 10,
    dropout: Annotated[
        float, typer.Option(rich_help_panel=TRAINING, help="Share of channels left out.")
    ] = 0.0,
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=(1 << 63) - 1, rich_help_panel=TRAINING, help="Of all that is random."
        ),
    ] = 0,
    tune_trunk: Annotated[
        bool,
        typer.Option("--tune-trunk", rich_help_panel=NETWORK, help="Let the trunk learn, too."),
    ] = False,
    augment: Annotated[
        str,
        typer.Option(
            metavar="flip,rotate,crop,colour,swap",
            rich_help_panel=NETWORK,
            help="Random changes, the same for all three images.",
        ),
    ] = "",
    independent: Annotated[
        bool,
        typer.Option(
            "--independent",
            rich_help_panel=NETWORK,
            help="Change each image of a triplet in its own way.",
        ),
    ] = False,
    at_once: Annotated[
        int,
        typer.Option(
            min=1,
            rich_help_panel=NETWORK,
            help="Judgements in memory at once, in each process; changes no result.",
        ),
    ] = 16,
    clip: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=NETWORK,
            help="Largest norm of a gradient.",
            show_default="not clipped",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Teach a head from human judgements: from statistics, or through the whole network."""
    from ...pipeline.training.distributed import rank_here
    from ..learning.options import TrainOptions
    from ..learning.train import TRAIN_HEADER, train_head, train_lines, train_rows
    from ..session.screen import Screen, print_table

    options = TrainOptions(
        held_out=held_out,
        held_out_from=held_out_from,
        images=images,
        split=split,
        use_votes=not no_votes,
        loss=loss,
        epochs=epochs,
        batch=batch,
        learning_rate=learning_rate,
        schedule=schedule,
        patience=patience,
        dropout=dropout,
        seed=seed,
        tune_trunk=tune_trunk,
        augment=augment,
        independent=independent,
        at_once=at_once,
        clip=clip,
    )
    if rank_here():  # only the first process prints
        watched(
            lambda _: train_head(sources, out, settings, options, Screen(quiet=True, spell=option)),
            quiet=True,
        )
        return
    summary = watched(
        lambda screen: train_head(sources, out, settings, options, screen), quiet=settings.quiet
    )
    title = "Trained" if summary["learned"] else "Nothing learned"
    show(summary, title, lambda: train_lines(summary, out), as_json)
    if not as_json:
        print_table("Agreement with people", TRAIN_HEADER, train_rows(summary))


@takes_settings("heads", "precision", "dry_run")
def evaluate(
    sources: Triplets,
    settings: Settings,
    heads: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="A head of your own, or the folder of a training; may be repeated.",
        ),
    ] = None,
    metrics: Annotated[
        str,
        typer.Option(
            metavar="A,B,…",
            help="Of L2, PSNR, SSIM, baseline, stock: what to stand beside the heads.",
        ),
    ] = "L2,PSNR,SSIM,baseline,stock",
    images: Images = None,
    split: Annotated[
        str, typer.Option(rich_help_panel=JUDGED, help="Split of a folder to evaluate on.")
    ] = "val",
    seed: Annotated[int, typer.Option(min=0, rich_help_panel=JUDGED, help="Of the bootstrap.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=path_of,
            metavar="FILE",
            rich_help_panel=OUTPUT,
            help="Also write the table as Parquet.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Score how well heads and metrics agree with human judgements (2AFC and JND)."""
    from ..learning.evaluate import evaluate_heads, evaluate_lines, evaluate_tables
    from ..session.screen import print_table

    summary = watched(
        lambda screen: evaluate_heads(
            sources,
            settings,
            screen,
            heads=heads or (),
            metrics=metrics,
            images=images,
            split=split,
            seed=seed,
            out=out,
        ),
        quiet=settings.quiet,
    )
    show(summary, "Evaluated", lambda: evaluate_lines(summary, out), as_json)
    if not as_json:
        for title, header, rows in evaluate_tables(summary):
            print_table(title, header, rows)
