"""Answers as the request scripted them, see script.py."""

from collections.abc import Iterator

from msgspec import json

from loadtest.simulator import faults
from loadtest.simulator.connection import Reply
from loadtest.simulator.openai_api import Answer, Call, Event, Json
from loadtest.simulator.script import Beat, Script, beats, last, write_times_ms
from loadtest.types import ChunkKind

Write = tuple[float, list[Event]]
"""When, in ms after the request was read, and what."""


async def play(script: Script, call: Call, answer: Answer, reply: Reply) -> None:
    """Answer a request as it says. Raises ApiError for a scripted status without a body of its own."""
    reply.record.error = script.error
    status = script.plain_status
    if call.stream and status is None:
        await _play_stream(script, call, answer, reply)
        return
    if await _lost_before(reply, script.ttft_ms):
        return
    if status is not None:
        await _play_plain(script, status, reply)
    else:
        await _play_whole(script, call, answer, reply)


async def _lost_before(reply: Reply, at_ms: float) -> bool:
    return await reply.connection.lost_before(reply.read_s + at_ms / 1000)


async def _play_plain(script: Script, status: int, reply: Reply) -> None:
    headers = dict(script.headers)
    if script.retry_after_s is not None:
        headers = faults.retry_after(script.retry_after_s, script.retry_after_form) | headers
    if script.body is None:
        raise faults.status_error(status, headers)
    if isinstance(script.body, dict):
        await reply.whole(json.encode(script.body), faults.JSON, status=status, headers=headers)
        return
    content_type = "text/html; charset=utf-8" if script.body.startswith("<") else "text/plain; charset=utf-8"
    await reply.whole(script.body.encode(), content_type, status=status, headers=headers)


async def _play_whole(script: Script, call: Call, answer: Answer, reply: Reply) -> None:
    chunks = [] if script.error == "empty" else beats(script, call.max_tokens)
    usage = _usage(script, answer, chunks, asked=True)
    body = answer.whole(chunks, script.reason, usage, script.reasoning_field)
    reply.record.output_tokens = _tokens(chunks)
    if script.error is None:
        await reply.whole(body, faults.JSON, headers=script.headers)
    elif not await faults.before_head(reply, script.error, script.form, script.stall_s):
        await faults.in_body(reply, body, script.error, script.form, stall_s=script.stall_s)


async def _play_stream(script: Script, call: Call, answer: Answer, reply: Reply) -> None:
    chunks = beats(script, call.max_tokens)
    if script.error is not None:
        if script.comes_before_head and await _lost_before(reply, script.ttft_ms):
            return
        if await faults.before_head(reply, script.error, script.form, script.stall_s):
            return
        chunks = chunks[: script.chunks_before_error]
    await reply.head(faults.SSE, headers=script.headers)
    times_ms = write_times_ms(script)
    writes = _writes(script, answer, chunks, times_ms)
    for at_ms, events in writes:
        if await _lost_before(reply, at_ms):
            return
        reply.events(events)
    reply.record.output_tokens = _tokens(chunks)
    if script.error is not None:
        await _fail(script, answer, reply, next(times_ms))
        return
    if await _lost_before(reply, writes[-1][0] + script.end_ms if writes else script.ttft_ms):
        return
    reason = None if script.finish_in_last_chunk and chunks else script.reason
    reply.events(
        answer.tail(reason, _tokens(chunks), _usage(script, answer, chunks, asked=call.include_usage)), done=script.done
    )
    await reply.end()


async def _fail(script: Script, answer: Answer, reply: Reply, at_ms: float) -> None:
    """The fault comes when the next write would have been due."""
    if script.error is None or await _lost_before(reply, at_ms):
        return
    gap_s = last(script.gaps_ms) / 1000 or faults.ENDLESS_GAP_S
    await faults.in_stream(reply, answer, script.error, script.form, stall_s=script.stall_s, gap_s=gap_s)


def _writes(script: Script, answer: Answer, chunks: list[Beat], times_ms: Iterator[float]) -> list[Write]:
    """The token chunks, and the role-only one before them, in the writes that carry them."""
    events = _token_events(script, answer, chunks)
    writes: list[Write] = []
    role = answer.role() if script.role_chunk and not script.is_silent else None
    if role is not None:
        event: Event = (ChunkKind.EMPTY, 0, role)
        if script.role_ms is None and script.events_per_write > 1 and events:
            events.insert(0, event)
        else:
            writes.append((script.ttft_ms if script.role_ms is None else script.role_ms, [event]))
    starts = range(0, len(events), script.events_per_write)
    return writes + [(next(times_ms), events[start : start + script.events_per_write]) for start in starts]


def _token_events(script: Script, answer: Answer, chunks: list[Beat]) -> list[Event]:
    events: list[Event] = []
    kinds: set[ChunkKind] = set()
    tokens = 0
    for number, chunk in enumerate(chunks, 1):
        tokens += chunk.tokens
        at_end = script.finish_in_last_chunk and script.error is None and number == len(chunks)
        payload = answer.beat(
            chunk,
            first_of_kind=chunk.kind not in kinds,
            field=script.reasoning_field,
            tokens_so_far=tokens,
            reason=script.reason if at_end else None,
        )
        kinds.add(chunk.kind)
        events.append((chunk.kind if chunk.text else ChunkKind.EMPTY, chunk.tokens, payload))
    return events


def _usage(script: Script, answer: Answer, chunks: list[Beat], *, asked: bool) -> Json | None:
    if isinstance(script.usage, dict):
        return script.usage
    if not (asked if script.usage is None else script.usage):
        return None
    reasoning = [chunk for chunk in chunks if chunk.kind == ChunkKind.REASONING]
    return answer.figures(_tokens(chunks), _tokens(reasoning))


def _tokens(chunks: list[Beat]) -> int:
    return sum(chunk.tokens for chunk in chunks)
