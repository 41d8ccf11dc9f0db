"""Messages for programs: through `logging`, and progress only where it is asked for."""

import logging

from ...cache.errors import spelled
from .screen import Screen

LOGGER = logging.getLogger("lpipstore")
LOGGER.addHandler(logging.NullHandler())  # silent until a program asks to hear


class LoggedScreen(Screen):
    """A screen whose messages go to the logger "lpipstore": `say` as INFO, `warn` as WARNING.

    Progress is drawn on stderr if `progress` is set.
    """

    def __init__(self, *, progress: bool = False) -> None:
        super().__init__(quiet=not progress)

    def say(self, message: str) -> None:
        """Log a line that is good to know."""
        LOGGER.info(spelled(message))

    def warn(self, message: str) -> None:
        """Log a line that should not be missed, once."""
        if message not in self._warned:
            self._warned.add(message)
            LOGGER.warning(spelled(message))
