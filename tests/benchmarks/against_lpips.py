"""How much faster than the `lpips` package: scoring, a whole cold run, and extraction.

    python tests/benchmarks/against_lpips.py FOLDER [--backbone squeeze] [--size 64]

Everything is measured in one process on the same images, both sides in turn, and the medians of
several repeats are compared. The pairwise loop that users of `lpips` write (both images through
the trunk for each pair) is timed on a sample of the pairs and scaled to all of them.
"""

import argparse
import itertools
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import lpips
import numpy as np
import torch

from lpipstore.cache.store import FeatureStore
from lpipstore.pipeline.backbones.load import load_backbone
from lpipstore.pipeline.common.progress import Stopwatch
from lpipstore.pipeline.distances.heads import column_weights, load_head
from lpipstore.pipeline.features.extractor import Extractor
from lpipstore.pipeline.features.features import Features
from lpipstore.pipeline.images.decode import content_hash, decode
from lpipstore.pipeline.images.loader import decode_images
from lpipstore.pipeline.images.preparation import Preparation
from lpipstore.pipeline.matrix.plan import plan_matrix
from lpipstore.pipeline.matrix.score import score_matrix
from lpipstore.pipeline.sources.sources import Sources
from lpipstore.workflows.scoring.all_pairs import score_pairs
from lpipstore.workflows.scoring.in_memory import MatrixInMemory
from lpipstore.workflows.session.screen import Screen
from lpipstore.workflows.session.settings import Settings

PAIRS_IN_BATCH = 16
SAMPLE = 400


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def reference(settings: Settings) -> lpips.LPIPS:
    """The package's module with the same trunk as ours."""
    module = lpips.LPIPS(net=settings.backbone, pnet_rand=True, verbose=False)
    trunk = load_backbone(settings.backbone, weights=settings.weights).trunk
    ours = {name.removeprefix("features."): t for name, t in trunk.state_dict().items()}
    theirs = {
        name: ours[name.split(".", 1)[1]] for name in module.net.state_dict() if "slice" in name
    }
    module.net.load_state_dict(theirs)
    return module.eval()


class Comparison:
    """The images, the settings and a place for stores and runs."""

    def __init__(self, folder: str, settings: Settings, scratch: Path, repeats: int) -> None:
        self.folder, self.settings, self.scratch, self.repeats = folder, settings, scratch, repeats
        self.size = (int(settings.size), int(settings.size))
        self.paths = Sources().find([folder]).names
        self.files = [(path, content_hash(Path(path).read_bytes())) for path in self.paths]
        self.backbone = load_backbone(settings.backbone, weights=settings.weights)
        self.extractor = Extractor(self.backbone, self.size)
        self.lpips = reference(settings)
        self.pairs = list(itertools.combinations(range(len(self.paths)), 2))

    def median(self, *works: Callable[[], float]) -> list[float]:
        """Medians of seconds; the works take turns."""
        for work in works:
            work()
        rounds = [[work() for work in works] for _ in range(self.repeats)]
        return [statistics.median(times) for times in zip(*rounds, strict=True)]

    def features(self, store: FeatureStore) -> Features:
        by_content = {content: path for path, content in self.files}

        def decode_these(contents, batch):
            return decode_images(
                [(by_content[c], c) for c in contents], Sources(), Preparation(self.size), batch
            )

        return Features(self.extractor, store, decode_these)

    def tensors(self) -> torch.Tensor:
        how = Preparation(self.size)
        pixels = np.stack([decode(Path(path).read_bytes(), how) for path in self.paths])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1

    # -- scoring

    def scoring(self) -> None:
        images = self.tensors()
        chosen = torch.tensor(self.pairs)[torch.randperm(len(self.pairs))[:PAIRS_IN_BATCH]]

        @torch.inference_mode()
        def theirs() -> float:
            left, right = images[chosen[:, 0]], images[chosen[:, 1]]
            return timed(lambda: self.lpips(left, right))

        with FeatureStore(self.scratch / "scoring") as store:
            features = self.features(store)
            contents = [content for _, content in self.files]
            features.ensure(contents)
            head = load_head(
                None, self.settings.backbone, self.backbone.channels, self.backbone.version
            )
            weights = column_weights(head, self.extractor.layout)
            length = self.extractor.layout.length
            plan = plan_matrix(len(contents), 2 * length, 4_000_000_000)
            clocks = []

            def ours() -> float:
                features.clock = Stopwatch()
                clocks.append(features.clock)
                matrix = MatrixInMemory(len(contents), plan.tile)
                return timed(lambda: score_matrix(features, contents, None, weights, plan, matrix))

            seconds_theirs, seconds = self.median(theirs, ours)
            arithmetic = statistics.median(clock.seconds["score"] for clock in clocks[1:])
        per_pair = seconds_theirs / PAIRS_IN_BATCH
        count = len(self.pairs)
        print(f"lpips, batches of {PAIRS_IN_BATCH} pairs: {1 / per_pair:,.0f} pairs/s")
        for name, took in (("with reading the rows", seconds), ("arithmetic alone", arithmetic)):
            ratio = per_pair * count / took
            print(f"scoring stage, {name}: {count / took:,.0f} pairs/s = {ratio:,.0f} times")

    # -- a whole cold run

    def cold_run(self) -> None:
        sample = [self.pairs[k] for k in np.linspace(0, len(self.pairs) - 1, SAMPLE).astype(int)]
        loaded = self.tensors()

        def load(path: str) -> torch.Tensor:
            pixels = torch.from_numpy(decode(Path(path).read_bytes(), Preparation(self.size)))
            return pixels.permute(2, 0, 1)[None].float() / 127.5 - 1

        @torch.inference_mode()
        def loop_in_memory() -> float:
            return timed(
                lambda: [self.lpips(loaded[i : i + 1], loaded[j : j + 1]) for i, j in sample]
            )

        @torch.inference_mode()
        def loop_from_disk() -> float:
            return timed(
                lambda: [self.lpips(load(self.paths[i]), load(self.paths[j])) for i, j in sample]
            )

        def ours() -> float:
            for name in ("cold-store", "cold-run"):
                shutil.rmtree(self.scratch / name, ignore_errors=True)
            settings = Settings(**{**vars(self.settings), "store": self.scratch / "cold-store"})
            screen = Screen(quiet=True)
            out = self.scratch / "cold-run"
            return timed(lambda: score_pairs([self.folder], out, settings, screen))

        memory, disk, seconds = self.median(loop_in_memory, loop_from_disk, ours)
        scale = len(self.pairs) / SAMPLE
        print(f"cold run of {len(self.paths)} images, {len(self.pairs):,} pairs: {seconds:.2f} s")
        for name, took in (("images in memory", memory), ("images loaded for each pair", disk)):
            ratio = took * scale / seconds
            print(f"pairwise loop of lpips, {name}: {took * scale:,.1f} s = {ratio:,.0f} times")

    # -- extraction

    def extraction(self) -> None:
        contents = [content for _, content in self.files]
        batch = self.extractor.batch
        pixels = [
            torch.from_numpy(decode(Path(path).read_bytes(), Preparation(self.size)))
            for path in self.paths
        ]
        batches = [torch.stack(pixels[n : n + batch]) for n in range(0, len(pixels), batch)]

        def decoding() -> float:
            how = Preparation(self.size)
            return timed(lambda: list(decode_images(self.files, Sources(), how, batch)))

        def forwarding() -> float:
            return timed(lambda: [self.extractor.rows(pixels) for pixels in batches])

        def both() -> float:
            shutil.rmtree(self.scratch / "extraction", ignore_errors=True)
            with FeatureStore(self.scratch / "extraction") as store:
                features = self.features(store)
                return timed(lambda: features.ensure(contents))

        decode_alone, forward_alone, together = self.median(decoding, forwarding, both)
        ratio = together / (decode_alone + forward_alone)
        print(
            f"extraction {together:.3f} s = {ratio:.2f} × (decode alone {decode_alone:.3f} s + "
            f"forward alone {forward_alone:.3f} s)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--backbone", default="squeeze")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--size", default="64")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    settings = Settings(backbone=options.backbone, weights=options.weights, size=options.size)
    with tempfile.TemporaryDirectory(prefix="lpipstore-bench-") as scratch:
        comparison = Comparison(options.folder, settings, Path(scratch), options.repeats)
        print(f"{options.backbone}, {options.size} px, {torch.get_num_threads()} threads")
        comparison.scoring()
        comparison.cold_run()
        comparison.extraction()


if __name__ == "__main__":
    main()
