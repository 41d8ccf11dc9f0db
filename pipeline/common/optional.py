"""Packages that only some users need: imported where they are used, or one message says how."""

import importlib
import shlex
from typing import Any

from ...cache.errors import UsageError


def optional(module: str, need: str, install: str) -> Any:  # noqa: ANN401 - it may have no types
    """Import a module that may not be installed, and return it.

    Parameters
    ----------
    module
        The name of the module.
    need
        What needs which package, such as ``"videos need PyAV"``.
    install
        What pip installs it by, such as ``"lpipstore[video]"``.

    Raises
    ------
    UsageError
        See `not_installed`.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise not_installed(need, install, error) from error


def not_installed(need: str, install: str, error: ImportError) -> UsageError:
    """Return the error for a missing or broken package; the arguments are those of `optional`."""
    missing = isinstance(error, ModuleNotFoundError)
    why = "is not installed" if missing else f"cannot be imported ({error})"
    return UsageError(f"{need}, which {why}: pip install {shlex.quote(install)}")
