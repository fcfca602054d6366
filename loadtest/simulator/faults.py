"""How each fault looks on the wire. What came before it, if anything, was sound."""

import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Literal

from loadtest.simulator.connection import Reply
from loadtest.simulator.openai_api import Answer, ApiError, error_body
from loadtest.types import ChunkKind

JSON = "application/json"
SSE = "text/event-stream; charset=utf-8"
ENDLESS_GAP_S = 0.02
NOT_HTTP = b"HTTQ/9 two hundred\r\n\r\n"
NOT_JSON = b'{"id":"chatcmpl-0","choices":[{"index":0,"delta":'
NOT_UTF8 = b'{"id":"chatcmpl-0","choices":[{"index":0,"delta":{"content":"\xff\xfe"},"finish_reason":null}]}'
ERROR = error_body("The engine stopped while it generated", "server_error", code="engine_error")


def retry_after(seconds: int, form: Literal["seconds", "date"] = "seconds") -> dict[str, str]:
    """The header, in either form that HTTP has for it."""
    value = str(seconds) if form == "seconds" else formatdate(time.time() + seconds, usegmt=True)
    return {"retry-after": value}


def status_error(status: int, headers: dict[str, str] | None = None) -> ApiError:
    """What a server that answers `status` says, in OpenAI's words."""
    if 300 <= status < 400:
        headers = {"location": "/elsewhere", **(headers or {})}
        return ApiError(status, "The resource has moved", kind="redirect", headers=headers)
    if status == 429:
        return ApiError(status, "Rate limit reached", kind="requests", code="rate_limit_exceeded", headers=headers)
    if status in (503, 529):
        return ApiError(status, "The engine is overloaded", kind="server_error", code="overloaded", headers=headers)
    if status >= 500:
        return ApiError(status, "The server had an error", kind="server_error", headers=headers)
    return ApiError(status, f"The request was refused with {status}", headers=headers)


async def before_head(reply: Reply, word: str, form: str, stall_s: float) -> bool:
    """Act out a fault that comes before the answer's head; False: this one comes later."""
    if word == "timeout_first_byte":
        await reply.hold(stall_s)
    elif word == "reset" and form == "before_headers":
        await reply.reset()
    elif word == "malformed" and form == "http":
        reply.raw(NOT_HTTP)
        await reply.close()
    else:
        return False
    return True


async def in_stream(reply: Reply, answer: Answer, word: str, form: str, *, stall_s: float, gap_s: float) -> None:
    """Act out a fault in a stream; the head was sent, and perhaps some tokens."""
    match word, form:
        case "truncated", "clean":
            await reply.end()
        case "truncated", _:
            await reply.close()
        case "reset", _:
            await reply.reset()
        case "timeout_idle", _:
            await reply.hold(stall_s)
        case "timeout_total", _:
            await _endless_stream(reply, answer, stall_s, gap_s)
        case "malformed", "chunk":
            reply.raw(b"zz\r\ndata: {}\n\n\r\n")
            await reply.close()
        case _:
            _write_faulty_events(reply, answer, word, form)
            await reply.end()


def _write_faulty_events(reply: Reply, answer: Answer, word: str, form: str) -> None:
    """Faults that a careless client takes for a sound end: the marker comes all the same."""
    match word, form:
        case "malformed", "json":
            reply.events([(ChunkKind.EMPTY, 0, NOT_JSON)], done=True)
        case "malformed", _:
            reply.events([(ChunkKind.EMPTY, 0, NOT_UTF8)], done=True)
        case "error_event", "event":
            data = b"event: error\ndata: %b\n\n" % ERROR
            reply.raw(b"%x\r\n%b\r\n" % (len(data), data))
        case "error_event", _:
            reply.events([(ChunkKind.EMPTY, 0, ERROR)], done=True)
        case "empty", "events":
            reply.events(answer.tail("stop", 0, answer.asked_usage(0)), done=True)
        case "empty", "done":
            reply.events([], done=True)


async def _endless_stream(reply: Reply, answer: Answer, stall_s: float, gap_s: float) -> None:
    await _endless(reply, lambda n: reply.event(ChunkKind.CONTENT, 1, answer.content(b'" on"', n)), stall_s, gap_s)


async def _endless(reply: Reply, write: Callable[[int], None], stall_s: float, gap_s: float) -> None:
    """Call `write` every `gap_s` until the client has enough or `stall_s` have passed."""
    start_s = reply.connection.loop.time()
    for number in range(1, int(stall_s / gap_s) + 1):
        if await reply.connection.lost_before(start_s + number * gap_s):
            break
        if not reply.connection.flow.write_paused:
            write(number)
    await reply.close()


async def in_body(reply: Reply, body: bytes, word: str, form: str, *, stall_s: float) -> None:
    """Act out a fault in an answer that is not streamed; `body` is what a sound one would have been."""
    half = body[: len(body) // 2]
    match word, form:
        case "empty", "body":
            await reply.whole(b"", JSON)
        case "empty", _:
            await reply.whole(body, JSON)  # made without tokens
        case "error_event", _:
            await reply.whole(ERROR, JSON)
        case "malformed", "utf8":
            await reply.whole(NOT_UTF8, JSON)
        case "malformed", "json":
            await reply.whole(half, JSON)
        case "malformed", _:
            await reply.head(JSON)
            reply.raw(b"zz\r\n%b\r\n" % half)
            await reply.close()
        case "timeout_total", _:
            await reply.head(JSON)
            await _endless(reply, lambda _: reply.raw(b"1\r\n \r\n"), stall_s, ENDLESS_GAP_S)
        case _:
            await reply.head(JSON, length=len(body))
            await _in_mid_body(reply, half, word, form, stall_s)


async def _in_mid_body(reply: Reply, half: bytes, word: str, form: str, stall_s: float) -> None:
    if (word, form) != ("reset", "after_headers"):
        reply.raw(half)
    if word == "reset":
        await reply.reset()
    elif word == "timeout_idle":
        await reply.hold(stall_s)
    else:  # truncated
        await reply.close()
