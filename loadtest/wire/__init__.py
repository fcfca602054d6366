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

flight.py is the wait, answer.py what came, connection.py the hot path, dialing.py the way to a target; here is who has
which connection.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from time import time_ns
from types import MappingProxyType
from urllib.parse import urlsplit

import gevent

from loadtest import proxies, stamps, trust
from loadtest.proxies import Proxy
from loadtest.stamps import PollClock
from loadtest.types import Target
from loadtest.wire.answer import Answer, decoded_pieces
from loadtest.wire.connection import READ_BYTES, Connection, TlsConnection
from loadtest.wire.dialing import connect_to_one, is_literal, open_tunnel, resolve
from loadtest.wire.flight import LINGER_S, Broken, Flight

__all__ = ["Answer", "Broken", "Flight", "Wire", "decoded_pieces"]

LOOKS = 16
"""In so many parts, one after the other, all flights are looked at within `LINGER_S`: thousands at once would be a pause."""


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
        self._flying = 0
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
        self._flying += 1
        if self._flying == 1:
            self._timer.start(self._look_at_some)  # not always: it keeps the event loop from ending
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
            flight.request = b""
            del aloft[flight]
            self._flying -= 1
            if not self._flying:
                self._timer.stop()

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
                    connection.rest()
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
        addresses = resolve(endpoint.host, endpoint.port, flight)
        resolved_ns = time_ns()
        answer.dns_dur_ns = resolved_ns - begun_ns if not is_literal(endpoint.host) else 0
        sock, remote_address = connect_to_one(addresses, flight)
        if endpoint.proxy is not None and endpoint.context is not None:
            try:
                open_tunnel(sock, endpoint.proxy, endpoint.authority, flight)
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
