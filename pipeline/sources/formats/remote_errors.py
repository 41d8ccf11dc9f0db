"""What an error of a remote store means, in a few words, and whether to try again."""

from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus

_NO_FILE, _TOO_SHORT = "no such file", "it ends before what was asked for"
_TRY_AGAIN = frozenset((408, 425, 429, 500, 502, 503, 504))
_THROTTLED = frozenset(("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded"))

# By name: the packages that define them need not be installed
_KINDS = (
    (
        "SSLCertVerificationError ClientConnectorCertificateError",
        "the server's certificate is not trusted",
        False,
    ),
    ("NoCredentialsError PartialCredentialsError DefaultCredentialsError", "no credentials", False),
    (
        "TimeoutError ConnectTimeoutError ConnectionTimeoutError ReadTimeoutError "
        "ServerTimeoutError",
        "no answer in time",
        True,
    ),
    (
        "ClientPayloadError ConnectionClosedError ContentLengthError IncompleteRead "
        "ResponseParserError ResponseStreamingError",
        "the connection broke off",
        True,
    ),
    (
        "ConnectionError ClientConnectorError ClientOSError EndpointConnectionError "
        "HTTPClientError ServerDisconnectedError gaierror",
        "the server cannot be reached",
        True,
    ),
    ("FileNotFoundError", _NO_FILE, False),
    ("PermissionError", "access denied", False),
    ("IsADirectoryError", "it is a folder", False),
)
_HINTS = {
    "NoCredentialsError": " (set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
    "FSSPEC_S3_ANON=true for a public bucket)"
}


@dataclass(frozen=True)
class Cause:
    """Why a request failed; `passing` if the same request may succeed a little later.

    `missing` if there is no such object, or no bucket that could hold it; `gone` if the storage
    answers, and there is no such object or not this part of it.
    """

    reason: str
    passing: bool = False
    missing: bool = False

    @property
    def gone(self) -> bool:
        """Return whether the object, or the part that was asked for, is not there."""
        return self.reason in (_NO_FILE, _TOO_SHORT)


def cause_of(error: BaseException) -> Cause:
    """Return the cause of an error that a file system of fsspec raised.

    The message of an error may hold a URL with a signature, so that it is shown only if nothing
    else is known of the error.
    """
    chain = [*_chain(error)]
    for one in reversed(chain):  # the deepest cause knows most
        cause = _of_code(one) or _of_kind(one)
        if cause is not None:
            return cause
    lines = str(error).strip().splitlines()
    return Cause(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _of_code(error: BaseException) -> Cause | None:
    """Return the cause that an answer with a code of HTTP, and perhaps of S3, gives."""
    answer = getattr(error, "response", None)
    name, status = "", getattr(error, "status", None) or getattr(answer, "status_code", None)
    if isinstance(answer, dict):  # of botocore
        name = str(answer.get("Error", {}).get("Code", ""))
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if not isinstance(status, int) or status < 300:
        return None
    if name == "NoSuchBucket":
        return Cause("no such bucket", missing=True)
    if status in (404, 410):
        return Cause(_NO_FILE, missing=True)
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return Cause(_TOO_SHORT)
    told = f"{status} {name}" if name and not name.isdigit() else _phrase(status)
    if status in (401, 403):
        return Cause(f"access denied ({told})")
    passing = status in _TRY_AGAIN or name in _THROTTLED
    return Cause(f"the server answers {told}", passing)


def _phrase(status: int) -> str:
    known = [s.phrase for s in HTTPStatus if s == status]
    return f"{status} {known[0]}" if known else str(status)


def _of_kind(error: BaseException) -> Cause | None:
    """Return the cause that the class of an error tells."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    for names, reason, passing in _KINDS:
        if not kinds.isdisjoint(names.split()):
            hint = _HINTS.get(type(error).__name__, "")
            return Cause(reason + hint, passing, missing=reason == _NO_FILE)
    return None
