"""Paths as text that can be stored and shown, and JSON without NaN."""

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def printable(path: str) -> str:
    """Return a path as text to store and show: no control characters, no undecodable bytes."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


_ESCAPE = re.compile(
    r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U(000[0-9a-f]{5}|0010[0-9a-f]{4})|([nrt]))"
)


def unprinted(text: str) -> str:
    """Return the path that `printable` showed as `text`: one that is there, if there is one.

    The inverse is not unique (a name can hold the four characters of an escape itself), so that who
    relies on the path has to check what lies there. Where nothing does, `text` comes back.
    """
    return next((path for path in _readings(text) if os.path.lexists(path)), text)


def _readings(text: str) -> Iterator[str]:
    yield text
    for bytes_first in (True, False):

        def unescape(match: re.Match[str], *, bytes_first: bool = bytes_first) -> str:
            byte, short, long, control = match.groups()
            if control is not None:
                return {"n": "\n", "r": "\r", "t": "\t"}[control]
            if byte is not None and bytes_first:
                return os.fsdecode(bytes([int(byte, 16)]))
            return chr(int(byte or short or long, 16))

        yield _ESCAPE.sub(unescape, text)


def json_text(content: object, default: Callable[[object], str] | None = None) -> str:
    """Return content as JSON, with null for numbers that JSON does not know (RFC 8259, §6).

    What is of no type of JSON becomes what `default` makes of it; without it, that is a
    `TypeError`.
    """
    return json.dumps(_without_nan(content), indent=2, default=default, allow_nan=False)


def _without_nan(content: object) -> object:
    if isinstance(content, Mapping):
        return {name: _without_nan(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content
