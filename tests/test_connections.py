"""The way to an endpoint: kept and fresh connections, proxies, certificates to show, names to ask for; and pools."""

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest
import trustme

from loadtest import plan, proxies, wire
from loadtest.errors import PlanError
from loadtest.types import Result, Target
from loadtest.wire import connection
from tests.conformance.harness import PROMPT, firing
from tests.conformance.server import Step, read_request, serving
from tests.conformance.voices import CHAT, CHUNKED, chunked, document, event
from tests.test_wire import served

WHOLE = document(CHAT.whole("Hi"))
TWICE: list[Step] = ["read request", WHOLE, "read request", WHOLE]


def results(target: Target, n: int, keys: dict[str, str] | None = None) -> list[Result]:
    with firing(target, keys=keys) as fire:
        return [fire(0, seq, 0, None, PROMPT) for seq in range(n)]


# kept and fresh


def test_a_fresh_connection_for_each_request() -> None:
    with serving(TWICE) as server:
        found = results(CHAT.target(f"http://127.0.0.1:{server.port}", stream=False, connections="fresh"), 3)
    assert [(result.error, result.reused) for result in found] == [(None, False)] * 3
    assert all(result.connect_dur_ns for result in found)
    assert server.connections == 3
    assert all(b"\r\nConnection: close\r\n" in request for request in server.requests)


@pytest.mark.parametrize("end", ["close", "reset"])
def test_a_kept_connection_that_was_closed_meanwhile_is_replaced_and_counted(end: Any) -> None:
    """The server reads the second request and hangs up: nobody can say whether it was closed before."""
    with serving(["read request", WHOLE, "read request", end], ["read request", WHOLE]) as server:
        found = results(CHAT.target(f"http://127.0.0.1:{server.port}", stream=False), 2)
    assert [(r.error, r.reused, r.reconnects) for r in found] == [(None, False, 0), (None, False, 1)]


@pytest.mark.parametrize(
    ("second", "word"),
    [([b"H", "reset"], "reset"), ([b"HTTP/1.1 200 OK\r\n", "close"], "truncated")],
    ids=["a byte", "half a head"],
)
def test_once_a_byte_of_the_answer_came_nothing_is_sent_again(second: Sequence[Step], word: str) -> None:
    with serving(["read request", WHOLE, "read request", *second], ["read request", WHOLE]) as server:
        found = results(CHAT.target(f"http://127.0.0.1:{server.port}", stream=False), 2)
    assert [(r.error, r.reused, r.reconnects) for r in found] == [(None, False, 0), (word, True, 0)]
    assert server.connections == 1


def test_it_is_replaced_once_and_no_more() -> None:
    with serving(["read request", WHOLE, "read request", "close"], ["read request", "close"]) as server:
        found = results(CHAT.target(f"http://127.0.0.1:{server.port}", stream=False), 2)
    assert (found[1].error, found[1].reused, found[1].reconnects) == ("truncated", False, 1)
    assert len(server.requests) == 3


def test_no_request_waits_behind_another() -> None:
    """Twenty at once at a server that answers none of them: twenty connections."""
    with serving(["read request", "await close"]) as server:
        target = CHAT.target(f"http://127.0.0.1:{server.port}", timeouts={"first_byte_s": 2})
        with firing(_converted(target)) as fire:
            shots = [gevent.spawn(fire, 0, seq, 0, None, PROMPT) for seq in range(20)]
            found = [shot.get() for shot in gevent.joinall(shots)]
    assert {result.error for result in found} == {"timeout_first_byte"}
    assert server.connections == len(server.requests) == 20
    assert max(result.sent_ns or 0 for result in found) < min(result.done_ns for result in found)


def _converted(target: Target) -> Target:
    return msgspec.convert(msgspec.to_builtins(target), Target)


# our own faults


@pytest.mark.parametrize("place", ["the parser's callback", "a closer look", "the time limits"])
def test_a_fault_in_a_callback_of_the_event_loop_fails_its_request_at_once(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where libev calls us, an exception would be printed and forgotten, and the request hang until its time is up."""

    def fault(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    owner, name = {
        "the parser's callback": (wire.Answer, "on_headers_complete"),
        "a closer look": (connection.Connection, "_note_first_possible"),
        "the time limits": (wire, "_ends_with"),
    }[place]
    two = chunked(event(CHAT.content("a")) + event(CHAT.content("b")))
    script: list[Step] = ["read request", CHUNKED, two, "await close"]
    with serving(script) as server, firing(CHAT.target(f"http://127.0.0.1:{server.port}")) as fire:
        monkeypatch.setattr(owner, name, fault)
        result = fire(0, 0, 0, None, PROMPT)
    assert result.error == "generator"
    assert "a fault of ours" in result.error_detail
    assert (result.done_ns - result.started_ns) / 1e9 < 20, "less than its `idle_s`"


# TLS


class Authority:
    def __init__(self, directory: Path) -> None:
        self.ca = trustme.CA()
        self.ca_file = str(directory / "ca.pem")
        self.ca.cert_pem.write_to_path(self.ca_file)
        client = self.ca.issue_cert("client.example")
        self.both = str(directory / "both.pem")
        client.private_key_and_cert_chain_pem.write_to_path(self.both)
        self.key, self.cert = str(directory / "key.pem"), str(directory / "cert.pem")
        client.private_key_pem.write_to_path(self.key)
        client.cert_chain_pems[0].write_to_path(self.cert)

    def context(self, *names: str, ask: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*names).configure_cert(context)
        if ask:
            self.ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def answer_whole(sock: Any) -> None:
    while read_request(sock):
        sock.sendall(WHOLE)


@pytest.mark.parametrize("apart", [False, True], ids=["one file", "two files"])
def test_a_client_certificate_is_shown(authority: Authority, apart: bool) -> None:
    shown = {"client_cert": authority.cert, "client_key": authority.key} if apart else {"client_cert": authority.both}
    with served(answer_whole, authority.context("127.0.0.1", ask=True)) as port:
        target = CHAT.target(f"https://127.0.0.1:{port}", stream=False, ca_file=authority.ca_file, **shown)
        (result,) = results(target, 1)
    assert (result.error, result.status) == (None, 200)


def test_server_name_is_asked_for_and_checked(authority: Authority) -> None:
    asked: list[str | None] = []
    context = authority.context("api.example")
    context.sni_callback = lambda _sock, name, _context: asked.append(name)
    with served(answer_whole, context) as port:
        target = CHAT.target(
            f"https://127.0.0.1:{port}", stream=False, ca_file=authority.ca_file, server_name="api.example"
        )
        (result,) = results(target, 1)
    assert (result.error, asked) == (None, ["api.example"])


# proxies


def test_through_a_proxy_in_absolute_form() -> None:
    with serving(TWICE) as proxy:
        port = proxy.port
        target = CHAT.target(
            "http://api.example:8080/v1", stream=False, proxy=f"http://127.0.0.1:{port}", proxy_key="env:P"
        )
        found = results(target, 2, {proxies.key_name("t"): "me:secret"})
    assert [(r.error, r.proxy, r.reused) for r in found] == [
        (None, f"127.0.0.1:{port}", False),
        (None, f"127.0.0.1:{port}", True),
    ]
    lines = proxy.requests[0].split(b"\r\n")
    assert lines[0] == b"POST http://api.example:8080/v1/chat/completions HTTP/1.1"
    assert b"Host: api.example:8080" in lines
    assert b"Proxy-Authorization: Basic bWU6c2VjcmV0" in lines


def test_through_a_tunnel(authority: Authority) -> None:
    """The proxy sees CONNECT and ciphertext; the certificate is the target's."""
    heard: list[bytes] = []
    context = authority.context("api.example")

    def tunnel(sock: Any) -> None:
        heard.append(read_request(sock))
        sock.sendall(b"HTTP/1.1 200 Connection established\r\nX-Proxy: 1\r\n\r\n")
        with context.wrap_socket(sock, server_side=True) as inner:
            answer_whole(inner)

    with served(tunnel) as port:
        target = CHAT.target(
            "https://api.example/v1", stream=False, ca_file=authority.ca_file, proxy=f"http://127.0.0.1:{port}",
            proxy_key="env:P",
        )  # fmt: skip
        found = results(target, 2, {proxies.key_name("t"): "me:secret"})
    assert [(r.error, r.reused, r.proxy) for r in found] == [
        (None, False, f"127.0.0.1:{port}"), (None, True, f"127.0.0.1:{port}")
    ]  # fmt: skip
    assert heard == [
        b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\n"
    ]


@pytest.mark.parametrize(
    ("steps", "detail"),
    [
        ([b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"], "407 Proxy Authentication Required"),
        ([b"HTTP/1.1 200 OK\r\n\r\nmore"], "opens no tunnel"),
        ([b"nonsense\r\n\r\n"], "nonsense"),
        ([b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000], "headers without end"),
        (["close"], "closed the connection"),
        (["reset"], "was lost"),
    ],
)
def test_a_proxy_that_opens_no_tunnel(steps: list[Step], detail: str) -> None:
    with serving(["read request", *steps]) as proxy:
        target = CHAT.target("https://api.example/v1", proxy=f"http://127.0.0.1:{proxy.port}")
        (result,) = results(target, 1)
    assert result.error == "connect"
    assert detail in result.error_detail


def test_a_proxy_that_says_nothing() -> None:
    with serving(["read request", "await close"]) as proxy:
        port = proxy.port
        target = CHAT.target("https://api.example", proxy=f"http://127.0.0.1:{port}", timeouts={"connect_s": 0.2})
        (result,) = results(_converted(target), 1)
    assert (result.error, result.error_detail) == (
        "timeout_connect",
        f"no connection to api.example:443 through the proxy 127.0.0.1:{port} within 0.2 s",
    )


def test_an_environments_proxy_is_not_used_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with serving(TWICE) as server:
        (result,) = results(CHAT.target(f"http://127.0.0.1:{server.port}", stream=False), 1)
    assert (result.error, result.proxy) == (None, "")


@pytest.mark.parametrize(
    ("url", "environ", "found"),
    [
        ("https://api.example/v1", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("http://api.example/v1", {"HTTPS_PROXY": "http://p:1"}, None),
        ("http://api.example/v1", {"HTTP_PROXY": "p:1"}, "http://p:1"),
        ("http://api.example/v1", {"HTTP_PROXY": "http://p:1", "http_proxy": "http://q:1"}, "http://q:1"),
        ("http://api.example/v1", {"ALL_PROXY": "http://p:1"}, "http://p:1"),
        ("http://api.example/v1", {}, None),
        ("http://api.example/v1", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        ("http://api.example/v1", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "other, example"}, None),
        ("http://api.example/v1", {"HTTP_PROXY": "http://p:1", "NO_PROXY": ".API.example"}, None),
        ("http://api.example/v1", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "pi.example"}, "http://p:1"),
        ("http://api.example:81/v1", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "api.example:81"}, None),
        ("http://api.example:82/v1", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "api.example:81"}, "http://p:1"),
        ("http://10.1.2.3/v1", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, None),
        ("http://11.1.2.3/v1", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, "http://p:1"),
        ("http://[::1]:8000/v1", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "localhost,::1"}, None),
    ],
)
def test_the_environments_proxy_for_a_url(url: str, environ: dict[str, str], found: str | None) -> None:
    assert proxies.from_environment(url, environ) == found


PLAN = """
name: way
targets: [{{name: a, url: "{url}", dialect: http, {more}}}]
prompts: {{kind: synthetic, input_tokens: 5}}
stages: [{{name: s, arrivals: {{kind: closed}}, concurrency: 1, requests: 1}}]
"""


def test_the_environment_is_asked_once_and_the_plan_then_says_what_it_said() -> None:
    asked = plan.parse(PLAN.format(url="http://api.example", more="proxy: environment, proxy_key: env:P"), "/")
    assert proxies.chosen(asked, {"HTTP_PROXY": "http://p:1"}).targets[0].proxy == "http://p:1"
    assert proxies.chosen(asked, {}).targets[0].proxy is None
    with pytest.raises(PlanError, match="has a password or another form") as caught:
        proxies.chosen(asked, {"HTTP_PROXY": "http://me:secret@p:1"})
    assert "secret" not in str(caught.value)
    keys = plan.resolve_keys(proxies.chosen(asked, {"HTTP_PROXY": "http://p:1"}), {"P": "me:secret"})
    assert keys == {"a proxy": "me:secret"}


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("connections: conversation", "connections is 'conversation', but synthetic prompts belong to none"),
        ("http2: true", "http2 is true; requests are sent as HTTP/1.1"),
        ("proxy: 'socks5://p:1'", "proxy is 'socks5://p:1'; it must be http://host:port, or environment"),
        ("proxy: 'http://p:1/path'", "it must be http://host:port, or environment"),
        ("proxy: 'http://me:secret@p:1'", "proxy holds a user name or a password"),
        ("proxy_key: 'env:P'", "proxy_key is given, but no proxy"),
        ("client_key: k.pem", "client_key is '/k.pem', but client_cert is missing"),
        ("client_cert: c.pem", "only an https:// url has TLS"),
        ("server_name: other.example", "only an https:// url has TLS"),
    ],
)
def test_what_a_plan_may_not_ask_for(more: str, problem: str) -> None:
    with pytest.raises(PlanError) as caught:
        plan.parse(PLAN.format(url="http://api.example", more=more), "/")
    assert problem.replace("'/k.pem'", "'k.pem'") in str(caught.value)
    assert "secret" not in str(caught.value)


def test_certificates_are_tried_before_anything_is_sent(authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN.format(url="https://api.example", more=f"client_cert: {authority.both}"))
    assert plan.load(path).targets[0].client_cert == authority.both
    path.write_text(PLAN.format(url="https://api.example", more=f"client_cert: {authority.ca_file}"))
    with pytest.raises(PlanError, match="it holds no certificate with its key"):
        plan.load(path)
