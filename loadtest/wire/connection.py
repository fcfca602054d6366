"""A socket, plain or under TLS, and the answer that it is being read into. `on_readable` is the hot path of the product."""

import _socket
import ssl
from collections.abc import Callable
from time import time_ns
from typing import Any

import gevent
import httptools

from loadtest import stamps
from loadtest.stamps import ANCILLARY_BYTES, NO_STAMP, PollClock, Segments, TcpInfo
from loadtest.wire.answer import MAX_EVENT_BYTES, Answer, reason
from loadtest.wire.flight import Broken, Flight

READ_BYTES = 65536
MAX_HEAD_BYTES = 1 << 20
MAX_ANSWER_BYTES = 256 << 20
ONE_EVENT_BEGINS = 12
"""A read of one event mostly says `data:` within this many bytes (the length of an HTTP chunk comes first) and not
again: to look for a second one from the end is cheaper than to count them."""
READABLE, WRITABLE = 1, 2


class Connection:
    """A socket, and the answer that it is being read into, if any.

    `on_readable` runs for every chunk and is the hot path of the product: what can be done once an answer, or after
    it, is not done here.
    """

    __slots__ = (
        "_bytes_before", "_polls", "_retransmits", "_segments", "_view", "_watcher", "answer", "buffer",
        "bytes_read", "closed", "reads", "remote_address", "sock", "wake",
    )  # fmt: skip

    def __init__(self, sock: _socket.socket, remote_address: str, buffer: memoryview, polls: PollClock) -> None:
        self.sock = sock
        self.remote_address = remote_address
        self.answer: Answer | None = None
        self.wake: Callable[[], None] = _nobody
        self.closed = False
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

    def rest(self) -> None:
        """Until it is used again, and without a hold on what it was used for."""
        self.answer = None
        self.wake = _nobody

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
                answer.fail("write", reason(e))
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
        if not self.closed:
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
            raise Broken("tls", f"handshake failed: {reason(e)}") from e
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
                if heard_before != self._plain_bytes:
                    answer.times.append(now_ns)
                    answer.controls += control[0][2] if control else NO_STAMP
                    answer.ends.append(len(answer.pieces))
                elif not answer.settled:
                    self._count_segments()
                    return
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


def _nobody() -> None:
    pass
