"""Errors that users can cause: each has one clear message, shown without a traceback."""


class LpipstoreError(Exception):
    """Base of every error that lpipstore raises on purpose.

    ``str(error)`` is one message that says what is wrong and what to do. The command line prints
    it and exits with `exit_code`; library users catch this class.
    """

    exit_code = 1


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
