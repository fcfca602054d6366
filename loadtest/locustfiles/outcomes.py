"""What Locust says of a request that failed -> the error word and its detail.

Locust hands on whatever exception its client met, often wrapped several times over, and of clients that nobody here
knows; so they are told apart by the names of their classes, and what fits none is `failed`: the locustfile says so.
"""

import errno
import re
from collections.abc import Iterator
from typing import Any

from loadtest.fire import one_line, word_of_status
from loadtest.types import ErrorWord

_WORDS: tuple[tuple[ErrorWord, frozenset[str]], ...] = tuple(
    (word, frozenset(names.split()))  # type: ignore[misc]
    for word, names in (
        ("dns", "gaierror NameResolutionError"),
        ("tls", "SSLError SSLCertVerificationError CertificateError"),
        ("timeout_connect", "ConnectTimeout ConnectTimeoutError"),
        ("timeout_idle", "ReadTimeout ReadTimeoutError"),
        ("connect", "ConnectionRefusedError"),
        ("truncated", "RemoteDisconnected IncompleteRead ChunkedEncodingError HTTPConnectionClosed"),
        ("write", "BrokenPipeError"),
        ("reset", "ConnectionResetError"),
        ("malformed", "BadStatusLine HTTPParseError ContentDecodingError InvalidChunkLength"),
        ("redirect", "TooManyRedirects RetriesExceeded"),
        ("timeout_total", "TimeoutError timeout Timeout"),
        ("connect", "NewConnectionError ProxyError MaxRetryError"),
    )
)
"""In the order in which they are looked for: the cause before what it was wrapped in."""
_OURS = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM)
_NO_WAY = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)
MOST_CAUSES = 20
_SECRET_PARTS = re.compile(r"(?<=://)[^/\s@'\"]+@|(?<=\S\?)[^\s'\"<>()?]*=[^\s'\"<>()]*")
"""Of URLs in a client's words: whoever gave a request a name, for one, wants its query nowhere."""


def outcome(exception: Any, status: int | None) -> tuple[ErrorWord | None, str]:
    """The word and the detail; (None, "") where Locust counts a success, whatever the status."""
    if not exception:
        return None, ""
    causes = list(_causes(exception))
    by_author = any(type(cause).__name__ in ("CatchResponseError", "ResponseError") for cause in causes)
    own = by_author or isinstance(exception, str)
    shown = str(exception) if own else f"{type(exception).__name__}: {_SECRET_PARTS.sub('...', str(exception))}"
    detail = one_line(shown, None)
    if status is not None and status >= 300:
        return word_of_status(status), detail
    return _word(causes), detail


def _word(causes: list[BaseException]) -> ErrorWord:
    numbers = {cause.errno for cause in causes if isinstance(cause, OSError)}
    if numbers.intersection(_OURS):
        return "generator"
    kinds = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    for word, names in _WORDS:
        if kinds & names:
            return word
    return "connect" if numbers.intersection(_NO_WAY) else "failed"


def _causes(exception: Any) -> Iterator[BaseException]:
    """The exception and those it was made of, each once."""
    seen: set[int] = set()
    waiting = [exception]
    while waiting and len(seen) < MOST_CAUSES:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [*one.args, one.__cause__, one.__context__, getattr(one, "reason", None)]
