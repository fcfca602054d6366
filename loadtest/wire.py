"""HTTP/1.1 and TLS over raw sockets with kernel timestamps. The only socket code.

One libev watcher a connection; its callback reads with `recvmsg`, feeds the HTTP parser and notes when. (One epoll set
for all of them, looked at once a millisecond, saves nothing that can be measured.) Events and JSON are parsed after the
answer has ended: the stamps make that harmless, and it is half the cost of a greenlet woken per chunk. The greenlet of a
request sleeps in its `Flight` until the answer is whole, has failed, or somebody ends it.

What the HTTP parser does not know is decided here: the end of a connection, 1xx answers, answers to HEAD, what follows
a body. Idle connections are kept per target, the last used first, and no request ever waits for one: where none is
free, another is opened. A kept connection that fails before the first byte of the answer is replaced by a fresh one,
once, and the result says so (`reconnects`). Through a proxy, the time to connect ends when the way to the target is open.

Everything a request can run into comes back as `Answer.error`, an error word and its detail; only what is thrown at
the greenlet from outside goes through.
"""

import _socket
import errno
import os
import re
import ssl
import sys
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from ipaddress import ip_address
from itertools import chain, compress, islice, repeat
from operator import eq, sub
from time import time_ns
from types import MappingProxyType
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import gevent
import httptools
from gevent import getcurrent

from loadtest import codings, proxies, stamps, trust
from loadtest.proxies import Proxy
from loadtest.stamps import ANCILLARY_BYTES, NO_STAMP, PollClock, Segments, TcpInfo
from loadtest.types import ErrorWord, Target

T = TypeVar("T")

READ_BYTES = 65536
MAX_HEAD_BYTES = 1 << 20
MAX_ANSWER_BYTES = 256 << 20
MAX_EVENT_BYTES = 8 << 20
MAX_PROXY_ANSWER_BYTES = 64 << 10
LINGER_S = 0.5
"""How often a stream is looked at that may have said its last word without ending, and how long it must have been
silent by then: it is let go within twice this time."""
LOOKS = 16
"""In so many parts, one after the other, all flights are looked at within `LINGER_S`: thousands at once would be a pause."""
ONE_EVENT_BEGINS = 12
"""A read of one event mostly says `data:` within this many bytes (the length of an HTTP chunk comes first) and not
again: to look for a second one from the end is cheaper than to count them."""
STILL_ALIVE_NS = 1_000_000
"""A connection that was kept so lately is used again without a look at whether it is still open: a request that finds it
closed all the same goes out again on another."""
NO_READS: frozenset[int] = frozenset()
READABLE, WRITABLE = 1, 2
OURS = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM)
"""What the system says when this machine has no descriptors, ports or memory left."""


class Broken(Exception):
    """A request has ended early, by the named error."""

    def __init__(self, word: ErrorWord, detail: str) -> None:
        super().__init__(word, detail)
        self.word = word
        self.detail = detail


class Flight:
    """One request in the air: puts its greenlet to sleep, and wakes it for an event, a time limit or a cancellation.

    `judge(now_ns)` says in how many seconds to look again, raises Broken when time is up, and returns None when there
    is nothing left to wait for. The wire looks at all of its flights every `LINGER_S`; a timer of its own has only one
    that is to be looked at sooner.
    """

    __slots__ = ("_asleep", "_cancelled", "_judge", "_loop", "_switch_to_hub", "_timer", "request")

    def __init__(self) -> None:
        hub = gevent.get_hub()
        self._loop = hub.loop
        self._switch_to_hub: Callable[[], None] = hub.switch
        self._asleep: Any = None
        self._cancelled = False
        self._judge: Callable[[int], float | None] | None = None
        self._timer: Any = None
        self.request = b""

    def cancel(self) -> None:
        """End the request from another greenlet; what was measured until then is kept."""
        self._cancelled = True
        self._loop.run_callback(self._throw, Broken("cancelled", "the run ended before the answer did"))

    def watch(self, judge: Callable[[int], float | None], *, at_once: bool = True) -> None:
        """`at_once`: where a limit may be nearer than the next look at all flights."""
        self._judge = judge
        if at_once or self._timer is not None:
            self.look()

    def sleep(self) -> None:
        """Until `wake`."""
        self.during(self._switch_to_hub)

    def during(self, wait: Callable[[], T]) -> T:
        """A wait of whatever kind, which time limits and cancellation can end."""
        if self._cancelled:
            raise Broken("cancelled", "the run ended before the answer did")
        self._asleep = getcurrent()
        try:
            return wait()
        finally:
            self._asleep = None

    def wake(self) -> None:
        if self._asleep is not None:
            self._asleep.switch()

    def land(self) -> None:
        self._judge = None
        self._stop_timer()

    def look(self) -> None:
        self._stop_timer()
        if self._judge is None:
            return
        try:
            seconds = self._judge(time_ns())
        except Exception as e:  # the event loop would only print it, and the request hang
            broken = e if isinstance(e, Broken) else Broken("generator", f"while waiting for the answer: {e!r}")
            if self._asleep is None:
                raise broken from e
            self._throw(broken)
            return
        if seconds is None:
            self.wake()
        elif seconds < LINGER_S:
            self._timer = self._loop.timer(max(seconds, 0.001))
            self._timer.start(self.look)

    def _throw(self, broken: Broken) -> None:
        if self._asleep is not None:
            self._asleep.throw(broken)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None


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
            self.fail("tls", f"what came cannot be deciphered: {_reason(error)}")
        elif isinstance(error, OSError):
            self.fail("reset", f"the connection was lost: {_reason(error)}")
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


class Connection:
    """A socket, and the answer that it is being read into, if any.

    `on_readable` runs for every chunk and is the hot path of the product: what can be done once an answer, or after
    it, is not done here.
    """

    __slots__ = (
        "_bytes_before", "_polls", "_retransmits", "_segments", "_view", "_watcher", "answer", "buffer",
        "bytes_read", "closed", "kept_ns", "reads", "remote_address", "sock", "wake",
    )  # fmt: skip

    def __init__(self, sock: _socket.socket, remote_address: str, buffer: memoryview, polls: PollClock) -> None:
        self.sock = sock
        self.remote_address = remote_address
        self.answer: Answer | None = None
        self.wake: Callable[[], None] = _nobody
        self.closed = False
        self.kept_ns = 0  # when it was last put aside
        self.reads = 0
        self.bytes_read = 0
        self.buffer: bytearray = buffer.obj  # type: ignore[assignment]  # one for all connections: nothing stays in it
        self._view = buffer
        self._bytes_before = 0
        self._retransmits = 0
        self._segments = Segments()
        self._polls = polls
        self._watcher: Any = None

    def listen(self) -> None:
        self._watcher = gevent.get_hub().loop.io(self.sock.fileno(), READABLE, ref=False)
        self._watcher.start(self.on_readable)

    def begin(self, answer: Answer, flight: Flight) -> None:
        self.answer = answer
        self.wake = flight.wake
        self._bytes_before = self.bytes_read
        answer.remote_address = self.remote_address

    def on_readable(self) -> None:
        answer = self.answer
        if answer is None:
            self.on_idle_readable()
            return
        now_ns = time_ns()
        try:
            size, control, _, _ = self.sock.recvmsg_into((self.buffer,), ANCILLARY_BYTES)
            if size:
                self.reads += 1
                self.bytes_read += size
                answer.times.append(now_ns)
                answer.controls += control[0][2] if control else NO_STAMP
                feed = answer.feed
                feed(self._view[:size])
                answer.ends.append(len(answer.pieces))
            else:
                answer.end(now_ns)
        except BlockingIOError:
            return
        except Exception as e:  # noqa: BLE001 the event loop would only print it
            answer.stumble(e)
        if answer.settled:
            self.wake()
        elif self.buffer.rfind(b"data:", ONE_EVENT_BEGINS, size) > 0 or not control or size == READ_BYTES:
            self._look_closer(answer, size, bool(control), self.buffer.count(b"data:", 0, size))

    def _look_closer(self, answer: Answer, size: int, stamped: bool, events: int) -> None:
        """At a read that may hold several chunks, or has no stamp: since when can its first byte have lain there?"""
        try:
            if size == READ_BYTES:
                self.reads -= 1  # it may have ended within a segment
                answer.partial |= {len(answer.times) - 1}
                if self.is_too_large(answer):
                    self.wake()
                    return
            elif stamped and events < 2:
                return
            self._note_first_possible(answer, stamps.tcp_info(self.sock))
        except Exception as e:  # noqa: BLE001 the event loop would only print it
            answer.stumble(e)
            self.wake()

    def _note_first_possible(self, answer: Answer, info: TcpInfo | None) -> None:
        one_segment = self._segments.one(info, self.reads, self.bytes_read)
        read = len(answer.times) - 1
        if read < 0 or read in answer.first_possible_ns:
            return
        if one_segment and not answer.controls.endswith(NO_STAMP):
            answer.first_possible_ns[read] = 0
        else:
            answer.first_possible_ns[read] = 1 if read - 1 in answer.partial else max(self._polls.seen_empty_ns(), 1)

    def is_too_large(self, answer: Answer) -> bool:
        """An answer without end must not take the generator's memory with it."""
        size = self.bytes_read - self._bytes_before
        if size > MAX_ANSWER_BYTES or (size > MAX_HEAD_BYTES and answer.status is None):
            answer.fail("malformed", f"{'an answer' if answer.status else 'headers'} of more than {size >> 20} MiB")
            return True
        if size > MAX_EVENT_BYTES and answer.event_is_too_large():
            answer.fail("malformed", f"an event of more than {MAX_EVENT_BYTES >> 20} MiB")
            return True
        return False

    def account(self, answer: Answer) -> None:
        """The kernel's side of an answer that is over, whose last read brought more than its last chunk."""
        info = stamps.tcp_info(self.sock)
        self._note_first_possible(answer, info)
        if info is not None:
            answer.rtt_us = info.rtt_us
            answer.retransmits = info.retransmits - self._retransmits
            self._retransmits = info.retransmits
        answer.response_bytes = self.bytes_read - self._bytes_before

    def send(self, request: bytes, answer: Answer, flight: Flight) -> None:
        """Write all of it, or as much as the server wants to hear before it answers."""
        data = self.sealed(request)
        answer.sent_ns = time_ns()
        sent = self._send_some(data, answer)
        if sent < len(data) and not answer.settled:
            watcher = gevent.get_hub().loop.io(self.sock.fileno(), WRITABLE)
            watcher.start(flight.wake)
            try:
                while sent < len(data) and not answer.settled:
                    flight.sleep()
                    sent += self._send_some(memoryview(data)[sent:], answer)
            finally:
                watcher.stop()
                watcher.close()
        if sent < len(data):
            answer.reusable = False
            if not answer.times:  # it hung up, and has not said why
                answer.unwritten(sent, len(data))

    def _send_some(self, data: bytes | memoryview, answer: Answer) -> int:
        if answer.settled:
            return 0
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as e:
            self._hear_out(answer)
            if not answer.settled:
                answer.fail("write", _reason(e))
            return 0

    def _hear_out(self, answer: Answer) -> None:
        """The connection is gone; the server may have answered before."""
        while not answer.settled:
            before = self.bytes_read
            self.on_readable()
            if self.bytes_read == before:
                return

    def sealed(self, data: bytes) -> bytes:
        return data

    def alive(self) -> bool:
        """Before it is used again: whether the server has not closed it meanwhile."""
        if not self.closed and time_ns() - self.kept_ns > STILL_ALIVE_NS:
            self.on_idle_readable()
        return not self.closed

    def on_idle_readable(self) -> None:
        """Whatever comes while nothing was asked, the connection is no longer fit for use."""
        try:
            self.sock.recv(1)
        except BlockingIOError:
            return
        except OSError:
            pass
        self.close()

    def close(self) -> None:
        self.closed = True
        self.answer = None
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()  # before the descriptor gets a new owner
            self._watcher = None
        self.sock.close()


class TlsConnection(Connection):
    """The ciphertext is read with its stamps and deciphered in memory; a record belongs to the read that completed
    it."""

    __slots__ = ("_plain_bytes", "_read", "_sealed_in", "_sealed_out", "_tls")

    def __init__(
        self,
        sock: _socket.socket,
        remote_address: str,
        buffer: memoryview,
        polls: PollClock,
        context: ssl.SSLContext,
        host: str,
    ) -> None:
        super().__init__(sock, remote_address, buffer, polls)
        self._sealed_in, self._sealed_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._sealed_in, self._sealed_out, server_hostname=host)
        self._read: Any = self._tls.read  # which typeshed takes to return bytes even where it fills a buffer
        self._plain_bytes = 0

    def shake_hands(self, flight: Flight) -> None:
        """Raises Broken where the server's certificate, or the server, is not what it should be."""
        watcher = gevent.get_hub().loop.io(self.sock.fileno(), READABLE)
        watcher.start(flight.wake)
        try:
            while not self._hands_shaken():
                flight.sleep()
                if self._take_in() == 0:
                    raise Broken("tls", "handshake failed: the server closed the connection")
        except ssl.SSLCertVerificationError as e:
            raise Broken("tls", f"the server's certificate is refused: {e.verify_message}") from e
        except OSError as e:
            raise Broken("tls", f"handshake failed: {_reason(e)}") from e
        finally:
            watcher.stop()
            watcher.close()
        self._count_segments()

    def _count_segments(self) -> None:
        """TLS has talked about itself, and not in one segment a read: later reads are to be compared with now."""
        self._segments.one(stamps.tcp_info(self.sock), self.reads, self.bytes_read)

    def _hands_shaken(self) -> bool:
        try:
            self._tls.do_handshake()
            return True
        except ssl.SSLWantReadError:
            return False
        finally:
            self._give_out()

    def _take_in(self) -> int:
        """Bytes of ciphertext read: 0 at the end of the connection, -1 where there was nothing."""
        try:
            size = self.sock.recv_into(self.buffer)
        except BlockingIOError:
            return -1
        self.reads += 1
        self.bytes_read += size
        self._sealed_in.write(self._view[:size])
        return size

    def _give_out(self) -> None:
        """What TLS itself has to say: some hundred bytes, for which there is always room."""
        if self._sealed_out.pending:
            try:
                self.sock.send(self._sealed_out.read())
            except OSError:
                pass  # the next read tells

    def begin(self, answer: Answer, flight: Flight) -> None:
        super().begin(answer, flight)
        self._plain_bytes = 0

    def on_readable(self) -> None:
        answer = self.answer
        if answer is None:
            self.on_idle_readable()
            return
        now_ns = time_ns()
        events = 0
        try:
            size, control, _, _ = self.sock.recvmsg_into((self.buffer,), ANCILLARY_BYTES)
            if size:
                self.reads += 1
                self.bytes_read += size
                self._sealed_in.write(self._view[:size])
                heard_before = self._plain_bytes
                events = self._decipher(answer, now_ns)
                if heard_before == self._plain_bytes and not answer.settled:
                    self._count_segments()
                    return
                answer.times.append(now_ns)
                answer.controls += control[0][2] if control else NO_STAMP
                answer.ends.append(len(answer.pieces))
            else:
                answer.end(now_ns)
        except BlockingIOError:
            return
        except Exception as e:  # noqa: BLE001 the event loop would only print it
            answer.stumble(e)
        if answer.settled:
            self.wake()
        elif events > 1 or not control or size == READ_BYTES:
            self._look_closer(answer, size, bool(control), events)
        elif len(answer.times) == 1:
            self._count_segments()

    def _decipher(self, answer: Answer, now_ns: int) -> int:
        """Feed the answer what has become readable; how often that says `data:`."""
        events = 0
        try:
            while self._sealed_in.pending and not answer.settled:
                size: int = self._read(READ_BYTES, self.buffer)
                if not size:  # the server has said goodbye
                    answer.end(now_ns)
                    break
                self._plain_bytes += size
                events += self.buffer.count(b"data:", 0, size)
                answer.feed(self._view[:size])
        except ssl.SSLWantReadError:
            pass  # the rest of the record is on its way
        except httptools.HttpParserError as e:
            answer.stumble(e)
        if self._sealed_out.pending:
            self._give_out()
        return events

    def account(self, answer: Answer) -> None:
        super().account(answer)
        answer.response_bytes = self._plain_bytes
        answer.reusable = answer.reusable and not self._sealed_in.pending

    def sealed(self, data: bytes) -> bytes:
        self._tls.write(data)
        return self._sealed_out.read()

    def on_idle_readable(self) -> None:
        """TLS may talk about itself (session tickets, new keys); anything else ends the connection."""
        try:
            size = self._take_in()
            if size < 0:
                return
            if size:
                self._tls.read(1)
        except ssl.SSLWantReadError:
            self._give_out()
            return
        except OSError:
            pass
        self.close()


class Endpoint:
    """Where a target is: address, way, trust, time limits, and its idle connections, the last used at the end."""

    def __init__(self, target: Target, proxy: Proxy | None) -> None:
        url = urlsplit(target.url)
        name = url.hostname or ""
        port = url.port or (443 if url.scheme == "https" else 80)
        self.authority = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
        self.proxy = proxy
        self.host, self.port = (proxy.host, proxy.port) if proxy else (name, port)  # of the connection
        self.server_name = target.server_name or name
        self.timeouts = target.timeouts
        self.context = trust.context(target) if url.scheme == "https" else None
        limits = target.timeouts
        self.hurried = min(limits.total_s, limits.idle_s, limits.first_byte_s) < 2 * LINGER_S
        self.keeps = target.connections == "reuse"
        self.idle: dict[Connection, None] = {}
        self.held: dict[int, Connection] = {}  # by conversation, until its next turn

    def __str__(self) -> str:
        return f"{self.authority} through the proxy {self.proxy}" if self.proxy else self.authority

    def take(self, conversation: int | None) -> Connection | None:
        if conversation is not None:
            held = self.held.pop(conversation, None)
            return held if held is not None and held.alive() else None
        while self.idle:
            connection, _ = self.idle.popitem()
            if connection.alive():
                return connection
        return None


class Wire:
    """All connections of a process. It belongs to the thread that made it, whose gevent hub drives it."""

    def __init__(self, targets: Iterable[Target], secrets: Mapping[str, str] = MappingProxyType({})) -> None:
        """`secrets`: as plan.resolve_keys has them; those of proxies are used here."""
        self._stamping = stamps.stamping_socket()
        self._polls = PollClock()
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._aloft: list[dict[Flight, None]] = [{} for _ in range(LOOKS)]
        self._looked_at = 0
        self._timer = gevent.get_hub().loop.timer(LINGER_S / LOOKS, LINGER_S / LOOKS)
        self._timer.start(self._look_at_some)
        self._endpoints = {
            target.name: Endpoint(target, proxies.of(target, secrets.get(proxies.key_name(target.name))))
            for target in targets
        }

    def exchange(
        self,
        target: str,
        request: bytes,
        flight: Flight,
        *,
        bodiless: bool = False,
        terminal: bytes = b"",
        conversation: int | None = None,
    ) -> Answer:
        """Send a whole request, headers and all, and wait for what comes of it.

        `conversation`: whose own connection is to be used, and held for its next turn until it is `released`.
        `bodiless`: the answer has no body whatever its headers say (HEAD). `terminal`: the data of the event after
        which the end of the message is not waited for.
        """
        endpoint = self._endpoints[target]
        aloft = self._aloft[self._looked_at]  # whose turn comes last
        aloft[flight] = None
        flight.request, size = request, len(request)
        del request  # or this frame kept it for as long as the answer takes
        try:
            connection = endpoint.take(conversation)
            reconnects = 0
            if connection is not None:
                answer = Answer(bodiless)
                answer.request_bytes = size
                answer.reused = True
                self._converse(endpoint, connection, answer, flight, terminal, conversation)
                if not _is_stale(answer):
                    return answer
                reconnects = 1
            answer = Answer(bodiless)
            answer.request_bytes = size
            answer.reconnects = reconnects
            try:
                connection = self._connect(endpoint, answer, flight)
            except Broken as broken:
                answer.fail(broken.word, broken.detail)
                answer.finish(time_ns())
                return answer
            self._converse(endpoint, connection, answer, flight, terminal, conversation)
            return answer
        finally:
            flight.land()
            del aloft[flight]

    def _look_at_some(self) -> None:
        self._looked_at = (self._looked_at + 1) % LOOKS
        for flight in list(self._aloft[self._looked_at]):
            flight.look()

    def _converse(
        self,
        endpoint: Endpoint,
        connection: Connection,
        answer: Answer,
        flight: Flight,
        terminal: bytes,
        conversation: int | None,
    ) -> None:
        connection.begin(answer, flight)
        try:
            judge = partial(_patience, connection, answer, endpoint, terminal, time_ns())
            flight.watch(judge, at_once=endpoint.hurried)
            connection.send(flight.request, answer, flight)
            if not answer.reused:
                flight.request = b""  # it will not be sent again, and may be long
            while not answer.settled:
                flight.sleep()
        except Broken as broken:
            answer.fail(broken.word, broken.detail)
        finally:
            kept = False
            try:
                connection.account(answer)
                answer.finish(time_ns())
                kept = (
                    answer.complete
                    and answer.reusable
                    and not answer.error
                    and (endpoint.keeps or conversation is not None)
                )
            finally:
                if not kept:
                    connection.close()
                else:
                    connection.answer = None
                    connection.kept_ns = answer.times[-1]
                    if conversation is not None:
                        endpoint.held[conversation] = connection
                    else:
                        endpoint.idle[connection] = None

    def release(self, target: str, conversation: int) -> None:
        """A conversation is over: its connection is closed."""
        if connection := self._endpoints[target].held.pop(conversation, None):
            connection.close()

    def _connect(self, endpoint: Endpoint, answer: Answer, flight: Flight) -> Connection:
        begun_ns = time_ns()
        limit_s = endpoint.timeouts.connect_s

        def judge(now_ns: int) -> float:
            left_s = limit_s - (now_ns - begun_ns) / 1e9
            if left_s <= 0:
                raise Broken("timeout_connect", f"no connection to {endpoint} within {limit_s:g} s")
            return left_s

        flight.watch(judge)
        addresses = _resolve(endpoint, flight)
        resolved_ns = time_ns()
        answer.dns_dur_ns = resolved_ns - begun_ns if not _is_literal(endpoint.host) else 0
        sock, remote_address = _connect_to_one(addresses, flight)
        if endpoint.proxy is not None and endpoint.context is not None:
            try:
                _open_tunnel(sock, endpoint.proxy, endpoint.authority, flight)
            except BaseException:
                sock.close()
                raise
        connected_ns = time_ns()
        answer.connect_dur_ns = connected_ns - resolved_ns
        answer.tls_dur_ns = 0
        connection = Connection(sock, remote_address, self._buffer, self._polls)
        if endpoint.context is not None:
            connection = TlsConnection(
                sock, remote_address, self._buffer, self._polls, endpoint.context, endpoint.server_name
            )
            try:
                connection.shake_hands(flight)
            except BaseException:
                connection.close()
                raise
            answer.tls_dur_ns = time_ns() - connected_ns
        connection.listen()
        return connection

    def close(self) -> None:
        for endpoint in self._endpoints.values():
            for connection in (*endpoint.idle, *endpoint.held.values()):
                connection.close()
            endpoint.idle.clear()
            endpoint.held.clear()
        self._polls.close()
        self._timer.stop()
        self._timer.close()
        if self._stamping is not None:
            self._stamping.close()


def _patience(
    connection: Connection, answer: Answer, endpoint: Endpoint, terminal: bytes, begun_ns: int, now_ns: int
) -> float | None:
    """How long an answer is waited for: the judge of its flight, but for what it judges."""
    timeouts = endpoint.timeouts
    waited_s = (now_ns - (answer.sent_ns or begun_ns)) / 1e9
    silent_s = (now_ns - answer.times[-1]) / 1e9 if answer.times else waited_s
    if connection.is_too_large(answer):
        return None
    if silent_s < LINGER_S and not endpoint.hurried and waited_s + LINGER_S < timeouts.total_s:
        return LINGER_S  # nearly always
    if waited_s >= timeouts.total_s:
        raise Broken("timeout_total", f"the answer was not complete after {timeouts.total_s:g} s")
    if not answer.times:
        if waited_s >= timeouts.first_byte_s:
            raise Broken("timeout_first_byte", f"no byte of the answer within {timeouts.first_byte_s:g} s")
        return min(timeouts.total_s - waited_s, timeouts.first_byte_s - waited_s, timeouts.idle_s, LINGER_S)
    if terminal and silent_s >= LINGER_S and _ends_with(answer.pieces, terminal):
        answer.settled = True
        return None
    if silent_s >= timeouts.idle_s:
        raise Broken("timeout_idle", f"nothing came for {timeouts.idle_s:g} s in the middle of the answer")
    return min(timeouts.total_s - waited_s, timeouts.idle_s - silent_s, LINGER_S)


def _ends_with(pieces: Sequence[bytes], terminal: bytes) -> bool:
    tail = b"".join(pieces[-4:]).rstrip(b"\r\n")
    return tail.endswith((b"data: " + terminal, b"data:" + terminal))


def _is_stale(answer: Answer) -> bool:
    """A kept connection turned out to be closed, and the server has not said a word: the request may go out again."""
    lost = answer.closed or (answer.error is not None and answer.error[0] in ("write", "reset"))
    return lost and not answer.times


def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


Address = tuple[int, tuple[Any, ...]]
"""Family and what `connect` takes."""


def _resolve(endpoint: Endpoint, flight: Flight) -> list[Address]:
    """A literal address costs nothing; a name is looked up by gevent's resolver for each new connection."""
    resolver = _socket if _is_literal(endpoint.host) else gevent.get_hub().resolver
    try:
        found = flight.during(
            lambda: resolver.getaddrinfo(endpoint.host, endpoint.port, 0, _socket.SOCK_STREAM, _socket.IPPROTO_TCP, 0)
        )
    except (OSError, UnicodeError) as e:
        raise Broken("dns", f"{endpoint.host} cannot be resolved: {_reason(e)}") from e
    return [(family, address) for family, _, _, _, address in found]


def _connect_to_one(addresses: Sequence[Address], flight: Flight) -> tuple[_socket.socket, str]:
    """The first that accepts, in the resolver's order; the last one's refusal where none does."""
    code, where = 0, ""
    for family, address in addresses:
        try:
            sock = _socket.socket(family, _socket.SOCK_STREAM)
        except OSError as e:
            raise Broken(_word_of(e.errno or 0), f"no socket: {e.strerror}") from e
        where = address[0]
        try:
            code = _connect_socket(sock, address, flight)
        except BaseException:
            sock.close()
            raise
        if not code:
            return sock, where
        sock.close()
    at = f"[{where}]:{address[1]}" if ":" in where else f"{where}:{address[1]}"
    raise Broken(_word_of(code), f"{at} cannot be reached: {os.strerror(code)}")


def _connect_socket(sock: _socket.socket, address: tuple[Any, ...], flight: Flight) -> int:
    """0, or why not."""
    sock.setblocking(False)
    sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    if sys.platform == "linux":
        sock.setsockopt(_socket.SOL_SOCKET, stamps.SO_TIMESTAMPNS, 1)
    code = sock.connect_ex(address)
    if code != errno.EINPROGRESS:
        return code
    watcher = gevent.get_hub().loop.io(sock.fileno(), WRITABLE)
    watcher.start(flight.wake)
    try:
        flight.sleep()
    finally:
        watcher.stop()
        watcher.close()
    return sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)


def _open_tunnel(sock: _socket.socket, proxy: Proxy, authority: str, flight: Flight) -> None:
    """CONNECT. What the proxy says is read up to the end of its headers: behind them only the target speaks."""
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    watcher = gevent.get_hub().loop.io(sock.fileno(), READABLE)
    watcher.start(flight.wake)
    heard = b""
    try:
        sock.send("\r\n".join([*lines, "", ""]).encode())
        while b"\r\n\r\n" not in heard:
            flight.sleep()
            heard += _heard(sock)
            if len(heard) > MAX_PROXY_ANSWER_BYTES:
                raise Broken("connect", f"the proxy {proxy} answers CONNECT with headers without end")
    except OSError as e:
        raise Broken("connect", f"the proxy {proxy} was lost while it was asked for {authority}: {e.strerror}") from e
    finally:
        watcher.stop()
        watcher.close()
    head, _, rest = heard.partition(b"\r\n\r\n")
    first = head.partition(b"\r\n")[0].decode("latin-1")
    if not re.match(r"HTTP/1\.[01] 2\d\d( |$)", first) or rest:
        raise Broken("connect", f"the proxy {proxy} opens no tunnel to {authority}: {first}")


def _heard(sock: _socket.socket) -> bytes:
    try:
        heard = sock.recv(8192)
    except BlockingIOError:
        return b""
    if not heard:
        raise ConnectionResetError(errno.ECONNRESET, "it closed the connection")
    return heard


def _word_of(code: int) -> ErrorWord:
    if code in OURS:
        return "generator"
    return "timeout_connect" if code == errno.ETIMEDOUT else "connect"


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
    return str(reason or error)


def _nobody() -> None:
    pass


def decoded_pieces(answer: Answer) -> Sequence[bytes]:
    """The body's pieces without their content coding; raises Broken ("malformed") where it does not fit."""
    if b"content-encoding" not in answer.headers:
        return answer.pieces
    try:
        return codings.decoded(answer.pieces, answer.headers[b"content-encoding"].decode("latin-1"))
    except ValueError as e:
        raise Broken("malformed", str(e)) from e
