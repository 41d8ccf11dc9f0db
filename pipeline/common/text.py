"""Paths as text that can be stored and shown, and JSON without NaN."""

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping


def printable(path: str) -> str:
    """Return a path as printable text: control characters and undecodable bytes are escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


_ESCAPE = re.compile(
    r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U(000[0-9a-f]{5}|0010[0-9a-f]{4})|([nrt]))"
)


def unprinted(text: str, exists: Callable[[str], bool] = os.path.lexists) -> str:
    """Return the path that `printable` turned into `text`, preferring a path that exists.

    The inverse is ambiguous (a name can itself contain the characters of an escape), so callers
    must check the file that they find. If no candidate exists, `text` is returned.
    """
    return next((path for path in _readings(text) if exists(path)), text)


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
    """Return content as JSON, with null for numbers that JSON cannot represent (RFC 8259, §6).

    `default` converts objects of types unknown to JSON; without it they raise `TypeError`.
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
