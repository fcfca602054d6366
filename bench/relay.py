"""A relay that adds fields to the JSON body of each request, for clients that cannot; answers pass through untouched."""

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

PIECE = 65_536


@contextmanager
def relay(url: str, added: Mapping[str, Any]) -> Iterator[str]:
    """The URL of a relay to `url`, in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(_serve(url, added), loop).result(10)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


async def _serve(url: str, added: Mapping[str, Any]) -> asyncio.Server:
    to = urlsplit(url)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(to.hostname, to.port)
        back = asyncio.create_task(_copy(answers, writer))
        try:
            await _forward(reader, requests, added)
        finally:
            requests.close()
            await back
            writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        pass  # the client is gone, and so is who would want the answer


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, added: Mapping[str, Any]) -> None:
    """Request after request, until the client closes."""
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        lines = head[:-4].split(b"\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
        body = await reader.readexactly(int(fields.get(b"content-length", 0)))
        if body:
            body = json.dumps({**json.loads(body), **added}).encode()
            lines = [line for line in lines if not line.lower().startswith(b"content-length:")]
            lines.append(b"Content-Length: %d" % len(body))
        writer.write(b"\r\n".join([*lines, b"", b""]) + body)
        await writer.drain()
