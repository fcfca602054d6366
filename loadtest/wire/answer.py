"""What came back for one request, read by read, and what can be said of its stamps."""

import ssl
from array import array
from collections.abc import Callable, Sequence
from itertools import chain, compress, islice, repeat
from operator import eq, sub
from typing import Any, Literal

import httptools

from loadtest import codings, stamps
from loadtest.types import ErrorWord
from loadtest.wire.flight import Broken

MAX_EVENT_BYTES = 8 << 20
NO_READS: frozenset[int] = frozenset()


class Answer:
    """What came back for one request, when, and how it ended: filled by a connection's callback, read when it is over.

    Three lists have one entry a read that brought part of the answer: when it was read, its control data with the
    kernel's stamp, and how many pieces of the body there were after it. It is also the HTTP parser's protocol, of
    which `on_body` is the list's own `append`.
    """

    __slots__ = (
        "_bodiless", "_head_done", "_parser", "_until_closed", "closed", "complete", "connect_dur_ns", "controls",
        "dns_dur_ns", "done_ns", "ends", "error", "feed", "first_possible_ns", "headers", "on_body", "partial",
        "pieces", "reconnects", "remote_address", "request_bytes", "response_bytes", "retransmits", "reusable", "reused",
        "rtt_us", "sent_ns", "settled", "stamps", "status", "times", "tls_dur_ns", "unstamped",
    )  # fmt: skip

    def __init__(self, bodiless: bool = False) -> None:
        self.pieces: list[bytes] = []
        self.on_body = self.pieces.append
        self.times = array("q")
        self.controls = bytearray()
        self.ends: list[int] = []
        self.stamps: Sequence[int] = ()  # of the same reads, once it is over: the kernel's, or the time of the read
        self.first_possible_ns: dict[int, int] = {}  # read -> its first byte came no earlier; 0: it came with the last
        self.unstamped = NO_READS
        self.partial = NO_READS  # those that filled the buffer and may have left something behind
        self.status: int | None = None
        self.headers: dict[bytes, bytes] = {}  # names in lower case; of several with one name, the last
        self.error: tuple[ErrorWord, str] | None = None
        self.settled = False  # there is nothing more to wait for
        self.complete = False  # the message ended as HTTP says
        self.closed = False  # the connection ended before the message
        self.reusable = False
        self.reused = False
        self.reconnects = 0
        self.dns_dur_ns: int | None = None
        self.connect_dur_ns: int | None = None
        self.tls_dur_ns: int | None = None
        self.sent_ns: int | None = None
        self.done_ns = 0
        self.remote_address = ""
        self.request_bytes = 0
        self.response_bytes = 0
        self.rtt_us: int | None = None
        self.retransmits: int | None = None
        self._bodiless = bodiless
        self._until_closed = False
        self._head_done = False
        self._parser: Any = httptools.HttpResponseParser(self)
        self.feed: Callable[[memoryview], None] = self._parser.feed_data

    # the HTTP parser's protocol

    def on_message_begin(self) -> None:
        if self.complete:
            self.reusable = False  # something follows the body

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:  # what comes later is a trailer
            self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        self.status = self._parser.get_status_code()
        if self.status < 200:
            return
        self._head_done = True
        if self._bodiless:
            self._finish()
        else:
            chunked = self.headers.get(b"transfer-encoding", b"").lower().endswith(b"chunked")
            self._until_closed = not chunked and b"content-length" not in self.headers

    def on_message_complete(self) -> None:
        if not self._head_done:  # a 1xx answer; the real one follows
            self.status = None
            self.headers.clear()
        elif not self.complete:
            self._finish()

    def _finish(self) -> None:
        self.complete = self.settled = True
        self.reusable = self._parser.should_keep_alive()

    # what the connection tells it

    def end(self, now_ns: int) -> None:
        """The server has closed the connection, which is also how a message without a length ends."""
        self.done_ns = now_ns
        self.settled = True
        self.complete = self._head_done and self._until_closed
        self.closed = not self.complete

    def fail(self, word: ErrorWord, detail: str) -> None:
        self.settled = True
        self.error = self.error or (word, detail)

    def unwritten(self, sent: int, size: int) -> None:
        """The connection was lost before the request was written, whoever noticed first."""
        self.closed = False
        why = self.error[1] if self.error else "the server closed it"
        self.error = ("write", f"the connection was lost after {sent} of {size} bytes of the request: {why}")

    def stumble(self, error: Exception) -> None:
        """What went wrong in a callback, as what it is: the server's fault, the network's, or ours."""
        if len(self.ends) < len(self.times):
            self.ends.append(len(self.pieces))
        if isinstance(error, httptools.HttpParserError) and self.complete:
            self.reusable = False  # something follows the body
        elif isinstance(error, httptools.HttpParserCallbackError):
            self.fail("generator", f"while reading the answer: {error.__context__!r}")
        elif isinstance(error, httptools.HttpParserUpgrade):
            self.fail("malformed", "the server switched to another protocol")
        elif isinstance(error, httptools.HttpParserError):
            self.fail("malformed", f"not HTTP/1.1: {error}")
        elif isinstance(error, ssl.SSLError):
            self.fail("tls", f"what came cannot be deciphered: {reason(error)}")
        elif isinstance(error, OSError):
            self.fail("reset", f"the connection was lost: {reason(error)}")
        else:
            self.fail("generator", f"while reading the answer: {error!r}")

    def finish(self, now_ns: int) -> None:
        """It is over: stamps for reads, and the moment it ended."""
        self._parser = self.feed = None  # type: ignore[assignment]  # a cycle, and the largest part of it
        if self._bodiless and self.pieces:
            self.pieces.clear()
            self.ends = [0] * len(self.ends)
            self.reusable = False
        self.stamps = found = stamps.unpack(self.controls)
        if not all(found):
            self.unstamped = frozenset(read for read, stamp_ns in enumerate(found) if not stamp_ns)
            for read in self.unstamped:
                found[read] = self.times[read]
        if self.error is not None or not self.settled:
            self.done_ns = now_ns
        elif not self.done_ns:
            self.done_ns = self.stamps[-1]

    # what may be asked afterwards

    def event_is_too_large(self) -> bool:
        """Whether more has come since the last blank line of a stream than an event may have. Not of a coded body, whose
        lines are not to be seen; what that grows to has a limit of its own."""
        kind = self.headers.get(b"content-type", b"").lower()
        if not kind.startswith(b"text/event-stream") or b"content-encoding" in self.headers:
            return False
        size, next_begins = 0, b""
        for piece in reversed(self.pieces):
            size += len(piece)
            if size > MAX_EVENT_BYTES:
                return True
            if b"\n\n" in piece or b"\r\n\r\n" in piece or b"\r\r" in piece or b"\n\r\n" in piece:
                return False
            if piece.endswith((b"\n", b"\r")) and next_begins.startswith((b"\n", b"\r")):
                return False
            next_begins = piece
        return False

    def reads_of_pieces(self) -> Sequence[int]:
        """Index of the read that brought each piece."""
        ends, last = self.ends, len(self.ends) - 1
        if ends[:-1] == list(range(1, last + 1)):  # one a read, but for the last, as nearly always
            return [*range(last), *repeat(last, ends[last] - last)] if ends else []
        counts = map(sub, ends, chain((0,), ends))
        return list(chain.from_iterable(map(repeat, range(len(ends)), counts)))

    def certainty(self, reads: Sequence[int]) -> tuple[Literal["kernel", "user"], int, int]:
        """Clock, longest read lag and largest uncertainty (ns) of the reads that completed events, one entry an event.

        A read that only brought the end of one event, and nothing after it, is as exact as its stamp.
        """
        reads = reads or range(len(self.stamps))
        if len(reads) == 1 and reads[0] not in self.unstamped:
            [read] = reads
            uncertainty_ns = self._uncertainty_ns(read) if read in self.first_possible_ns else 0
            return "kernel", max(0, self.times[read] - self.stamps[read]), uncertainty_ns
        bearing = set(reads)
        if bearing and len(bearing) == reads[-1] - reads[0] + 1:
            span = slice(reads[0], reads[-1] + 1)
            lags_ns = map(sub, self.times[span], self.stamps[span])
        else:
            lags_ns = map(sub, map(self.times.__getitem__, bearing), map(self.stamps.__getitem__, bearing))
        unstamped = self.unstamped.intersection(bearing)
        doubtful = unstamped.union(bearing.intersection(self.first_possible_ns))
        if len(bearing) < len(reads):
            doubtful = doubtful.union(compress(reads, map(eq, reads, islice(reads, 1, None))))
        uncertainty_ns = max(map(self._uncertainty_ns, doubtful), default=0)
        return "user" if unstamped else "kernel", max(0, max(lags_ns, default=0)), uncertainty_ns

    def _uncertainty_ns(self, read: int) -> int:
        first_ns = self.first_possible_ns.get(read, 1)
        if not first_ns:
            return 0
        before = read - 1
        while before in self.partial:
            before -= 1
        emptied_ns = self.times[before] if before >= 0 else self.sent_ns or 0
        return max(self.stamps[read] - max(first_ns, emptied_ns), 0)


def decoded_pieces(answer: Answer) -> Sequence[bytes]:
    """The body's pieces without their content coding; raises Broken ("malformed") where it does not fit."""
    if b"content-encoding" not in answer.headers:
        return answer.pieces
    try:
        return codings.decoded(answer.pieces, answer.headers[b"content-encoding"].decode("latin-1"))
    except ValueError as e:
        raise Broken("malformed", str(e)) from e


def reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
    return str(reason or error)
