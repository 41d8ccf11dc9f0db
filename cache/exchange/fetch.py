"""From a remote folder: rows by key, in few requests, each row verified."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import setting
from ..keys import PoolSpec
from ..sealed import keys_of
from ..segments import CRC_BYTES, checksum, seeds_of
from .catalogue import Catalogue, Warn
from .folder import RemoteFolder
from .remote_segments import RemoteSegment
from .requests import as_they_end

_AT_ONCE = 8  # requests on their way
_MOST_BYTES = 8 << 20  # of one request, unless one row takes more
_GAP = 256 << 10  # bytes that are read and thrown away rather than asked for around

Rows = NDArray[Any]


@dataclass(frozen=True)
class Fetched:
    """Rows that one request brought: their kind, their keys, and the rows, [n, length]."""

    spec: PoolSpec
    keys: list[bytes]
    rows: Rows


@dataclass(frozen=True)
class _Range:
    """Neighbouring rows of a segment, by their numbers in it, ascending."""

    segment: RemoteSegment
    rows: NDArray[np.int64]

    @property
    def start(self) -> int:
        """Offset of the first row."""
        return int(self.segment.offsets[self.rows[0]])

    @property
    def end(self) -> int:
        """Offset of the end of the last row."""
        return int(self.segment.offsets[self.rows[-1]] + self.segment.lengths[self.rows[-1]])


@dataclass(frozen=True)
class _Answer:
    """What a request brought: good rows, and the keys of those that the object `name` lost."""

    fetched: Fetched
    nbytes: int
    name: str
    lost: list[bytes]


class Fetcher:
    """Fetches rows from a remote folder.

    Parameters
    ----------
    folder
        The remote folder.
    catalogue
        What lies in it.
    warn
        Called with a line that names each object that is damaged or gone.

    Attributes
    ----------
    rows, bytes
        Good rows that were fetched, and the bytes of all answers.
    damaged
        Rows of each object that failed their checksum or were not there, by its URL.
    """

    def __init__(self, folder: RemoteFolder, catalogue: Catalogue, warn: Warn) -> None:
        self.folder = folder
        self.catalogue = catalogue
        self.warn = warn
        self.rows = 0
        self.bytes = 0
        self.damaged: dict[str, int] = {}
        self._bad: set[bytes] = set()

    def missing(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return the keys that cannot be fetched: not in the catalogue, or found to be damaged."""
        lacking = set(self.catalogue.missing(keys)) | self._bad
        return [key for key in keys if key in lacking]

    def fetch(self, keys: Sequence[bytes]) -> Generator[Fetched]:
        """Fetch the rows of keys, in the order of segments and rows, about 8 MB at a time.

        Keys that the catalogue does not know are left out, and so are rows that fail their
        checksum: they are counted in `damaged`, and not asked for again.

        Raises
        ------
        RemoteError
            The storage cannot be reached, or refuses.
        """
        wanted = [key for key in dict.fromkeys(keys) if key not in self._bad]
        for _, answer in as_they_end(self._ask, self._ranges(wanted), _AT_ONCE):
            self.rows += len(answer.fetched.keys)
            self.bytes += answer.nbytes
            if answer.lost:
                self._bad.update(answer.lost)
                self._name_damaged(answer)
            if answer.fetched.keys:
                yield answer.fetched

    def _name_damaged(self, answer: _Answer) -> None:
        place = f"{self.folder.place}/{answer.name}"
        if place not in self.damaged:
            self.warn(
                f"{place} is damaged or gone, and its rows are taken for missing: push again with "
                f"{setting('verify', value=True)} from a store that has them"
            )
        self.damaged[place] = self.damaged.get(place, 0) + len(answer.lost)

    def _ranges(self, keys: Sequence[bytes]) -> list[_Range]:
        """Put the rows of keys into ranges: neighbours together, of a few megabytes each."""
        numbers, rows = self.catalogue.find(keys)
        ranges = []
        for number in np.unique(numbers[numbers >= 0]).tolist():
            segment = self.catalogue.segments[number]
            chosen = rows[numbers == number]
            chosen = chosen[np.argsort(segment.offsets[chosen], kind="stable")]
            ranges += [_Range(segment, part) for part in _cut(segment, chosen)]
        return ranges

    def _ask(self, asked: _Range) -> _Answer:
        """Make one request; verify and unpack the rows."""
        segment, start = asked.segment, asked.start
        data = memoryview(self.folder.read_range(segment.name, start, asked.end - start))
        records = segment.records[asked.rows]
        seeds = seeds_of(np.stack([records["hi"], records["lo"]], axis=1)).tolist()
        starts = (segment.offsets[asked.rows] - start).tolist()
        lengths, checks = segment.lengths[asked.rows].tolist(), records["check"].tolist()
        out: Rows = np.empty((len(records), segment.pool.length), segment.pool.dtype)
        good = np.zeros(len(records), bool)
        unpack = segment.pool.decompress
        for at, (first, length, seed, check) in enumerate(
            zip(starts, lengths, seeds, checks, strict=True)
        ):
            stored = data[first : first + length]
            if len(stored) != length or checksum(stored, seed) != check:
                continue
            if unpack is not None:
                unpack(stored, out[at])
            elif length != out.itemsize * out.shape[1]:
                continue
            else:
                out[at] = np.frombuffer(stored, out.dtype)
            good[at] = True
        keys = keys_of(records)
        lost = [key for key, sound in zip(keys, good.tolist(), strict=True) if not sound]
        kept = [key for key, sound in zip(keys, good.tolist(), strict=True) if sound]
        rows = out if good.all() else out[good]
        return _Answer(Fetched(segment.spec, kept, rows), len(data), segment.name, lost)


def _cut(segment: RemoteSegment, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Cut rows, sorted by offset, where the gap between two is large or a request has grown."""
    starts = segment.offsets[rows].tolist()
    ends = (segment.offsets[rows] + segment.lengths[rows] + CRC_BYTES).tolist()
    cuts, first = [], 0
    for at in range(1, len(rows)):
        if starts[at] - ends[at - 1] > _GAP or ends[at] - starts[first] > _MOST_BYTES:
            cuts.append(at)
            first = at
    return np.split(rows, cuts)
