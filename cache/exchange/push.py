"""From a store to a remote folder: what is missing there, several segments at a time."""

import json
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..keys import FORMAT_VERSION
from ..pools import Pool, array_metadata
from ..store import FeatureStore
from .altered import find_altered
from .catalogue import Catalogue, Warn, add_catalogue, read_catalogue
from .folder import (
    GROUP,
    Listed,
    RemoteError,
    RemoteFolder,
    array_name,
    digest_of,
)
from .kept import KeptCatalogues
from .parcels import Parcel, Wanted, parcels
from .remote_segments import RemoteSegment
from .requests import as_they_end
from .uncatalogued import find_uncatalogued

_AT_ONCE = 4  # segments on their way, up to 64 MB each

Report = Callable[[int, int], None]
"""``report(done, total)``: rows pushed so far, of those that have to be."""


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Attributes
    ----------
    segments, rows
        Segments that were sent, and the rows that the remote folder has now and had not before.
    bytes
        Bytes sent, those of the catalogue included.
    resumed
        Segments that were there and are in a catalogue only now, such as those of a killed push.
    there
        Rows of the store that the remote folder had before.
    corrupt
        Rows that are damaged in the store, and were left out.
    altered
        Objects whose content had changed since they were pushed; what the store has of them was
        sent again.
    """

    segments: int
    rows: int
    bytes: int
    resumed: int
    there: int
    corrupt: int
    altered: int


@dataclass(frozen=True)
class _Sent:
    """One object that lies in the remote folder now; `remote` is None if its rows are gone here."""

    remote: RemoteSegment | None
    bytes: int
    corrupt: int


def push(
    store: FeatureStore,
    folder: RemoteFolder,
    recipe: Mapping[str, str] | None,
    report: Report,
    warn: Warn,
    *,
    kept: KeptCatalogues | None = None,
    verify: bool = False,
) -> Pushed:
    """Copy rows that a remote folder lacks, as segments, and enter them in its catalogue.

    Small segments are sent as one; see `lpipstore.cache.exchange.parcels`.
    Each row is verified before it is sent, and the lengths of all objects before the catalogue is
    written, which comes last. Segments are pinned meanwhile. After a failure or a kill, the same
    call sends only what has not arrived. Segments that are there and in no catalogue are entered,
    too, whoever sent them. An object whose tag is not that in the catalogue is read; if its content
    has changed, its rows are sent again.

    Parameters
    ----------
    recipe
        Push only the pools whose recipe contains these items; None stands for all.
    kept
        Catalogues that need not be fetched.
    verify
        Read every object, also of storages that tell nothing of changes.

    Raises
    ------
    RemoteError
        The remote folder cannot be read or written, or an object did not arrive whole.
    """
    listed = folder.list()
    told = read_catalogue(folder, warn, kept)
    altered, sound = find_altered(folder, told, listed, everything=verify)
    listed = {name: one for name, one in listed.items() if name not in altered}
    before = _whole(told, listed)
    left = find_uncatalogued(folder, before, listed)
    catalogue = Catalogue([*left, *before.segments])
    todo: list[Wanted] = []
    there: set[bytes] = set()
    for segment in store.sealed(recipe):
        keys = segment.keys
        held = catalogue.find(keys)[0] >= 0
        there.update(keys[at] for at in np.flatnonzero(held).tolist())
        if (segment.current & ~held).any():
            todo.append((segment, segment.current & ~held))
    with store.pin(f"push to {folder.place}", [key for s, _ in todo for key in s.keys]):
        sent = _send_all(folder, todo, listed, report)
    arrived = [one.remote for one in sent if one.remote is not None] + left
    retold = [segment for segment in before.segments if segment.name in sound]
    written = sum(one.bytes for one in sent)
    if arrived or retold:
        written += add_catalogue(folder, before, _need_whole(folder, [*arrived, *retold]))
    pushed = {key for remote in arrived for key in remote.keys}
    unmended = altered - {remote.name for remote in arrived}
    _remove_altered(folder, told, unmended, Catalogue([*arrived, *before.segments]), warn)
    return Pushed(
        segments=sum(one.bytes > 0 for one in sent),
        rows=len(pushed),
        bytes=written,
        resumed=len(left) + sum(one.remote is not None and not one.bytes for one in sent),
        there=len(there - pushed),
        corrupt=sum(one.corrupt for one in sent),
        altered=len(altered),
    )


def _remove_altered(
    folder: RemoteFolder, told: Catalogue, altered: Set[str], now: Catalogue, warn: Warn
) -> None:
    """Remove altered objects whose rows are in other ones now; name the others to `warn`."""
    lost: dict[str, int] = dict.fromkeys(altered, 0)
    for segment in told.segments:
        if segment.name in lost:
            lost[segment.name] += len(now.missing(segment.keys))
    for name, rows in sorted(lost.items()):
        if rows:
            warn(
                f"{folder.place}/{name} was altered, and this store lacks {rows:,} of its rows: "
                "push again from a store that has them"
            )
        else:
            folder.remove(name)


def _whole(catalogue: Catalogue, listed: Mapping[str, Listed]) -> Catalogue:
    """Return a catalogue without the segments whose object is gone, altered or truncated."""
    whole = [s for s in catalogue.segments if _size(listed, s.name) == s.size]
    return Catalogue(whole, catalogue.files, catalogue.newest)


def _size(listed: Mapping[str, Listed], name: str) -> int:
    """Return the bytes of an object, 0 if there is none."""
    return listed[name].size if name in listed else 0


def _send_all(
    folder: RemoteFolder, todo: Sequence[Wanted], listed: Mapping[str, Listed], report: Report
) -> list[_Sent]:
    """Send segments, a few at a time; return what became of each object, in order."""
    if todo:
        _write_groups(folder, {s.pool.folder: s.pool for s, _ in todo}, listed)
    sending = parcels(todo)
    total, done = sum(parcel.rows for parcel in sending), 0
    sent: list[_Sent] = [_Sent(None, 0, 0)] * len(sending)
    report(0, total)
    for at, one in as_they_end(lambda parcel: _send(folder, parcel, listed), sending, _AT_ONCE):
        sent[at] = one
        done += sending[at].rows
        report(done, total)
    return sent


def _send(folder: RemoteFolder, parcel: Parcel, listed: Mapping[str, Listed]) -> _Sent:
    """Send a parcel, unless its object is there; its metadata first.

    Raises
    ------
    RemoteError
        It cannot be read or written.
    """
    try:
        packed = parcel.pack()
    except OSError as error:
        raise RemoteError(f"a segment cannot be read: {error}") from error
    if packed is None:
        return _Sent(None, 0, 0)
    if not packed.good.any():
        return _Sent(None, 0, packed.corrupt)
    digest, pool, size = digest_of(packed.data), parcel.pool, len(packed.data)
    remote = RemoteSegment.of(pool, digest, size, packed.contents, packed.good)
    if _size(listed, remote.name) == size:
        return _Sent(remote, 0, packed.corrupt)
    metadata = _array(pool, len(packed.contents.records))
    folder.write(array_name(pool.folder, digest), metadata)
    folder.write(remote.name, packed.data)
    return _Sent(remote, len(metadata) + size, packed.corrupt)


def _array(pool: Pool, rows: int) -> bytes:
    """Return the metadata of the Zarr array that one segment is."""
    spec = pool.spec
    metadata = array_metadata(spec, pool.codec, pool.slots)
    metadata["shape"][0] = rows
    return json.dumps(metadata).encode()


def _write_groups(
    folder: RemoteFolder, pools: Mapping[str, Pool], listed: Mapping[str, Listed]
) -> None:
    """Write the Zarr groups that are not there."""
    groups: dict[str, dict[str, Any]] = {GROUP: {"format": FORMAT_VERSION}}
    groups |= {f"{name}/{GROUP}": {"recipe": pool.recipe} for name, pool in pools.items()}
    for name, ours in groups.items():
        if name not in listed:
            group = {"zarr_format": 3, "node_type": "group", "attributes": {"lpipstore": ours}}
            folder.write(name, json.dumps(group).encode())


def _need_whole(folder: RemoteFolder, segments: Sequence[RemoteSegment]) -> list[RemoteSegment]:
    """Return segments with the tags of their objects, which must be there in full length.

    Raises
    ------
    RemoteError
        One is not.
    """
    found: dict[str, Listed] = {}
    for pool in {segment.pool.folder for segment in segments}:
        found |= folder.list(f"{pool}/")
    for segment in segments:
        if _size(found, segment.name) != segment.size:
            raise RemoteError(
                f"{folder.place}/{segment.name} has {_size(found, segment.name):,} of "
                f"{segment.size:,} bytes after it was written: give the same command again"
            )
    return [replace(segment, tag=found[segment.name].tag) for segment in segments]
