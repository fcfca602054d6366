"""A scripted server on a raw socket: it reads a request, then does what its script says, byte for byte.

A script is a list of steps. Bytes are sent as one segment, and nothing else is sent before the client has read them, so
that each step is one read of the client; when it was sent is in `sent_ns`, one entry a step. The other steps are words.
"""

import fcntl
import os
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

Word = Literal["pause", "await close", "close", "reset", "half-close", "read request"]
Step = bytes | Word
PAUSE_S = 0.03
PATIENCE_S = 10.0


class Server:
    """Answers connection n with `scripts[n]`, the last one again and again; a list within a script is one exchange."""

    def __init__(
        self,
        scripts: Sequence[Sequence[Step]],
        family: socket.AddressFamily = socket.AF_INET,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.scripts = scripts
        self._tls = tls
        self.requests: list[bytes] = []
        self.sent_ns: list[int] = []
        self.connections = 0
        self.problems: list[str] = []
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        self._listener.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        self._listener.listen(64)
        self._threads: list[threading.Thread] = []
        self._socks: list[socket.socket] = []

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def accept_for_ever(self) -> None:
        while True:
            try:
                sock, peer = self._listener.accept()
            except OSError:
                return
            sock.settimeout(PATIENCE_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            script = self.scripts[min(self.connections, len(self.scripts) - 1)]
            self.connections += 1
            self._socks.append(sock)
            thread = threading.Thread(target=self._play, args=(sock, peer[1], script), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _play(self, sock: socket.socket, client_port: int, script: Sequence[Step]) -> None:
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            client = Unread(client_port)
            for step in script:
                if not self._take(sock, client, step):
                    return
            _hang_up(sock)
        except (ConnectionError, ssl.SSLEOFError):
            pass  # the client has heard enough
        except (OSError, Impatient) as e:
            self.problems.append(f"{type(e).__name__}: {e}")
        finally:
            sock.close()

    def _take(self, sock: socket.socket, client: "Unread", step: Step) -> bool:
        """False when the script has ended the connection."""
        if isinstance(step, bytes):
            self.sent_ns.append(time.time_ns())
            sock.sendall(step)
            client.wait_until_read()
        elif step == "read request":
            request = read_request(sock)
            if not request:
                return False
            self.requests.append(request)
        elif step == "pause":
            time.sleep(PAUSE_S)  # a silence that the client is to notice, not a wait for anything
        elif step == "half-close":
            sock.shutdown(socket.SHUT_WR)
        elif step == "await close":
            while sock.recv(65536):
                pass
        elif step == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
            return False
        elif step == "close":
            _hang_up(sock)
            return False
        return True

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE_S)


class Impatient(Exception):
    """The client did not read what it was sent."""


class Unread:
    """What a client of this process, known by its port, has not read yet."""

    def __init__(self, port: int) -> None:
        self._fd = next((fd for fd in _sockets() if _is_connected_from(fd, port)), -1)

    def wait_until_read(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self._bytes():
            if time.monotonic() > deadline:
                raise Impatient(f"{self._bytes()} bytes were not read within {PATIENCE_S} s")
            time.sleep(0.00005)

    def _bytes(self) -> int:
        if self._fd < 0:
            return 0
        try:
            return int(struct.unpack("i", fcntl.ioctl(self._fd, termios.FIONREAD, bytes(4)))[0])
        except OSError:
            return 0  # it has hung up


def _sockets() -> Iterator[int]:
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                yield int(name)
        except OSError:
            pass  # closed meanwhile


def _is_connected_from(fd: int, port: int) -> bool:
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return False
    try:
        name = sock.getsockname()
        return (
            sock.type == socket.SOCK_STREAM and isinstance(name, tuple) and name[1] == port and bool(sock.getpeername())
        )
    except OSError:
        return False
    finally:
        sock.detach()


def _hang_up(sock: socket.socket) -> None:
    """A clean end, also where there is something that we have not read: closing would reset then."""
    try:
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass
    except OSError:
        pass


def read_request(sock: socket.socket) -> bytes:
    """One request with its body; empty where the client has closed the connection instead."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.partition(b":")[2] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    while len(body) < int(lengths[0] if lengths else 0):
        body += sock.recv(65536)
    return head + b"\r\n\r\n" + body


@contextmanager
def serving(
    *scripts: Sequence[Step], family: socket.AddressFamily = socket.AF_INET, tls: ssl.SSLContext | None = None
) -> Iterator[Server]:
    server = Server(scripts, family, tls)
    acceptor = threading.Thread(target=server.accept_for_ever, daemon=True)
    acceptor.start()
    try:
        yield server
    finally:
        server.close()
        acceptor.join(PATIENCE_S)
