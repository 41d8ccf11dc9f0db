"""Objects of a remote folder whose content is no longer what their name says."""

from collections.abc import Mapping

from .catalogue import Catalogue
from .folder import Listed, RemoteFolder, digest_of, is_segment
from .requests import as_they_end

_AT_ONCE = 4  # segments on their way, up to 64 MB each


def find_altered(
    folder: RemoteFolder, catalogue: Catalogue, listed: Mapping[str, Listed], *, everything: bool
) -> tuple[set[str], set[str]]:
    """Read the objects that may have been altered, and compare them with their names.

    An object may have been if its tag is another one than in every catalogue that has one.

    Parameters
    ----------
    listed
        What is told of all objects, by their names.
    everything
        Read all segments, whatever their tags.

    Returns
    -------
    (set, set)
        The names of objects whose content has changed, and of unchanged ones with another tag.

    Raises
    ------
    RemoteError
        One cannot be read.
    """
    tags: dict[str, str] = {}
    for segment in catalogue.segments:  # of those that were pushed twice, the last comes first
        if segment.tag:
            tags.setdefault(segment.name, segment.tag)
    retagged = {name for name, tag in tags.items() if name in listed and listed[name].tag != tag}
    names = sorted(name for name in listed if is_segment(name)) if everything else sorted(retagged)
    altered = set()
    for at, whole in as_they_end(lambda name: _is_whole(folder, name), names, _AT_ONCE):
        if not whole:
            altered.add(names[at])
    return altered, retagged - altered


def _is_whole(folder: RemoteFolder, name: str) -> bool:
    """Return whether an object's content is what its name says."""
    data = folder.read(name)
    return data is not None and digest_of(data) == name.split("/")[1]
