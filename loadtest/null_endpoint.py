"""The endpoint that `loadtest calibrate` fires at: it does as little as can be done, on time, and says when it did it.

A program of its own (`python -m loadtest.null_endpoint`), so that its work is not the worker's. It prints its URL and
ends when its standard input does. POST answers `max_tokens` tokens, streamed `PACE_S` apart or in one document, as
openai-chat has it; every event of a stream is one HTTP chunk and one write. GET /truth says what was done, and forgets it:
for each stream its trace id, the kernel's stamp of the request's last byte, and the instant before each token's write.

Not the simulator: that one models an endpoint, and would be the slower end long before a worker is.
"""

import errno
import json
import re
import resource
import selectors
import socket
import struct
import sys
from heapq import heappop, heappush
from itertools import count
from time import monotonic, time_ns

import msgspec
from msgspec import Struct, field

from loadtest.stamps import ANCILLARY_BYTES, SO_TIMESTAMPNS

FIRST_S = 0.05
PACE_S = 0.01
READ_BYTES = 65536
BACKLOG = 4096

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunk(**fields: object) -> bytes:
    body = b"data: " + json.dumps({"id": "null", "model": "null", "object": "chat.completion.chunk", **fields}).encode()
    return b"%x\r\n%b\n\n\r\n" % (len(body) + 2, body)


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 1, "completion_tokens": tokens}


TOKEN = _chunk(choices=[{"index": 0, "delta": {"content": " the"}, "finish_reason": None}])
STOP = _chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def _document(tokens: int) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": " the" * tokens}, "finish_reason": "stop"}
    return _answer({"id": "null", "model": "null", "choices": [choice], "usage": _usage(tokens)})


def _answer(body: object) -> bytes:
    data = msgspec.json.encode(body)
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data)


class Stream(Struct):
    """The truth about one streamed answer, in nanoseconds of the real-time clock."""

    trace_id: str
    arrived_ns: int  # the kernel's stamp of the request's last byte
    chunk_ns: list[int] = field(default_factory=list)  # before the write of each token


class Truth(Struct):
    streams: list[Stream]


class Connection:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.heard = b""
        self.unsent = b""
        self.stream: Stream | None = None
        self.left = 0

    def write(self, data: bytes) -> bool:
        """False where the client is gone. What the socket does not take at once waits for the next write."""
        data = self.unsent + data
        try:
            self.unsent = data[self.sock.send(data) :]
        except BlockingIOError:
            self.unsent = data
        except OSError:
            return False
        return True


class Endpoint:
    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self.listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.listener, selectors.EVENT_READ, None)
        self._selector.register(sys.stdin.buffer, selectors.EVENT_READ, self)
        self._due: list[tuple[float, int, Connection]] = []  # a heap; the number tells equal instants apart
        self._numbers = count()
        self._done: list[Stream] = []

    def serve(self) -> None:
        """Until standard input ends."""
        while True:
            wait_s = max(self._due[0][0] - monotonic(), 0) if self._due else None
            for key, _ in self._selector.select(wait_s):
                if key.data is self:
                    return
                if key.data is None:
                    self._accept()
                else:
                    self._read(key.data)
            self._write_what_is_due()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            except OSError as e:
                if e.errno in (errno.EMFILE, errno.ENFILE):
                    return
                raise
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if sys.platform == "linux":
                sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            self._selector.register(sock, selectors.EVENT_READ, Connection(sock))

    def _read(self, connection: Connection) -> None:
        try:
            data, control, _, _ = connection.sock.recvmsg(READ_BYTES, ANCILLARY_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
            return
        s, ns = struct.unpack("=qq", control[0][2][:16]) if control else divmod(time_ns(), 1_000_000_000)
        connection.heard += data
        head, end, body = connection.heard.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if not end or len(body) < (int(length[1]) if length else 0):
            return
        connection.heard = b""
        self._respond(connection, head, body, s * 1_000_000_000 + ns)

    def _respond(self, connection: Connection, head: bytes, body: bytes, arrived_ns: int) -> None:
        if head.startswith(b"GET /truth"):
            done, self._done = self._done, []
            connection.sock.setblocking(True)  # megabytes, when the load is over
            connection.sock.sendall(_answer(Truth(done)))
            connection.sock.setblocking(False)
            return
        asked = msgspec.json.decode(body)
        tokens = int(asked.get("max_tokens") or 1)
        if not asked.get("stream"):
            connection.write(_document(tokens))
            return
        trace = re.search(rb"(?i)\r\ntraceparent: *\w+-(\w+)", head)
        connection.stream = Stream(trace[1].decode() if trace else "", arrived_ns)
        connection.left = tokens
        heappush(self._due, (monotonic() + FIRST_S, next(self._numbers), connection))

    def _write_what_is_due(self) -> None:
        now = monotonic()
        while self._due and self._due[0][0] <= now:
            due, _, connection = heappop(self._due)
            stream = connection.stream
            if stream is None:
                continue  # closed meanwhile
            connection.left -= 1
            data = TOKEN if stream.chunk_ns else HEAD + TOKEN
            if not connection.left:
                data += STOP + _chunk(choices=[], usage=_usage(len(stream.chunk_ns) + 1)) + END
            stream.chunk_ns.append(time_ns())
            if not connection.write(data):
                self._close(connection)
            elif connection.left:
                heappush(self._due, (due + PACE_S, next(self._numbers), connection))
            else:
                connection.stream = None
                self._done.append(stream)

    def _close(self, connection: Connection) -> None:
        connection.stream = None
        self._selector.unregister(connection.sock)
        connection.sock.close()


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    endpoint = Endpoint()
    print(f"http://127.0.0.1:{endpoint.listener.getsockname()[1]}", flush=True)
    endpoint.serve()


if __name__ == "__main__":
    main()
