"""Many requests in the air at once: each is looked after for as long as it flies, however few of them ever say a word."""

import socket
from contextlib import suppress

import gevent

from loadtest.prompts import Prompt
from loadtest.types import Result, Timeouts
from tests.conformance.harness import firing
from tests.conformance.server import read_request
from tests.conformance.voices import CHAT, CHUNKED, DONE, chunked, event
from tests.test_wire import CHUNK, served, target_at

LIMITS = Timeouts(first_byte_s=1.5, idle_s=1.5, total_s=3)  # long enough for the timer that all of them share
KINDS = ("silent", "stalled", "endless", "finished")
OF_EACH = 12
APART_S = 0.02  # they begin in turn, and for longer than it takes until all that fly have been looked at once


def serve(sock: socket.socket) -> None:
    """Does what the request asks for, and never ends an answer: only the client can."""
    request = read_request(sock)
    kind = next(kind for kind in KINDS if kind.encode() in request)
    with suppress(ConnectionError):
        if kind != "silent":
            sock.sendall(CHUNKED + CHUNK)
        if kind == "finished":
            sock.sendall(chunked(event(CHAT.finish())) + chunked(event(DONE)))
        sock.settimeout(0.2 if kind == "endless" else 20)
        for _ in range(100):
            try:
                if not sock.recv(1000):
                    return
            except TimeoutError:
                if kind != "endless":
                    break
                sock.sendall(CHUNK)
        raise AssertionError(f"{kind}: the client left it in the air")


def test_each_of_many_requests_ends_as_its_limits_say() -> None:
    with served(serve) as port, firing(target_at(port, timeouts=LIMITS)) as fire:
        shots = []
        for seq in range(OF_EACH * len(KINDS)):
            prompt = Prompt(f"p-{seq}", [{"role": "user", "content": KINDS[seq % len(KINDS)]}])
            shots.append(gevent.spawn(fire, 0, seq, 0, None, prompt))
            gevent.sleep(APART_S)
        results: list[Result] = [shot.get(timeout=20) for shot in shots]
    of_kind = {kind: results[k :: len(KINDS)] for k, kind in enumerate(KINDS)}
    words = {kind: {result.error for result in each} for kind, each in of_kind.items()}
    assert words == {
        "silent": {"timeout_first_byte"},
        "stalled": {"timeout_idle"},
        "endless": {"timeout_total"},
        "finished": {None},  # it said its last word, and the message that does not end is not waited for
    }
    for kind, limit_s in (("silent", 1.5), ("stalled", 1.5), ("endless", 3)):
        for result in of_kind[kind]:
            since_ns = result.chunk_ns[-1] if kind == "stalled" else result.sent_ns or 0
            assert (result.done_ns - since_ns) / 1e9 >= limit_s, f"{kind}: given up before its time"
    assert all(result.done_ns == result.chunk_ns[-1] for result in of_kind["finished"])
