"""Errors that users can cause: each has one clear message, shown without a traceback.

A message names what a person would change by `setting`, as Python names it. People at the prompt
then read of an option, and callers from Python of a keyword:

>>> error = LpipstoreError(f"{setting('memory')} is too small: use {setting('size', 64)}")
>>> str(error)
'memory is too small: use size=64'
>>> spelled(error.message, lambda name, value: f"--{name}" + (f" {value}" if value else ""))
'--memory is too small: use --size 64'

A message that goes into another one goes in as ``error.message``, which keeps the marks.
"""

import json
import re
from collections.abc import Callable

Value = str | float | bool | None
Spell = Callable[[str, Value], str]
"""Spells a setting, given its name and its value (None: none is named)."""

# Noncharacters, which Unicode sets apart for use inside a program: no text of a user has them
_BEGIN, _IS, _END = "\ufdd0", "\ufdd1", "\ufdd2"
_MARK = re.compile(f"{_BEGIN}([a-z_]+){_IS}([ -~]*){_END}")


def setting(name: str, value: Value = None) -> str:
    """Return the mark of a setting, to be put into a message; see `spelled`.

    Parameters
    ----------
    name
        The keyword in Python, such as ``row_dtype``.
    value
        A value to name with it: what somebody chose or could choose, True or False for a switch.
        A single word in capitals, such as FILE, stands for any value of that kind. None names the
        setting alone.
    """
    return f"{_BEGIN}{name}{_IS}{json.dumps(value)}{_END}"


def keyword(name: str, value: Value = None) -> str:
    """Spell a setting for callers from Python: ``size``, ``size=64``, ``weights="random"``."""
    if value is None:
        return name
    quoted = isinstance(value, str) and not (value.isalpha() and value.isupper())
    return f'{name}="{value}"' if quoted else f"{name}={plain(value)}"


def plain(value: Value) -> str:
    """Return the value of a setting as people write it: numbers without needless digits."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def spelled(message: str, spell: Spell = keyword) -> str:
    """Return a message with the settings that it names spelled out."""
    return _MARK.sub(lambda mark: spell(mark[1], json.loads(mark[2])), message)


class _Message(Exception):  # noqa: N818 - a part of errors and warnings
    """Text that names settings: spelled for Python by ``str``, as it was written in `message`."""

    @property
    def message(self) -> str:
        """The message with its marks, for `spelled` or to be put into another message."""
        return super().__str__()

    def __str__(self) -> str:
        return spelled(self.message)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class LpipstoreError(_Message):
    """Base of every error that lpipstore raises on purpose.

    ``str(error)`` is one message that says what is wrong and what to do, and names keywords. The
    command line prints it with options in their place and exits with `exit_code`; library users
    catch this class.
    """

    exit_code = 1


class LpipstoreWarning(_Message, RuntimeWarning):
    """Something that a person should know, though the work goes on."""


class UsageError(LpipstoreError, ValueError):
    """An invalid argument or option; the message shows the value received and the valid ones."""

    exit_code = 2


class StoreError(LpipstoreError):
    """The feature store cannot be opened, read or written."""


class StoreFull(StoreError):  # noqa: N818 - named for the condition, like queue.Full
    """No space left on the disk; rows committed before stay readable."""


class StoreBusy(StoreError):  # noqa: N818
    """Another process has been holding the store's lock for too long."""


class IndexDamaged(StoreError):  # noqa: N818
    """The store's index is no longer a readable database."""


class IndexReplaced(StoreError):  # noqa: N818
    """The index file was removed or replaced while the store was open."""
