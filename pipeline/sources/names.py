"""Names of images: a path, a URL, or a place and a member, such as ``samples.npz#17``."""

import os
import re

_PROGRAM = "python://"
MEMBER = "#"  # between a place and the name of an image in it
# fmt: off
CONTAINER_SUFFIXES = (
    ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip", ".npy", ".npz", ".parquet", ".pq",
    ".arrow", ".feather", ".mp4", ".mkv", ".mov", ".webm", ".avi",
)
# fmt: on

# fmt: off
IMAGE_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".tif", ".tiff",
    ".webp", ".avif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", ".pcx",
    ".qoi",
))
# fmt: on


def is_image_name(path: str) -> bool:
    """Return whether a path ends like that of an image file."""
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES


def is_url(name: str) -> bool:
    """Return whether a name is a URL, such as ``s3://bucket/a.png``; Windows drives are none."""
    return re.match(r"[a-z][a-z0-9+.-]+://", name) is not None


def is_web(url: str) -> bool:
    """Return whether a URL is ``http://`` or ``https://``."""
    return url.startswith(("http://", "https://"))


def url_path(url: str) -> str:
    """Return a URL without the query of a web address."""
    return url.partition("?")[0] if is_web(url) else url


def has_password(url: str) -> bool:
    """Return whether a URL holds a password: ``user:password@``, or a token of a web address."""
    user, at, _ = re.split("[/?#]", url.partition("://")[2])[0].rpartition("@")
    return bool(at) and (":" in user or is_web(url))


def without_password(url: str) -> str:
    """Return a URL with stars for its password, to be shown."""
    return re.sub(r"(?<=://)[^/?#]*@", "***@", url) if has_password(url) else url


def member_name(place: str, member: str) -> str:
    """Return the name of a member of a place."""
    return f"{place}{MEMBER}{member}"


def split_name(name: str) -> tuple[str, str | None]:
    """Return the place and the member of a name; the member of a file by itself is None.

    A ``#`` that belongs to the path of a file is not mistaken for the separator: the place is the
    shortest part before a ``#`` that exists. A URL names an image by itself.
    """
    if MEMBER not in name or is_url(name) or os.path.lexists(name):
        return name, None
    for match in re.finditer(MEMBER, name):
        place = name[: match.start()]
        if os.path.isfile(place):
            return place, name[match.end() :]
    return name, None


def given_name(place: str, member: str) -> str:
    """Return the name of an image that a program holds in memory."""
    return f"{_PROGRAM}{place}/{member}"


def split_given(name: str) -> tuple[str, str] | None:
    """Return place and member of such a name; None for any other name."""
    if not name.startswith(_PROGRAM):
        return None
    place, _, member = name.removeprefix(_PROGRAM).rpartition("/")
    return place, member


def without_scheme(place: str) -> str:
    """Return what the program itself calls a place in memory; any other place as it is."""
    return place.removeprefix(_PROGRAM)


def is_there(name: str) -> bool:
    """Return whether a path exists, or that of the archive in which an image lies."""
    return os.path.lexists(name) or split_name(name)[1] is not None


def absolute(name: str) -> str:
    """Return a name that does not depend on the working directory."""
    if is_url(name):
        return name
    place, member = split_name(name)
    return os.path.abspath(place) if member is None else member_name(os.path.abspath(place), member)


def joined(folder: str, name: str) -> str:
    """Return a name that was given relative to a folder."""
    return name if is_url(name) else os.path.join(folder, name)


def folder_of(name: str) -> str:
    """Return the folder in which an image lies; within an archive, the archive and the folder.

    An archive that is gone is known by its suffix.
    """
    place, member = split_name(name)
    if member is None and MEMBER in name and not os.path.lexists(name):
        gone, _, inside = name.partition(MEMBER)
        if gone.lower().endswith(CONTAINER_SUFFIXES):
            place, member = gone, inside
    if member is None:
        return os.path.dirname(url_path(name) if is_url(name) else name)
    inside = os.path.dirname(member)
    return member_name(place, inside) if inside else place
