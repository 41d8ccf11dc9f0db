"""The index in memory: maps each key to the place of its row."""

import numpy as np
from numpy.typing import NDArray

from .segments import MOST_SLOTS, RECORD, split_keys

SLOT_BITS = MOST_SLOTS.bit_length() - 1  # the low bits of a place
SLOT_MASK = MOST_SLOTS - 1
_FEWEST_RECENT = 4096


def place_of(segment: int, slot: int) -> int:
    """Pack a segment number (high bits) and a slot number (low bits) into a place."""
    return segment << SLOT_BITS | slot


def segment_of(place: int) -> int:
    """Return the segment of a place."""
    return place >> SLOT_BITS


def slot_of(place: int) -> int:
    """Return the slot of a place within its segment."""
    return place & SLOT_MASK


class KeyTable:
    """A map from 16-byte keys to (place, checksum), at 32 bytes per row.

    Sorted arrays hold most rows, a dict the most recent ones. Adding a key again replaces its
    place. Not thread-safe: the owner must hold a lock.
    """

    def __init__(self) -> None:
        self._hi = np.empty(0, np.uint64)
        self._lo = np.empty(0, np.uint64)
        self._place = np.empty(0, np.int64)  # -1: discarded
        self._check = np.empty(0, np.uint64)
        self._recent: dict[bytes, tuple[int, int]] = {}

    def add(self, segment: int, slot: int, records: NDArray[np.void]) -> None:
        """Add the records (dtype `RECORD`) of consecutive rows that start at `slot`."""
        places = np.arange(len(records), dtype=np.int64) + place_of(segment, slot)
        if len(records) >= _FEWEST_RECENT:
            self._merge()
            self._join(records["hi"], records["lo"], places, records["check"])
            return
        raw, size = records.tobytes(), RECORD.itemsize
        keys = [raw[at : at + 16] for at in range(0, len(raw), size)]
        values = zip(places.tolist(), records["check"].tolist(), strict=True)
        self._recent.update(zip(keys, values, strict=True))
        if len(self._recent) > max(_FEWEST_RECENT, len(self._hi) // 8):
            self._merge()

    def add_all(self, parts: list[tuple[int, int, NDArray[np.void]]]) -> None:
        """Add many runs of rows at once, each as (segment, slot, records), oldest first."""
        if sum(len(records) for _, _, records in parts) < _FEWEST_RECENT:
            for part in parts:
                self.add(*part)
            return
        self._merge()
        places = [
            np.arange(len(records), dtype=np.int64) + place_of(segment, slot)
            for segment, slot, records in parts
        ]
        records = np.concatenate([part[2] for part in parts])
        self._join(records["hi"], records["lo"], np.concatenate(places), records["check"])

    def find(self, keys: list[bytes]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Return the place (-1 if absent) and the checksum of each key."""
        places = np.full(len(keys), -1, np.int64)
        checks = np.zeros(len(keys), np.uint64)
        if len(self._hi) and keys:
            self._find_sorted(split_keys(keys), places, checks)
        if self._recent:
            recent = self._recent
            for at, key in enumerate(keys):
                found = recent.get(key)
                if found is not None:
                    places[at], checks[at] = found
        return places, checks

    def find_one(self, key: bytes) -> tuple[int, int]:
        """Return the place (-1 if absent) and the checksum of one key; faster than `find`."""
        found = self._recent.get(key)
        if found is not None:
            return found
        hi, lo = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
        at = int(self._hi.searchsorted(np.uint64(hi)))
        while at < len(self._hi) and self._hi[at] == hi:
            if self._lo[at] == lo:
                return int(self._place[at]), int(self._check[at])
            at += 1
        return -1, 0

    def discard_segments(self, segments: set[int]) -> None:
        """Forget all rows of the given segments."""
        if not segments:
            return
        wanted = np.fromiter(segments, np.int64, len(segments))
        self._place[np.isin(self._place >> SLOT_BITS, wanted)] = -1
        for key in [k for k, (p, _) in self._recent.items() if segment_of(p) in segments]:
            del self._recent[key]

    def discard_places(self, places: set[int]) -> None:
        """Forget the rows at the given places."""
        if not places:
            return
        wanted = np.fromiter(places, np.int64, len(places))
        self._place[np.isin(self._place, wanted)] = -1
        for key in [k for k, (p, _) in self._recent.items() if p in places]:
            del self._recent[key]

    def places(self) -> NDArray[np.int64]:
        """Return the place of every row, sorted."""
        self._merge()
        return np.sort(self._place[self._place >= 0])

    def _find_sorted(
        self,
        halves: NDArray[np.uint64],
        places: NDArray[np.int64],
        checks: NDArray[np.uint64],
    ) -> None:
        at = np.searchsorted(self._hi, halves[:, 0])
        open_ = np.arange(len(halves))
        while len(open_):  # repeats only for keys that share their first half
            inside = at[open_] < len(self._hi)
            open_ = open_[inside]
            here = at[open_]
            open_ = open_[self._hi[here] == halves[open_, 0]]
            here = at[open_]
            match = self._lo[here] == halves[open_, 1]
            places[open_[match]] = self._place[here[match]]
            checks[open_[match]] = self._check[here[match]]
            open_ = open_[~match]
            at[open_] += 1

    def _merge(self) -> None:
        """Move the recent rows into the sorted arrays."""
        if not self._recent:
            return
        halves = split_keys(list(self._recent))
        found = list(self._recent.values())
        places = np.array([place for place, _ in found], np.int64)
        checks = np.array([check for _, check in found], np.uint64)
        self._join(halves[:, 0], halves[:, 1], places, checks)
        self._recent = {}

    def _join(
        self,
        hi: NDArray[np.uint64],
        lo: NDArray[np.uint64],
        place: NDArray[np.int64],
        check: NDArray[np.uint64],
    ) -> None:
        alive = self._place >= 0
        all_hi = np.concatenate([self._hi[alive], hi])
        all_lo = np.concatenate([self._lo[alive], lo])
        order = np.argsort(all_hi, kind="stable")
        if np.any(np.diff(all_hi[order]) == 0):  # keys that share their first half, or duplicates
            order = np.lexsort((all_lo, all_hi))
        all_hi, all_lo = all_hi[order], all_lo[order]
        last = np.ones(len(order), bool)  # of equal keys, the one added last
        last[:-1] = (all_hi[1:] != all_hi[:-1]) | (all_lo[1:] != all_lo[:-1])
        all_place = np.concatenate([self._place[alive], place])[order][last]
        all_check = np.concatenate([self._check[alive], check])[order][last]
        # in one assignment: an interrupt in between would leave columns that do not match
        self._hi, self._lo, self._place, self._check = (
            all_hi[last],
            all_lo[last],
            all_place,
            all_check,
        )
