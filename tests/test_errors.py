"""Every error word, provoked on a real socket, with the request's fate around it."""

import errno
import os
import resource
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import gevent
import pytest
import trustme

from loadtest.fire import one_line, retry_after_s
from loadtest.prompts import Prompt
from loadtest.types import FAULT_OF, Result, Target, Timeouts
from tests.conformance.harness import PROMPT, firing
from tests.conformance.server import Step, serving
from tests.conformance.voices import CHAT, CHUNKED, DONE, LAST, chunked, document, event

SECRET = "sk-Test/0+1="


def target_at(port: int, scheme: str = "http", host: str = "127.0.0.1", **more: Any) -> Target:
    return CHAT.target(f"{scheme}://{host}:{port}/v1", key="env:KEY", **more)


def shot_at(target: Target, prompt: Prompt = PROMPT) -> Result:
    with firing(target, keys={"t": SECRET}) as fire:
        return fire(0, 0, 0, None, prompt)


def answered(*steps: Step, **more: Any) -> Result:
    """What becomes of a request that a server answers with these steps."""
    with serving(["read request", *steps]) as server:
        return shot_at(target_at(server.port, **more))


def dns() -> Result:
    return shot_at(target_at(80, host="nonexistent.invalid", timeouts=Timeouts(connect_s=30)))


def connect() -> Result:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        return shot_at(target_at(taken.getsockname()[1]))


def timeout_connect() -> Result:
    with full_backlog() as port:
        return shot_at(target_at(port, timeouts=Timeouts(connect_s=0.2)))


@contextmanager
def full_backlog() -> Iterator[int]:
    """A listener that has no room for one more connection."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting: list[socket.socket] = []
    try:
        while not waiting or waiting[-1].connect_ex(listener.getsockname()) in (0, errno.EISCONN):
            waiting.append(socket.socket())
            waiting[-1].settimeout(0.3)
            assert len(waiting) < 20
        yield listener.getsockname()[1]
    finally:
        for sock in [*waiting, listener]:
            sock.close()


def tls() -> Result:
    with tls_listener("127.0.0.1") as port:
        return shot_at(target_at(port, scheme="https"))  # whose authority nobody trusts


@contextmanager
def tls_listener(name: str) -> Iterator[int]:
    """Shakes hands with one client, or tries to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert(name).configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_shake_hands, args=(listener, context))
        thread.start()
        yield listener.getsockname()[1]
        thread.join(60)


def _shake_hands(listener: socket.socket, context: ssl.SSLContext) -> None:
    sock, _ = listener.accept()
    with sock:
        try:
            context.wrap_socket(sock, server_side=True).close()
        except OSError:
            pass  # that is the point


def write() -> Result:
    """The server hangs up on a request that is larger than what the kernel takes at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_hang_up_early, args=(listener,))
        thread.start()
        result = shot_at(
            target_at(listener.getsockname()[1]), Prompt("p", [{"role": "user", "content": "x" * (32 << 20)}])
        )
        thread.join(60)
    return result


def _hang_up_early(listener: socket.socket) -> None:
    sock, _ = listener.accept()
    sock.recv(1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def generator() -> Result:
    """No descriptor is left for the connection."""
    with serving([]) as server, firing(target_at(server.port)) as fire:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            return fire(0, 0, 0, None, PROMPT)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def cancelled() -> Result:
    script: list[Step] = ["read request", *HEAD_OF_STREAM, b"", "await close"]
    with serving(script) as server, firing(target_at(server.port)) as fire:
        shot = gevent.spawn(fire, 0, 0, 0, None, PROMPT)
        deadline = time.monotonic() + 10
        while len(server.sent_ns) < 3 and time.monotonic() < deadline:  # the third when the second was read
            gevent.sleep(0.005)
        fire.cancel(shot)
        result: Result = shot.get(timeout=60)
    return result


HEAD_OF_STREAM = [CHUNKED, chunked(event(CHAT.content("Hi")))]

PROVOKED: dict[str, Callable[[], Result]] = {
    "rate_limited": lambda: answered(document(b"{}", "Retry-After: 7", status="429 Too Many Requests")),
    "overloaded": lambda: answered(document(b"busy", status="503 Service Unavailable")),
    "http_5xx": lambda: answered(document(b"oh", status="500 Internal Server Error")),
    "http_4xx": lambda: answered(document(b"no", status="404 Not Found")),
    "redirect": lambda: answered(document(b"", "Location: /there", status="307 Temporary Redirect")),
    "truncated": lambda: answered(*HEAD_OF_STREAM, "close"),
    "malformed": lambda: answered(CHUNKED, chunked(b"data: {]\n\n"), LAST),
    "error_event": lambda: answered(*HEAD_OF_STREAM, chunked(event(b'{"error": {"message": "no memory"}}')), LAST),
    "empty": lambda: answered(CHUNKED, chunked(event(CHAT.nothing())), chunked(event(DONE)), LAST),
    "timeout_first_byte": lambda: answered("await close", timeouts=Timeouts(first_byte_s=0.1)),
    "timeout_idle": lambda: answered(*HEAD_OF_STREAM, "await close", timeouts=Timeouts(idle_s=0.1)),
    "timeout_total": lambda: answered(*HEAD_OF_STREAM, "await close", timeouts=Timeouts(total_s=0.2)),
    "dns": dns,
    "connect": connect,
    "timeout_connect": timeout_connect,
    "tls": tls,
    "write": write,
    "reset": lambda: answered(*HEAD_OF_STREAM, "reset"),
    "generator": generator,
    "cancelled": cancelled,
}
DETAIL = {
    "rate_limited": "HTTP 429: {}",
    "overloaded": "HTTP 503: busy",
    "http_5xx": "HTTP 500: oh",
    "http_4xx": "HTTP 404: no",
    "redirect": "HTTP 307 to /there",
    "truncated": "the stream ended after 1 chunks",
    "malformed": "not JSON",
    "error_event": "no memory",
    "empty": "none of 1 chunks carried content",
    "timeout_first_byte": "no byte of the answer within 0.1 s",
    "timeout_idle": "nothing came for 0.1 s",
    "timeout_total": "not complete after 0.2 s",
    "dns": "nonexistent.invalid cannot be resolved",
    "connect": " cannot be reached: Connection refused",
    "timeout_connect": "within 0.2 s",
    "tls": "certificate is refused",
    "write": "of the request",
    "reset": "reset by peer",
    "generator": "no socket: Too many open files",
    "cancelled": "the run ended before the answer did",
}


def test_each_error_word_is_provoked() -> None:
    assert PROVOKED.keys() == DETAIL.keys() == FAULT_OF.keys() - {"failed"}, "which only a locustfile can say"


@pytest.mark.parametrize("word", PROVOKED)
def test_an_error_is_a_result(word: str) -> None:
    result = PROVOKED[word]()
    assert (result.error, DETAIL[word] in result.error_detail) == (word, True), result.error_detail
    assert result.started_ns <= (result.sent_ns or result.done_ns) <= result.done_ns
    reached_server = word not in ("dns", "connect", "timeout_connect", "tls", "generator")
    assert (result.sent_ns is not None) == reached_server


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_where_nobody_listens_is_told(host: str, shown: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        taken.bind((host, 0))
        port = taken.getsockname()[1]
        result = shot_at(Target(name="t", url=f"http://{shown}:{port}", dialect="openai-chat"))
    assert result.error_detail == f"{shown}:{port} cannot be reached: Connection refused"


@pytest.mark.parametrize("word", ["truncated", "error_event", "timeout_idle", "timeout_total", "reset", "cancelled"])
def test_what_was_measured_before_the_error_is_kept(word: str) -> None:
    result = PROVOKED[word]()
    assert result.chunk_kind == [2]
    assert result.chunk_bytes == [2]
    assert result.sent_ns is not None
    assert result.first_byte_ns is not None
    assert result.sent_ns < result.first_byte_ns <= result.chunk_ns[0] <= result.done_ns


def test_time_limits_are_kept() -> None:
    for word, limit_s in (("timeout_first_byte", 0.1), ("timeout_idle", 0.1), ("timeout_total", 0.2)):
        result = PROVOKED[word]()
        assert result.sent_ns is not None
        assert limit_s <= (result.done_ns - result.sent_ns) / 1e9 < limit_s + 0.4


def test_a_certificate_for_another_name_is_refused() -> None:
    with tls_listener("example.org") as port:
        result = shot_at(target_at(port, scheme="https"))
    assert result.error == "tls"


@pytest.mark.parametrize(
    ("steps", "word", "detail"),
    [
        (["await close"], "timeout_connect", "within 0.3 s"),
        ([b"\x16\x03", "await close"], "timeout_connect", "within 0.3 s"),
        (["close"], "tls", "handshake failed: the server closed the connection"),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n", "await close"], "tls", "handshake failed"),
    ],
    ids=["silent", "stalled", "closed", "no TLS"],
)
def test_what_a_server_may_do_to_a_handshake(steps: list[Step], word: str, detail: str) -> None:
    with serving(steps) as server:
        result = shot_at(target_at(server.port, scheme="https", timeouts=Timeouts(connect_s=0.3)))
    assert (result.error, result.sent_ns) == (word, None)
    assert detail in result.error_detail


def test_a_server_that_does_not_read_the_request() -> None:
    """More than the kernel takes at once, and nobody at the other end: silence, like any other."""
    large = Prompt("p", [{"role": "user", "content": "x" * (32 << 20)}])
    with serving(["pause"] * 40) as server:
        result = shot_at(target_at(server.port, timeouts=Timeouts(first_byte_s=0.3)), large)
    assert (result.error, result.error_detail) == ("timeout_first_byte", "no byte of the answer within 0.3 s")


def test_a_fault_of_our_own_code_is_the_generators() -> None:
    result = shot_at(target_at(1), Prompt("p", [{"role": "user", "content": object()}]))
    assert result.error == "generator"
    assert result.error_detail == "TypeError: Encoding objects of type object is unsupported"


def test_a_cancelled_shot_that_waits_for_a_connection() -> None:
    with full_backlog() as port, firing(target_at(port)) as fire:
        shot = gevent.spawn(fire, 0, 0, 0, None, PROMPT)
        gevent.sleep(0)
        fire.cancel(shot)
        result: Result = shot.get(timeout=60)
    assert (result.error, result.sent_ns) == ("cancelled", None)


def test_cancelling_what_is_not_in_flight_does_nothing() -> None:
    with firing(target_at(1)) as fire:
        fire.cancel(gevent.getcurrent())
        assert fire(0, 0, 0, None, PROMPT).error == "connect"


def test_retry_after_in_both_forms() -> None:
    assert PROVOKED["rate_limited"]().retry_after_s == 7.0
    now_s = 784111717.0  # Sun, 06 Nov 1994 08:48:37 GMT, a minute before RFC 9110's example
    assert retry_after_s("Sun, 06 Nov 1994 08:49:37 GMT", now_s) == 60.0
    assert retry_after_s("Sun, 06 Nov 1994 08:40:37 GMT", now_s) == 0.0
    assert retry_after_s(" 1.5 ", now_s) == 1.5
    for nonsense in ("soon", "-3", "", "1e9", "Sun, 99 Nov 1994 08:49:37 GMT"):
        assert retry_after_s(nonsense, now_s) is None


# what may be shown


@pytest.mark.parametrize(
    "echoed",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower(),
        SECRET.replace("/", "\\/"),
        "".join(f"\\u{ord(c):04x}" for c in SECRET),
        SECRET.replace("+", "&#43;"),
        SECRET.upper(),
    ],
)
def test_no_form_of_the_key_is_shown(echoed: str) -> None:
    result = answered(document(f'{{"error": "bad key {echoed}!"}}'.encode(), status="401 Unauthorized"))
    assert result.error_detail == 'HTTP 401: {"error": "bad key [key]!"}'


def test_a_key_cut_in_two_is_not_shown() -> None:
    detail = one_line(" " * 3990 + SECRET, SECRET)
    assert "sk-" not in detail


def test_a_detail_is_one_short_line() -> None:
    detail = one_line("a\r\nb\x00c\x1b[31m\u2028d" + "x" * 1000, None)
    assert detail.startswith("a b c [31m d")
    assert len(detail) == 300
    assert detail.isprintable()
