"""How near the forward pass comes to the convolutions alone, and how it compares with `lpips`.

    python tests/benchmarks/forward.py [squeeze:64 squeeze:224 ...] [--module] [--compile]

Everything is measured in one process, the sides in turn, medians of several repeats. Pixels to rows
(`Extractor.rows`) is held against torchvision's layers alone, up to the last tap, in channels_last
and with the same batch; `lpipstore.LPIPS` against `lpips.LPIPS` on 16 pairs, without gradients and
with those of one side; `--compile` also runs it compiled. Weights are random: they make no
difference to the time.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import lpips
import torch
from torchvision.models import get_model

from lpipstore.pipeline.backbones.layout import LPIPS_BACKBONES
from lpipstore.pipeline.backbones.load import load_backbone
from lpipstore.pipeline.distances.module import LPIPS
from lpipstore.pipeline.features.extractor import Extractor

PAIRS = 16
CASES = [f"{net}:{size}" for net in ("squeeze", "alex", "vgg") for size in (64, 224)]


def in_turn(repeats: int, *works: Callable[[], object]) -> list[list[float]]:
    """Seconds of each work, one list per work; the works take turns."""
    rounds = []
    for _ in range(repeats + 2):
        times = []
        for work in works:
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        rounds.append(times)
    return [list(times) for times in zip(*rounds[2:], strict=True)]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the ratios round by round."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def rows(net: str, size: int, repeats: int) -> None:
    backbone = load_backbone(net, weights="random")
    extractor = Extractor(backbone, (size, size))
    spec = LPIPS_BACKBONES[net]
    layers = get_model(spec.torchvision_name, weights=None).features[: spec.stops[-1] + 1].eval()
    layers.to(memory_format=torch.channels_last)
    pixels = torch.randint(0, 256, (extractor.batch, size, size, 3), dtype=torch.uint8)
    images = (pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(
        memory_format=torch.channels_last
    )
    room = extractor.rows(pixels)

    @torch.inference_mode()
    def alone() -> None:
        layers(images)

    theirs, ours = in_turn(repeats, alone, lambda: extractor.rows(pixels, room))
    each = statistics.median(ours) / extractor.batch * 1e3
    print(
        f"{net} {size} px, batches of {extractor.batch}: {each:.2f} ms an image, "
        f"{ratio(ours, theirs):.2f} × torchvision's layers alone",
        flush=True,
    )


def module(net: str, size: int, repeats: int, *, compiled: bool = False) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips calls torchvision by its older names
        package = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).eval()
    metric = LPIPS(net, weights="random")
    first, second = (torch.rand(PAIRS, 3, size, size) * 2 - 1 for _ in range(2))
    sides = [package, metric]
    if compiled:
        sides.append(torch.compile(metric, fullgraph=True, dynamic=False))

    def forward(side: torch.nn.Module) -> None:
        with torch.no_grad():
            side(first, second)

    def backward(side: torch.nn.Module) -> None:
        image = first.clone().requires_grad_()
        side(image, second).sum().backward()

    for name, step in (("forward", forward), ("forward and backward", backward)):
        theirs, ours, *recorded = in_turn(repeats, *(partial(step, side) for side in sides))
        print(
            f"{net} {size} px, {PAIRS} pairs, {name}: lpipstore.LPIPS "
            f"{statistics.median(ours) * 1e3:.1f} ms, {ratio(ours, theirs):.2f} × lpips.LPIPS"
            + "".join(f"; compiled {ratio(each, ours):.2f} × eager" for each in recorded),
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=CASES, help="such as squeeze:64")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="also compiled (takes minutes)")
    parser.add_argument("--module", action="store_true", help="only lpipstore.LPIPS")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    works = [partial(module, compiled=options.compile)]
    if not options.module:
        works.insert(0, rows)
    for work in works:
        for case in options.cases:
            net, size = case.split(":")
            work(net, int(size), options.repeats)


if __name__ == "__main__":
    main()
