"""Errors that a person can cause: one clear message each, no traceback at the prompt."""


class LpipstoreError(Exception):
    """Base of every error that lpipstore raises on purpose.

    ``str(error)`` is one message that says what is wrong and what to do. The command line prints
    it and exits with `exit_code`; library users catch this class.
    """

    exit_code = 1


class UsageError(LpipstoreError, ValueError):
    """A wrong argument or option: the message shows the value that came and those that fit."""

    exit_code = 2


class StoreError(LpipstoreError):
    """The feature store cannot be opened, read or written."""


class StoreFull(StoreError):  # noqa: N818 - it names what is the case, as queue.Full does
    """The disk took no more; what was committed before stays and can be read."""


class StoreBusy(StoreError):  # noqa: N818
    """Another process has been holding the store's lock for too long."""


class IndexDamaged(StoreError):  # noqa: N818
    """The store's index is not a readable database any more."""


class IndexReplaced(StoreError):  # noqa: N818
    """The index file was taken away or exchanged while the store was open."""
