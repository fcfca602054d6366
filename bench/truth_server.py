"""A paced OpenAI-style endpoint that keeps the truth about every request, to hold a load generator's figures against.

    python truth_server.py --ttft-ms 50 --itl-ms 20 [--port 0] [--tokens N] [--tls-cert PEM --tls-key PEM]

It prints the address it serves, and ends when its standard input does. A streamed answer is one SSE event a token, each
in an HTTP chunk and a write of its own: the first `--ttft-ms` after the request was read, the others `--itl-ms` apart.
A request that does not stream is answered at once. `GET /truth` returns, and forgets, what was recorded:

    {"loop": module of the event loop, "cpu_s": of this process so far, "most_in_flight": streams,
     "requests": [one for each answer that was finished]}

with, in nanoseconds of the real-time clock, for each request:

    trace, id   its traceparent's trace id, and the id that its chunks carried
    arrived_ns  the kernel's stamp of its last byte: from here on, whatever passes is this server's
    read_ns     when this program got round to reading it
    chunk_ns    for each token, the instant before its write
    unsure_ns   the longest time that a write took: a pause of this process there makes an instant above that uncertain

Sockets are driven directly, not through asyncio's transports, since those hide the kernel's stamps, and cost more.
"""

import argparse
import asyncio
import json
import os
import resource
import socket
import ssl
import struct
import sys
from itertools import count
from time import time_ns
from typing import Any

try:
    from uvloop import run
except ImportError:  # as in the project's tests; slower, and the truth says which it was
    from asyncio import run

SO_TIMESTAMPNS = 35
READ_BYTES = 65536
BACKLOG = 8192
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    b"x-request-id: %b\r\nTransfer-Encoding: chunked\r\n\r\n"
)
WHOLE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
MODELS = b'{"object": "list", "data": [{"id": "paced", "object": "model", "created": 1, "owned_by": "bench"}]}'
ID = "chatcmpl-%012d"
PROMPT_TOKENS = 50


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def http_chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def event(**fields: object) -> bytes:
    """An event with a placeholder of an id, which has as many characters as the ids themselves."""
    body = {"id": ID % 0, "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "paced", **fields}
    return http_chunk(b"data: " + compact(body) + b"\n\n")


def delta(finish: str | None = None, **said: str) -> bytes:
    return event(choices=[{"index": 0, "delta": said, "logprobs": None, "finish_reason": finish}])


def usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens, "total_tokens": PROMPT_TOKENS + tokens}


FIRST = delta(role="assistant", content=" the")
TOKEN = delta(content=" the")
LAST = delta("stop", content=" end")
DONE = http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
PLACEHOLDER = (ID % 0).encode()
WHOLE = compact(
    {
        "id": ID % 0,
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "paced",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "the end"}, "finish_reason": "stop"}],
        "usage": usage(2),
    }
)


class Truth:
    """What was recorded since it was last asked for."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.in_flight = self.most_in_flight = 0
        self.numbers = count(1)

    def report(self) -> bytes:
        used = resource.getrusage(resource.RUSAGE_SELF)
        report = {
            "loop": run.__module__,
            "cpu_s": used.ru_utime + used.ru_stime,
            "most_in_flight": self.most_in_flight,
            "requests": self.requests,
        }
        self.requests = []
        self.most_in_flight = self.in_flight
        return compact(report)


class Server:
    """The listening socket, what answers look like, and the truth."""

    def __init__(self, options: argparse.Namespace, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.truth = Truth()
        self.ttft_s = options.ttft_ms / 1e3
        self.itl_s = options.itl_ms / 1e3
        self.tokens: int = options.tokens
        self.context: ssl.SSLContext | None = None
        if options.tls_cert:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(options.tls_cert, options.tls_key)
        self.listener = socket.create_server(("127.0.0.1", options.port), backlog=BACKLOG)
        self.listener.setblocking(False)
        loop.add_reader(self.listener, self.accept)

    @property
    def url(self) -> str:
        return f"http{'s' * bool(self.context)}://127.0.0.1:{self.listener.getsockname()[1]}"

    def accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            Connection(self, sock) if self.context is None else TlsConnection(self, sock, self.context)


class Connection:
    """One request after the other; a stream is a timer that writes a token and sets itself anew."""

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self.server = server
        self.loop = server.loop
        self.sock = sock
        self.buffer = b""
        self.backlog = b""  # what the socket did not take
        self.timer: asyncio.TimerHandle | None = None
        self.loop.add_reader(sock, self.on_readable)

    def on_readable(self) -> None:
        try:
            data, control, _, _ = self.sock.recvmsg(READ_BYTES, 64)
            read_ns = time_ns()
            self.buffer += self.opened(data) if data else self.close()
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            self.close()
            return
        seconds, nanoseconds = struct.unpack("=qq", control[0][2]) if control else divmod(read_ns, 1_000_000_000)
        self.take_request(seconds * 1_000_000_000 + nanoseconds, read_ns)

    def take_request(self, arrived_ns: int, read_ns: int) -> None:
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head, lower = self.buffer[:end], self.buffer[:end].lower()
        size = int(field(lower, b"content-length") or 0)
        if len(self.buffer) < end + 4 + size:
            if b"100-continue" in lower:
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        body, self.buffer = self.buffer[end + 4 : end + 4 + size], self.buffer[end + 4 + size :]
        if head.startswith(b"GET /truth "):
            self.answer(self.server.truth.report())
        elif head.startswith(b"HEAD"):
            self.write(WHOLE_HEAD % len(MODELS))
        elif not body:  # a client that asks whether anybody is there
            self.answer(MODELS)
        else:
            self.generate(json.loads(body), lower, arrived_ns, read_ns)

    def generate(self, request: dict[str, Any], head: bytes, arrived_ns: int, read_ns: int) -> None:
        identity = ID % next(self.server.truth.numbers)
        self.record: dict[str, Any] = {
            "trace": (field(head, b"traceparent") or b"--").split(b"-")[1].decode(),
            "id": identity,
            "arrived_ns": arrived_ns,
            "read_ns": read_ns,
            "chunk_ns": [],
            "unsure_ns": 0,
        }
        if not request.get("stream"):
            self.server.truth.requests.append(self.record)
            self.answer(WHOLE)
            return
        wanted = request.get("max_completion_tokens") or request.get("max_tokens") or 100
        self.left = self.server.tokens or wanted
        encoded = identity.encode()
        self.first = HEAD % (field(head, b"x-request-id") or encoded) + FIRST.replace(PLACEHOLDER, encoded)
        self.token = TOKEN.replace(PLACEHOLDER, encoded)
        last = event(choices=[], usage=usage(self.left)) if wants_usage(request) else b""
        self.last = (LAST + last).replace(PLACEHOLDER, encoded) + DONE
        truth = self.server.truth
        truth.in_flight += 1
        truth.most_in_flight = max(truth.most_in_flight, truth.in_flight)
        self.due_s = self.loop.time() + self.server.ttft_s
        self.timer = self.loop.call_at(self.due_s, self.tick)

    def tick(self) -> None:
        record = self.record
        self.left -= 1
        data = self.token if record["chunk_ns"] else self.first
        if not self.left:
            data = (b"" if record["chunk_ns"] else HEAD % self.record["id"].encode()) + self.last
        before_ns = time_ns()
        self.write(data)
        took_ns = time_ns() - before_ns
        record["chunk_ns"].append(before_ns)
        if took_ns > record["unsure_ns"]:
            record["unsure_ns"] = took_ns
        if self.left:
            self.due_s += self.server.itl_s
            self.timer = self.loop.call_at(self.due_s, self.tick)
        else:
            self.timer = None
            self.server.truth.in_flight -= 1
            self.server.truth.requests.append(record)

    def answer(self, body: bytes) -> None:
        self.write(WHOLE_HEAD % len(body) + body)

    def write(self, data: bytes) -> None:
        self.send(data)

    def send(self, data: bytes) -> None:
        if self.backlog:
            self.backlog += data
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        if sent < len(data):
            self.backlog = data[sent:]
            self.loop.add_writer(self.sock, self.on_writable)

    def on_writable(self) -> None:
        self.loop.remove_writer(self.sock)
        data, self.backlog = self.backlog, b""
        self.send(data)

    def opened(self, data: bytes) -> bytes:
        return data

    def close(self) -> bytes:
        if self.sock.fileno() >= 0:
            self.loop.remove_reader(self.sock)
            self.loop.remove_writer(self.sock)
            self.sock.close()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
            self.server.truth.in_flight -= 1
        return b""


class TlsConnection(Connection):
    def __init__(self, server: Server, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sealed_in, self.sealed_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.sealed_in, self.sealed_out, server_side=True)
        self.shaken = False
        super().__init__(server, sock)

    def opened(self, data: bytes) -> bytes:
        self.sealed_in.write(data)
        try:
            if not self.shaken:
                self.tls.do_handshake()
                self.shaken = True
            return self.tls.read(READ_BYTES)
        finally:
            if self.sealed_out.pending:
                self.send(self.sealed_out.read())

    def write(self, data: bytes) -> None:
        self.tls.write(data)
        self.send(self.sealed_out.read())


def field(lower_head: bytes, name: bytes) -> bytes:
    """The value of a header, in lower case; empty where there is none."""
    at = lower_head.find(b"\r\n" + name + b":")
    return lower_head[at + len(name) + 3 :].split(b"\r\n", 1)[0].strip() if at >= 0 else b""


def wants_usage(request: dict[str, Any]) -> bool:
    return bool((request.get("stream_options") or {}).get("include_usage"))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--ttft-ms", type=float, default=50)
    parser.add_argument("--itl-ms", type=float, default=20)
    parser.add_argument("--tokens", type=int, default=0, help="0: as many as the request's max_tokens")
    parser.add_argument("--tls-cert")
    parser.add_argument("--tls-key")
    return parser.parse_args()


async def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    loop = asyncio.get_running_loop()
    server = Server(options(), loop)
    ended = asyncio.Event()

    def on_stdin() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            ended.set()

    loop.add_reader(sys.stdin.fileno(), on_stdin)
    print(server.url, flush=True)
    await ended.wait()


if __name__ == "__main__":
    run(main())
