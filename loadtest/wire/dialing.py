"""The way to a target: names, addresses, sockets, and tunnels through proxies."""

import _socket
import errno
import os
import re
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

import gevent

from loadtest import stamps
from loadtest.proxies import Proxy
from loadtest.types import ErrorWord
from loadtest.wire.answer import reason
from loadtest.wire.connection import READABLE, WRITABLE
from loadtest.wire.flight import Broken, Flight

MAX_PROXY_ANSWER_BYTES = 64 << 10
OURS = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM)
"""What the system says when this machine has no descriptors, ports or memory left."""


def is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


Address = tuple[int, tuple[Any, ...]]
"""Family and what `connect` takes."""


def resolve(host: str, port: int, flight: Flight) -> list[Address]:
    """A literal address costs nothing; a name is looked up by gevent's resolver for each new connection."""
    resolver = _socket if is_literal(host) else gevent.get_hub().resolver
    try:
        found = flight.during(lambda: resolver.getaddrinfo(host, port, 0, _socket.SOCK_STREAM, _socket.IPPROTO_TCP, 0))
    except (OSError, UnicodeError) as e:
        raise Broken("dns", f"{host} cannot be resolved: {reason(e)}") from e
    return [(family, address) for family, _, _, _, address in found]


def connect_to_one(addresses: Sequence[Address], flight: Flight) -> tuple[_socket.socket, str]:
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


def open_tunnel(sock: _socket.socket, proxy: Proxy, authority: str, flight: Flight) -> None:
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
