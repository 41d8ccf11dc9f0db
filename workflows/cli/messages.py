"""Messages at the prompt: an option stands where Python names a keyword."""

from ...cache.errors import Value, plain, spelled

_NAMES = {
    "form": "as",
    "from_manifest": "from",
    "kind": "format",
    "limit": "store-limit",
    "statistics": "keep-statistics",
}
"""Settings whose option has another name."""


def option(name: str, value: Value = None) -> str:
    """Spell a setting as an option: ``--size``, ``--size 64``, ``--paired``, ``--no-compute``."""
    shown = _NAMES.get(name, name).replace("_", "-")
    if value is False:
        return f"--no-{shown}"
    return f"--{shown}" if value is None or value is True else f"--{shown} {plain(value)}"


def at_prompt(message: str) -> str:
    """Return a message with options in place of the settings that it names."""
    return spelled(message, option)
