"""One connection and the answers on it.

uvicorn parses requests and writes heads; chunks go straight to the transport, since the path through ASGI costs several
times the write itself, and since faults such as a reset need the socket. `Connection` puts itself into the ASGI scope
for that. The last call of a sound answer is `Reply.end`, through uvicorn again, so that it keeps the state of the
connection.
"""

import asyncio
import contextlib
import fcntl
import socket
import struct
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Any, cast

from starlette.types import Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from loadtest.simulator.openai_api import Event
from loadtest.simulator.truth import Record
from loadtest.types import ChunkKind

LARGEST_BACKLOG_BYTES = 4 * 1024 * 1024
"""What a client may leave unread before its connection is dropped: chunks are written without waiting for it."""

FLUSH_S = 5.0
"""How long a closing connection waits for its client to read what was written."""
UNSENT_POLL_S = 0.001
SIOCOUTQNSD = 0x894B  # linux/sockios.h; Python does not name it


class Connection(HttpToolsProtocol):
    """`gone` is set when the connection is lost; `on_gone` is called then."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.gone = asyncio.Event()
        self.on_gone: Callable[[], None] | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.gone.set()
        if self.on_gone is not None:
            self.on_gone()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(dict[str, Any], self.scope)["connection"] = self

    def on_message_complete(self) -> None:
        scope = cast(dict[str, Any], self.scope)
        scope["read_ns"] = time.time_ns()
        scope["read_s"] = self.loop.time()
        super().on_message_complete()

    async def lost_before(self, at_s: float) -> bool:
        """Wait until the loop's time is `at_s` (False), or until the connection is lost, if that comes first (True)."""
        if at_s > self.loop.time() and not self.gone.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(at_s):
                    await self.gone.wait()
        return self.gone.is_set()

    async def flushed(self) -> None:
        """Wait until all that was written is on its way; a reset would discard the rest."""
        raw = self.transport.get_extra_info("socket")
        for _ in range(int(FLUSH_S / UNSENT_POLL_S)):
            if self.gone.is_set() or _unsent_bytes(raw) == 0:
                return
            await asyncio.sleep(UNSENT_POLL_S)

    async def reset(self) -> None:
        """Close with RST: the peer can still read what was sent, then it sees the reset."""
        if not self.gone.is_set():
            raw = self.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        await self.gone.wait()


def _unsent_bytes(raw: socket.socket) -> int:
    """What the kernel holds back, for instance until more is acknowledged; taken for 0 where it does not say."""
    count = array("i", [0])
    with contextlib.suppress(OSError):
        fcntl.ioctl(raw.fileno(), SIOCOUTQNSD, count)
    return count[0]


class Reply:
    """One answer. What was written when is noted in `record`, chunk by chunk only if `noted`."""

    def __init__(self, scope: Scope, send: Send, record: Record, *, noted: bool) -> None:
        self.connection: Connection = scope["connection"]
        self.read_s: float = scope["read_s"]
        self.record = record
        self._noted = noted
        self._send = send
        self._transport = self.connection.transport

    async def head(
        self,
        content_type: str,
        *,
        status: int = 200,
        length: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        fields = {"content-type": content_type, "x-request-id": self.record.id}
        if length is not None:
            fields["content-length"] = str(length)
        fields |= {name.lower(): value for name, value in (headers or {}).items()}
        self.record.status = status
        self.record.head_ns = time.time_ns()
        pairs = [(name.encode(), value.encode("latin-1", "replace")) for name, value in fields.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    def event(self, kind: ChunkKind, tokens: int, payload: bytes) -> None:
        """Write one event of a stream."""
        transport = self._transport
        if transport.is_closing():
            return
        if self._noted:
            self.record.note(time.time_ns(), kind, tokens)
        transport.write(b"%x\r\ndata: %b\n\n\r\n" % (len(payload) + 8, payload))
        if transport.get_write_buffer_size() > LARGEST_BACKLOG_BYTES:
            transport.abort()

    def events(self, events: Sequence[Event], *, done: bool = False) -> None:
        """Write several events at once, and the marker after them if `done`."""
        if self._transport.is_closing():
            return
        if self._noted:
            now_ns = time.time_ns()  # one write, one instant
            for kind, tokens, _ in events:
                self.record.note(now_ns, kind, tokens)
        payloads = [payload for _, _, payload in events]
        if done:
            payloads.append(b"[DONE]")
            self.ends()
        self.raw(b"".join(b"%x\r\ndata: %b\n\n\r\n" % (len(payload) + 8, payload) for payload in payloads))

    def raw(self, data: bytes) -> None:
        """Write bytes as they are; chunk framing is the caller's."""
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def ends(self) -> None:
        """Note this instant as the answer's end, unless it had ended before."""
        if self.record.done_ns is None:
            self.record.done_ns = time.time_ns()

    async def end(self) -> None:
        """End the message as HTTP wants it ended."""
        self.ends()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def whole(
        self, body: bytes, content_type: str, *, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        """An answer in one piece."""
        body = b"" if status in (204, 304) else body
        await self.head(content_type, status=status, length=len(body), headers=headers)
        self.ends()
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def hold(self, stall_s: float) -> None:
        """Say nothing more, until the client has enough or `stall_s` have passed."""
        self.ends()
        await self.connection.lost_before(self.connection.loop.time() + stall_s)
        await self.close()

    async def close(self) -> None:
        """Close the connection in the middle of the message, with FIN."""
        self.ends()
        self._transport.close()
        if not await self.connection.lost_before(self.connection.loop.time() + FLUSH_S):
            self._transport.abort()
            await self.connection.gone.wait()

    async def reset(self) -> None:
        """Close the connection in the middle of the message, with RST."""
        await self.connection.flushed()
        self.ends()
        await self.connection.reset()
