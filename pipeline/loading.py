"""Feed decoded images to the backbone: worker processes decode while it computes."""

import ctypes
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ..cache.errors import LpipstoreError
from .images import ImageError, content_hash, decode, read_file

_MOST_WORKERS = 8
_PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that comes when the parent has died


@dataclass(frozen=True)
class Decoded:
    """One batch from the workers.

    `pixels` is uint8 [n, height, width, 3], row k being image ``indices[k]``; `failures` maps the
    indices of the batch's other images to what is wrong with them.
    """

    indices: list[int]
    pixels: torch.Tensor
    failures: dict[int, str]


class _Files(Dataset[tuple[int, np.ndarray | str]]):
    """Image files by index; an item is the pixels, or the words that say why there are none."""

    def __init__(self, files: Sequence[tuple[str, bytes]], size: tuple[int, int]) -> None:
        self.files = files
        self.size = size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[int, np.ndarray | str]:
        path, content = self.files[index]
        try:
            data = read_file(path)
            if content_hash(data) != content:  # a row must never lie under another image's key
                return index, "the file changed during the run; run again"
            return index, decode(data, self.size)
        except ImageError as error:
            return index, str(error)


def _collate(items: list[tuple[int, np.ndarray | str]], size: tuple[int, int]) -> Decoded:
    indices = [index for index, image in items if not isinstance(image, str)]
    images = [image for _, image in items if not isinstance(image, str)]
    pixels = np.stack(images) if images else np.empty((0, *size, 3), np.uint8)
    failures = {index: image for index, image in items if isinstance(image, str)}
    return Decoded(indices, torch.from_numpy(pixels), failures)


def start_worker(_: int) -> None:
    """Leave Ctrl-C to the main process, which stops its workers itself; SIGTERM ends a worker.

    It ends as if it had done its work: of a worker that a signal ended torch tells by an exception
    that is raised anywhere in the main process, which may just be about to stop in good order.
    Whatever handlers the main process has were inherited, and are meant for it alone. Its locks
    were inherited, too: a worker that outlived it by seconds would keep others out of its run.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def decode_files(
    files: Sequence[tuple[str, bytes]],
    size: tuple[int, int],
    batch: int,
    workers: int | None = None,
) -> Iterator[Decoded]:
    """Decode image files in worker processes, batch by batch, in the order given.

    Parameters
    ----------
    files
        (path, content hash) of each image. The hash is checked against the bytes that are
        decoded; a file that changed meanwhile counts as failed.
    size
        (height, width) of the decoded images.
    batch
        Images in a batch; the last one may be smaller.
    workers
        Decoding processes; 0 decodes in this one, None takes one for each core (8 at most), and
        none where a single batch holds everything.
    """
    if workers is None:
        workers = cores() if len(files) > batch else 0
    workers = min(workers, -(-len(files) // batch))
    # Forked workers start at once; spawned ones would each import torch first. They only decode
    # and never touch the threads or the GPU of the parent.
    context = (
        "fork" if workers and "fork" in torch.multiprocessing.get_all_start_methods() else None
    )
    with warnings.catch_warnings(), worker_errors():
        # Who asks for more workers than cores means it: decoding waits for slow disks, too.
        warnings.filterwarnings("ignore", "This DataLoader will create")
        batches = iter(
            DataLoader(
                _Files(files, size),
                batch_size=batch,
                num_workers=workers,
                collate_fn=partial(_collate, size=size),
                worker_init_fn=start_worker if workers else None,
                multiprocessing_context=context,
                prefetch_factor=2 if workers else None,
                generator=torch.Generator(),  # not the global one: that is the caller's
            )
        )
    with worker_errors():
        yield from batches


def cores() -> int:
    """Return for how many decoding processes there are cores, 8 at most."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(count or 1, _MOST_WORKERS)


class WorkerFailed(LpipstoreError):  # noqa: N818 - it names what is the case
    """A decoding process could not start, or was killed."""

    def __init__(self, error: Exception) -> None:
        super().__init__(
            f"a decoding process failed ({str(error).splitlines()[0]}); if memory ran out, use "
            "--workers 0 or 1; what is finished is kept"
        )


@contextmanager
def worker_errors() -> Iterator[None]:
    """Say in words that a decoding process could not start or was killed."""
    try:
        with killed_workers():
            yield
    except OSError as error:
        raise WorkerFailed(error) from error


@contextmanager
def killed_workers() -> Iterator[None]:
    """Say in words that a decoding process was killed.

    torch raises that from a signal handler, wherever the main process is at that moment.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise WorkerFailed(error) from error


def decode_arrays(
    pixels: Mapping[bytes, torch.Tensor], contents: Sequence[bytes], batch: int
) -> Iterator[Decoded]:
    """Batch images that are in memory already: the counterpart of `decode_files`."""
    for start in range(0, len(contents), batch):
        indices = list(range(start, min(start + batch, len(contents))))
        yield Decoded(indices, torch.stack([pixels[contents[i]] for i in indices]), {})
