"""Connections, TLS, stamps and their certainty: real servers on loopback, whose own clock is the truth."""

import queue
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import gevent
import pytest
import trustme

from loadtest.fire import Fire
from loadtest.prompts import Prompt
from loadtest.types import Result, Target
from tests.conformance.harness import PROMPT, firing, plan_of
from tests.conformance.server import Step, read_request, serving
from tests.conformance.voices import CHAT, CHUNKED, DONE, HTTP, LAST, chunked, document, event

CHUNK = chunked(event(CHAT.content("Hi")))
END = chunked(event(CHAT.finish())) + chunked(event(DONE)) + LAST
WHOLE = document(CHAT.whole("Hi"))

Serve = Callable[[socket.socket], None]


@contextmanager
def served(serve: Serve, context: ssl.SSLContext | None = None, family: int = socket.AF_INET) -> Iterator[int]:
    """Runs `serve` in a thread of its own for each connection, on a port of loopback."""
    listener = socket.create_server(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0), family=family)
    threads: list[threading.Thread] = []
    problems: queue.Queue[BaseException] = queue.Queue()

    def run(sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(60)
            with context.wrap_socket(sock, server_side=True) if context else sock as connection:
                serve(connection)
        except BaseException as e:  # noqa: BLE001 to be raised by the test
            problems.put(e)

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=run, args=(sock,)))
            threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in [acceptor, *threads]:
            thread.join(60)
    if not problems.empty():
        raise problems.get()


class Paced:
    """Streams a chunk each `gap_s`, and notes the moments before and after it did."""

    def __init__(self, chunks: int, gap_s: float) -> None:
        self.chunks = chunks
        self.gap_s = gap_s
        self.received_ns: list[int] = []
        self.sending_ns: list[int] = []
        self.sent_ns: list[int] = []

    def __call__(self, sock: socket.socket) -> None:
        while read_request(sock):
            self.received_ns.append(time.time_ns())
            sock.sendall(CHUNKED)
            for _ in range(self.chunks):
                time.sleep(self.gap_s)
                self.sending_ns.append(time.time_ns())
                sock.sendall(CHUNK)
                self.sent_ns.append(time.time_ns())
            time.sleep(self.gap_s)
            sock.sendall(END)


def target_at(port: int, scheme: str = "http", host: str = "127.0.0.1", **more: Any) -> Target:
    return CHAT.target(f"{scheme}://{host}:{port}/v1", **more)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, str]:
    """A server's side, and the file in which a client finds whom to trust."""
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    path = Path(tmp_path_factory.mktemp("ca")) / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return context, str(path)


# instants


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_chunks_arrive_when_the_server_sends_them(scheme: str, authority: tuple[ssl.SSLContext, str]) -> None:
    context, ca_file = authority
    paced = Paced(chunks=5, gap_s=0.01)
    with (
        served(paced, context if scheme == "https" else None) as port,
        firing(target_at(port, scheme, ca_file=ca_file if scheme == "https" else None)) as fire,
    ):
        results = [fire(0, seq, 0, None, PROMPT) for seq in range(4)]
    for i, result in enumerate(results):
        assert (result.error, result.clock, result.chunk_kind) == (None, "kernel", [2] * 5 + [0])
        assert result.sent_ns is not None
        assert result.sent_ns < paced.received_ns[i]
        spans_ns = zip(paced.sending_ns[5 * i :], paced.sent_ns[5 * i :], strict=True)
        for arrived_ns, (sending_ns, sent_ns) in zip(result.chunk_ns[:5], spans_ns, strict=False):
            assert sending_ns <= arrived_ns <= sent_ns + result.uncertainty_ns
        assert result.done_ns == result.chunk_ns[-1]
    assert 0 in [result.uncertainty_ns for result in results]  # unless the machine let this thread wait each time
    assert [result.reused for result in results] == [False, True, True, True]


def test_what_a_new_connection_took_is_told_and_what_a_kept_one_did_not_take_is_none(
    authority: tuple[ssl.SSLContext, str],
) -> None:
    context, ca_file = authority
    with served(echo_connection, context) as port:
        with firing(target_at(port, "https", "localhost", ca_file=ca_file, stream=False)) as fire:
            named, kept = (fire(0, seq, 0, None, PROMPT) for seq in range(2))
        with firing(target_at(port, "https", ca_file=ca_file, stream=False)) as fire:
            literal = fire(0, 0, 0, None, PROMPT)
    assert named.dns_dur_ns
    assert named.connect_dur_ns
    assert named.tls_dur_ns
    assert named.dns_dur_ns + named.connect_dur_ns + named.tls_dur_ns < (named.sent_ns or 0) - named.started_ns
    assert (kept.reused, kept.dns_dur_ns, kept.connect_dur_ns, kept.tls_dur_ns) == (True, None, None, None)
    assert literal.dns_dur_ns == 0


def busy_until(true: Callable[[], bool]) -> None:
    """Keeps the thread from its event loop, as work of any kind would."""
    deadline = time.monotonic() + 10
    while not true() and time.monotonic() < deadline:
        time.sleep(0.001)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_a_busy_loop_blurs_is_owned_up_to(scheme: str, authority: tuple[ssl.SSLContext, str]) -> None:
    """Chunks that came 10 ms apart are read at once: the last is exact, and the first off by no more than we admit."""
    context, ca_file = authority
    paced = Paced(chunks=6, gap_s=0.01)
    with (
        served(paced, context if scheme == "https" else None) as port,
        firing(target_at(port, scheme, ca_file=ca_file if scheme == "https" else None)) as fire,
    ):
        shot = gevent.spawn(fire, 0, 0, 0, None, PROMPT)
        while not paced.sent_ns:
            gevent.sleep(0.001)
        busy_until(lambda: len(paced.sent_ns) > 3)
        result: Result = shot.get(timeout=60)
    errors_ns = [arrived - sent for arrived, sent in zip(result.chunk_ns, paced.sent_ns, strict=False)]
    assert max(errors_ns) > 5_000_000
    assert max(errors_ns) <= result.uncertainty_ns < max(errors_ns) + 1_000_000_000
    assert result.clock == "kernel"


def test_chunks_of_one_segment_are_certain_however_late_they_are_read() -> None:
    sent_ns: list[int] = []

    def serve(sock: socket.socket) -> None:
        read_request(sock)
        sock.sendall(CHUNKED)
        begun.wait(60)
        sock.sendall(CHUNK * 3)
        sent_ns.append(time.time_ns())
        read_request(sock)

    begun = threading.Event()
    with served(serve) as port, firing(target_at(port)) as fire:
        shot = gevent.spawn(fire, 0, 0, 0, None, PROMPT)
        gevent.sleep(0.02)
        begun.set()
        busy_until(lambda: bool(sent_ns) and time.time_ns() > sent_ns[0] + 20_000_000)
        gevent.sleep(0.02)
        fire.cancel(shot)
        result: Result = shot.get(timeout=60)
    assert len(result.chunk_ns) == 3
    assert result.chunk_ns[0] == result.chunk_ns[2] <= sent_ns[0]
    assert result.read_lag_ns > 15_000_000
    assert result.uncertainty_ns == 0


def test_two_segments_that_woke_a_sleeping_loop_are_known_to_some_tenths_of_a_millisecond() -> None:
    """The socket had been silent for 20 ms; that is no reason to doubt a stamp by so much."""

    def serve(sock: socket.socket) -> None:
        while read_request(sock):
            sock.sendall(CHUNKED)
            for _ in range(4):
                time.sleep(0.02)
                sock.sendall(CHUNK)
                sock.sendall(CHUNK)
            sock.sendall(END)

    with served(serve) as port, firing(target_at(port)) as fire:
        results = [fire(0, seq, 0, None, PROMPT) for seq in range(25)]
    assert {result.error for result in results} == {None}
    assert min(result.uncertainty_ns for result in results) < 15_000_000, "on a busy machine not each time"


def test_evidence_of_the_kernel() -> None:
    with served(Paced(1, 0.0)) as port, firing(target_at(port)) as fire:
        result = fire(0, 0, 0, None, PROMPT)
    assert result.tcp_rtt_us
    assert 0 < result.tcp_rtt_us < 1_000_000
    assert result.tcp_retransmits == 0
    assert result.remote_address == "127.0.0.1"
    assert result.response_bytes == len(CHUNKED + CHUNK + END)


# connections


def echo_connection(sock: socket.socket) -> None:
    while read_request(sock):
        sock.sendall(WHOLE)


def test_no_request_waits_for_another_and_the_last_used_connection_is_used_first() -> None:
    ports: list[int] = []
    together = threading.Barrier(5)

    def serve(sock: socket.socket) -> None:
        while read_request(sock):
            ports.append(sock.getpeername()[1])
            if not together.broken and len(ports) <= 5:
                together.wait(60)  # none is answered before all have come
            sock.sendall(WHOLE)

    with served(serve) as port, firing(target_at(port, stream=False)) as fire:
        shots = [gevent.spawn(fire, 0, seq, 0, None, PROMPT) for seq in range(5)]
        results = [shot.get(timeout=60) for shot in shots]
        later = [fire(0, seq, 0, None, PROMPT) for seq in range(5, 8)]
    assert [result.error for result in results + later] == [None] * 8
    assert [result.reused for result in results + later] == [False] * 5 + [True] * 3
    assert len(set(ports[:5])) == 5
    assert len(set(ports[5:])) == 1


def test_a_connection_closed_while_idle_is_not_used_again() -> None:
    scripts: list[list[Step]] = [["read request", WHOLE, "close"], ["read request", WHOLE]]
    with serving(*scripts) as server, firing(target_at(server.port, stream=False)) as fire:
        fire(0, 0, 0, None, PROMPT)
        wait_until_readable(fire)
        result = fire(0, 1, 0, None, PROMPT)
    assert (result.error, result.reused, len(server.requests)) == (None, False, 2)


def wait_until_readable(fire: Fire) -> None:
    """Until the server's end of the idle connection is here, of which the event loop has not heard yet."""
    (endpoint,) = fire._wire._endpoints.values()
    (connection,) = endpoint.idle
    select.select([connection.sock], [], [], 10)


@pytest.mark.parametrize("ending", ["close", "reset"])
def test_a_kept_connection_that_fails_before_the_answer_is_replaced_once(ending: Literal["close", "reset"]) -> None:
    stale: list[Step] = ["read request", WHOLE, "read request", ending]
    with serving(stale, ["read request", WHOLE]) as server, firing(target_at(server.port, stream=False)) as fire:
        fire(0, 0, 0, None, PROMPT)
        result = fire(0, 1, 0, None, PROMPT)
    assert (result.error, result.reused) == (None, False)
    assert len(server.requests) == 3
    assert server.requests[1] == server.requests[2]


def test_a_kept_connection_that_fails_within_the_answer_is_not_replaced() -> None:
    stale: list[Step] = ["read request", WHOLE, "read request", WHOLE[:20], "close"]
    with serving(stale, ["read request", WHOLE]) as server, firing(target_at(server.port, stream=False)) as fire:
        fire(0, 0, 0, None, PROMPT)
        result = fire(0, 1, 0, None, PROMPT)
    assert (result.error, result.reused, len(server.requests)) == ("truncated", True, 2)


def test_a_fresh_connection_that_fails_is_not_replaced() -> None:
    with serving(["read request", "close"]) as server, firing(target_at(server.port)) as fire:
        result = fire(0, 0, 0, None, PROMPT)
    assert (result.error, server.connections) == ("truncated", 1)


def test_an_answer_before_the_end_of_the_request_is_taken() -> None:
    def serve(sock: socket.socket) -> None:
        sock.recv(1000)
        sock.sendall(document(b"too long", status="413 Content Too Large"))
        hung_up.wait(60)

    hung_up = threading.Event()
    prompt = Prompt("p", [{"role": "user", "content": "x" * (32 << 20)}])
    with served(serve) as port, firing(target_at(port)) as fire:
        result = fire(0, 0, 0, None, prompt)
        again = fire(0, 1, 0, None, prompt)
        hung_up.set()
    assert (result.error, result.error_detail) == ("http_4xx", "HTTP 413: too long")
    assert not again.reused


def test_an_answer_before_a_reset_in_the_middle_of_the_request_is_taken() -> None:
    def serve(sock: socket.socket) -> None:
        sock.recv(1000)
        sock.sendall(document(b"too long", status="413 Content Too Large"))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    prompt = Prompt("p", [{"role": "user", "content": "x" * (32 << 20)}])
    with served(serve) as port, firing(target_at(port)) as fire:
        result = fire(0, 0, 0, None, prompt)
    assert result.error in ("http_4xx", "write")  # the reset may outrun the answer


def test_a_large_request_is_written_whole() -> None:
    def serve(sock: socket.socket) -> None:
        sizes.append(len(read_request(sock)))
        sock.sendall(WHOLE)

    sizes: list[int] = []
    prompt = Prompt("p", [{"role": "user", "content": "x" * (8 << 20)}])
    with served(serve) as port, firing(target_at(port, stream=False)) as fire:
        result = fire(0, 0, 0, None, prompt)
    assert (result.error, sizes) == (None, [result.request_bytes])


def test_an_answer_to_head_has_no_body_whatever_its_headers_say() -> None:
    answer = document(b"x" * 100)[:-100]
    with serving(["read request", answer, "read request", answer]) as server:
        target = HTTP.target(f"http://127.0.0.1:{server.port}/", method="HEAD")
        with firing(target) as fire:
            results = [fire(0, seq, 0, None, PROMPT) for seq in range(2)]
    assert [(result.error, result.status, result.reused) for result in results] == [
        (None, 200, False),
        (None, 200, True),
    ]


def test_ipv6() -> None:
    with (
        served(echo_connection, family=socket.AF_INET6) as port,
        firing(target_at(port, host="[::1]", stream=False)) as fire,
    ):
        result = fire(0, 0, 0, None, PROMPT)
    assert (result.error, result.remote_address, result.dns_dur_ns) == (None, "::1", 0)


def test_a_name_is_looked_up_for_each_connection() -> None:
    with served(echo_connection) as port, firing(target_at(port, host="localhost", stream=False)) as fire:
        first, second = (fire(0, seq, 0, None, PROMPT) for seq in range(2))
    assert (first.error, first.remote_address) == (None, "127.0.0.1")
    assert (first.dns_dur_ns or 0) > 0
    assert second.dns_dur_ns is None


def test_closing_leaves_no_connection_behind() -> None:
    ended = threading.Event()

    def serve(sock: socket.socket) -> None:
        echo_connection(sock)
        ended.set()

    with served(serve) as port:
        fire = Fire(plan_of(target_at(port, stream=False)), {}, "r", 0)
        fire(0, 0, 0, None, PROMPT)
        fire.close()
        assert ended.wait(60)


# what is sent


def test_the_request_as_it_goes_out() -> None:
    with serving(["read request", WHOLE]) as server:
        target = target_at(server.port, key="env:KEY", stream=False, headers={"X-Team": "perf", "user-agent": "mine"})
        with firing(target, keys={"t": "secret"}) as fire:
            result = fire(0, 0, 0, None, Prompt("p", [{"role": "user", "content": "Say hello"}], 16))
        port = server.port
    body = b'{"model":"m","messages":[{"role":"user","content":"Say hello"}],"max_tokens":16}'
    assert server.requests == [
        b"POST /v1/chat/completions HTTP/1.1\r\n"
        b"Host: 127.0.0.1:%d\r\n"
        b"Accept-Encoding: identity\r\n"
        b"Content-Type: application/json\r\n"
        b"Accept: application/json\r\n"
        b"Authorization: Bearer secret\r\n"
        b"X-Team: perf\r\n"
        b"user-agent: mine\r\n"
        b"traceparent: 00-%s-%s-00\r\n"
        b"Content-Length: %d\r\n\r\n%s"
        % (port, result.trace_id.encode(), result.trace_id[16:].encode(), len(body), body)
    ]
    assert result.request_bytes == len(server.requests[0])
    assert result.max_tokens == 16
