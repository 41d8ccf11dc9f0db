"""A process's hold on an open store, which survives forks and the loss of the index."""

import os
import threading
from collections.abc import Callable
from typing import TypeVar

from .disk import disk_errors, store_error
from .errors import IndexDamaged, IndexReplaced, StoreError
from .opening import Opened, StoreOptions, folder_lock, open_store
from .recovery import set_index_aside
from .state import INDEX

_Result = TypeVar("_Result")


class Handle:
    """Runs actions on an open store; opens it again after a fork or if its index was lost.

    See `open_store` for the parameters and for what is raised.
    """

    def __init__(
        self,
        options: StoreOptions,
        *,
        limit: int | None,
        first_limit: Callable[[], int | None],
    ) -> None:
        self.options = options
        self.closed = False
        self._guard = threading.Lock()
        self._left: list[Opened] = []
        self.opened = open_store(options, limit=limit, first_limit=first_limit)

    def run(self, action: Callable[[Opened], _Result]) -> _Result:
        """Run `action` on the open store; run it once more if the index was lost meanwhile."""
        path = self.options.path
        if self.closed:
            raise StoreError(f"the store at {path} is closed")
        opened = self.opened
        if opened.pid != os.getpid():
            self._guard = threading.Lock()  # another thread of the parent may have held it
            opened = self._reopen(opened)
        try:
            return action(opened)
        except IndexReplaced:
            return self._retry(action, self._reopen(opened))
        except IndexDamaged:
            return self._retry(action, self.heal(opened))
        except OSError as error:
            raise store_error(path, error) from error

    def heal(self, before: Opened) -> Opened:
        """Move a damaged index aside and rebuild it from the segments."""
        path = self.options.path
        with self._guard, folder_lock(path):
            if self.opened is before and before.state.index.is_current():
                set_index_aside(path / INDEX, "damaged")
        return self._reopen(before)

    def close(self) -> None:
        """Close the store, unless this process inherited it; closing twice is harmless."""
        with self._guard:
            if self.closed:
                return
            self.closed = True
        if self.opened.pid == os.getpid():
            self.opened.close()

    def _retry(self, action: Callable[[Opened], _Result], opened: Opened) -> _Result:
        with disk_errors(self.options.path):
            return action(opened)

    def _reopen(self, before: Opened) -> Opened:
        with self._guard:
            if self.opened is before:
                self._left.append(before)  # kept: closing it would touch what is no longer ours
                mine = before.pid == os.getpid()
                if mine:
                    before.writer.abandon()
                    before.lender.abandon()
                self.opened = open_store(
                    self.options, limit=None, first_limit=lambda: before.state.limit
                )
                for pin in before.state.pins if mine else ():
                    pin.attach(self.opened.state)
            return self.opened
