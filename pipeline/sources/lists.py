"""What is given as images, expanded to places: lists of names, patterns, numbered shards."""

import glob
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator

from ...cache.errors import UsageError
from ..common.text import printable
from .names import is_image_name, is_there, is_url

LIST, PIPED = "@", "-"
"""What a list begins with, and the list on standard input."""

_MOST = 1_000_000  # names out of one set of braces
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?|([a-zA-Z])\.\.([a-zA-Z])")


def expand(given: str, holds_images: Callable[[str], bool]) -> list[str]:
    """Return the places that something given stands for, in order.

    ``@list.txt`` reads names from a file, one per line, and ``-`` from standard input; see
    `read_names`. Braces are expanded as by bash: ``shard-{000..012}.tar``, ``{a,b}.tar``; what is
    missing of them stays in the list, so that it can be named. Patterns give the paths that they
    match. Whatever exists by the name that was given stands for itself, except a list: ``./@a`` is
    the file ``@a``. URLs stand for themselves, and so do images in archives, ``shard.tar#a.png``.

    Parameters
    ----------
    given
        A path, a URL, a pattern, a set of braces or a list.
    holds_images
        Returns whether a path is that of an archive or another file that holds images.

    Raises
    ------
    UsageError
        Nothing of the name exists, a pattern matches nothing, or a list cannot be read.
    """
    if given == PIPED:
        return read_names(_piped())
    if given.startswith(LIST):
        return read_names(_listed(given))
    if os.path.lexists(given):
        return [given]
    places = braces(given)
    if places != [given]:
        return _existing(given, places, holds_images)
    if is_url(given) or is_there(given):
        return [given]
    if glob.has_magic(given):
        matches = _matches(given, holds_images)
        if matches:
            return matches
        raise UsageError(f"no image matches the pattern {printable(given)}")
    raise UsageError(f"no such file or folder: {printable(given)}")


def is_list(given: str) -> bool:
    """Return whether something given stands for many names: a list, or braces."""
    if given == PIPED or given.startswith(LIST):
        return True
    return not os.path.lexists(given) and braces(given) != [given]


def read_names(data: bytes) -> list[str]:
    r"""Return the names in a list, one per line or separated by zero bytes.

    Names are taken as they are, with any spaces and signs, and paths are relative to the working
    directory, as they would be as arguments. Lines may end in ``\r\n``; blank ones are ignored.
    """
    if b"\0" in data:
        names = data.split(b"\0")
    else:
        names = [
            line.removesuffix(b"\r") for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        ]
    return [os.fsdecode(name) for name in names if name.strip()]


def braces(text: str) -> list[str]:
    """Expand braces as bash does: ``{a,b}``, ``{000..012}``, ``{1..9..2}``, also within each other.

    Raises
    ------
    UsageError
        They would make more than a million names.
    """
    names = list(itertools.islice(_expanded(text), _MOST + 1))
    if len(names) > _MOST:
        raise UsageError(f"{printable(text)} stands for more than {_MOST:,} names")
    return names


def _expanded(text: str) -> Iterator[str]:
    """Yield what the first braces that mean something stand for, with all behind them expanded."""
    for start in (match.start() for match in re.finditer("{", text)):
        parts = _parts(text, start)
        if parts is None:
            continue
        inner, end = parts
        for part in inner:
            for tail in _expanded(text[end:]):
                yield text[:start] + part + tail
        return
    yield text


def _parts(text: str, start: int) -> tuple[Iterator[str], int] | None:
    """Return what braces that open at `start` stand for, and where the text behind them begins."""
    depth, begin = 0, start + 1
    pieces: list[str] = []
    for place in range(start, len(text)):
        sign = text[place]
        depth += (sign == "{") - (sign == "}")
        if depth == 0 or (depth == 1 and sign == ","):
            pieces.append(text[begin:place])
            begin = place + 1
        if depth == 0:
            if len(pieces) > 1:
                return itertools.chain.from_iterable(map(_expanded, pieces)), place + 1
            match = _RANGE.fullmatch(pieces[0])
            return None if match is None else (_range(match), place + 1)
    return None


def _range(match: re.Match[str]) -> Iterator[str]:
    first, last, step, first_letter, last_letter = match.groups()
    if first is None:
        letters = ord(first_letter), ord(last_letter)
        yield from map(chr, _numbers(*letters, 1))
        return
    padded = any(re.match(r"-?0\d", number) for number in (first, last))
    width = max(len(first), len(last)) if padded else 0
    for number in _numbers(int(first), int(last), abs(int(step or 1)) or 1):
        yield f"{number:0{width}}"


def _numbers(first: int, last: int, step: int) -> range:
    return range(first, last + 1, step) if first <= last else range(first, last - 1, -step)


def _existing(given: str, places: list[str], holds_images: Callable[[str], bool]) -> list[str]:
    """Match the patterns among places; raise `UsageError` if not one of the places exists."""
    found: list[str] = []
    some = False
    for place in places:
        there = is_url(place) or is_there(place)
        matches = _matches(place, holds_images) if not there and glob.has_magic(place) else []
        some = some or there or bool(matches)
        found += matches or [place]
    if not some:
        raise UsageError(
            f"none of the {len(places):,} files of {printable(given)} exists, such as "
            f"{printable(places[0])}"
        )
    return found


def _matches(pattern: str, holds_images: Callable[[str], bool]) -> list[str]:
    """Return what a pattern matches; without a suffix it is filtered like a folder."""
    matches = sorted(glob.glob(pattern, recursive=True))
    if os.path.splitext(pattern)[1]:
        return matches
    images = [path for path in matches if is_image_name(path) or os.path.isdir(path)]
    return images or [path for path in matches if holds_images(path)]


def _piped() -> bytes:
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError("- is a list on standard input, which is closed")
    return sys.stdin.buffer.read()


def _listed(given: str) -> bytes:
    path = given.removeprefix(LIST)
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        literal = os.path.join(os.curdir, given)
        hint = (
            f"; write {printable(literal)} for what is called so"
            if os.path.lexists(literal)
            else ""
        )
        raise UsageError(
            f"the list {printable(path)} cannot be read: {error.strerror}{hint}"
        ) from error
