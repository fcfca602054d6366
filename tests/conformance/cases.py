"""What a server may send, and what each of it is to become: the table of the conformance suite.

`sends` is what the server does once it has read the request; bytes are one read of the client each. `at` is, for each
chunk, the read that completes its event, and `done_at` the one that ends the answer: indices of the byte steps.
"""

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import brotli
from backports import zstd
from msgspec import Struct

from loadtest.types import ChunkKind
from tests.conformance.server import Step
from tests.conformance.voices import CHAT, CHUNKED, DONE, HTTP, LAST, Voice, chunked, document, event, head

EMPTY, REASONING, CONTENT, TOOL_CALL, MEDIA, USAGE = map(int, ChunkKind)
HTML = b"<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>"


class Expect(Struct, frozen=True, kw_only=True):
    kinds: Sequence[int] = ()
    sizes: Sequence[int] = ()
    tokens: Sequence[int] = ()
    at: Sequence[int] = ()
    done_at: int | None = None
    status: int | None = 200
    error: str | None = None
    detail: str = ""  # to be found in error_detail
    finish_reason: str = ""
    streamed: bool = True
    input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    token_source: str = "unknown"
    response_id: str = ""
    retry_after_s: float | None = None
    kept: bool = True  # the connection answers the next request


class Case(Struct, frozen=True):
    name: str
    sends: Sequence[Step]
    expect: Expect
    target: dict[str, Any] = {}

    def __str__(self) -> str:
        return self.name


def of(voice: Voice) -> list[Case]:
    if voice == HTTP:
        return [*_messages(voice), *_statuses(voice), *_breaks(voice), *_http_only()]
    cases = [*_streams(voice), *_messages(voice), *_statuses(voice), *_breaks(voice), *_codings(voice)]
    return [*cases, *_deltas(voice), *_documents(voice), *(_chat_only() if voice == CHAT else ())]


# a stream that is sound, in every dress


def sound(**changes: Any) -> Expect:
    """Of `events`: nothing, "Hello", " wörld", the finish, the usage, [DONE], one read each after the head."""
    whole: dict[str, Any] = {
        "kinds": [EMPTY, CONTENT, CONTENT, EMPTY, USAGE],
        "sizes": [0, 5, 7, 0, 0],
        "tokens": [0, 1, 1, 0, 0],
        "at": [1, 2, 3, 4, 5],
        "done_at": 6,
        "finish_reason": "stop",
        "input_tokens": 7,
        "output_tokens": 2,
        "token_source": "usage_matched",
        "response_id": "c-1",
    }
    return Expect(**(whole | changes))


def events(voice: Voice, end: bytes = b"\n") -> list[bytes]:
    said = [voice.nothing(), voice.content("Hello"), voice.content(" wörld"), voice.finish(), voice.usage(7, 2), DONE]
    return [event(data, end) for data in said]


def chunks(bodies: Sequence[bytes]) -> list[bytes]:
    return [CHUNKED, *map(chunked, bodies), LAST]


def said(*data: bytes, done: bool = True) -> list[bytes]:
    return chunks([event(one) for one in data] + [event(DONE)] * done)


def _streams(voice: Voice) -> Iterator[Case]:
    lf = events(voice)
    body = b"".join(lf)
    for name, end in (("LF", b"\n"), ("CRLF", b"\r\n"), ("CR", b"\r")):
        yield Case(f"line ends: {name}", chunks(events(voice, end)), sound())
    mixed = [event(data[6:-2], end) for data, end in zip(lf, [b"\r", b"\n", b"\r\n"] * 2, strict=True)]
    yield Case("line ends: mixed", chunks(mixed), sound())
    yield Case("byte order mark", chunks([b"\xef\xbb\xbf" + lf[0], *lf[1:]]), sound())
    yield Case(
        "byte order mark in three",
        [CHUNKED, chunked(b"\xef"), chunked(b"\xbb"), chunked(b"\xbf" + lf[0]), *map(chunked, lf[1:]), LAST],
        sound(at=[3, 4, 5, 6, 7], done_at=8),
    )
    yield Case(
        "comments and keep-alives",
        chunks([b": hi\n\n" + lf[0], b":\n\n", b": ping\n" + lf[1], *lf[2:], b": bye\n\n"]),
        sound(at=[1, 3, 4, 5, 6], done_at=7),
    )
    yield Case(
        "event, id, retry and unknown fields",
        chunks([b"id: 1\nretry: 5\nevent: message\nfoo: bar\nbar\n" + lf[0], *lf[1:]]),
        sound(),
    )
    yield Case("multi-line data", chunks([b"data: {\ndata: " + lf[0][7:], *lf[1:]]), sound())
    yield Case("data without a space", chunks([data.replace(b"data: ", b"data:", 1) for data in lf]), sound())
    yield Case(
        "data without a value",
        chunks([b"data\n\n", b"data:\n\n", *lf]),
        sound(
            kinds=[EMPTY] * 3 + [CONTENT] * 2 + [EMPTY, USAGE],
            sizes=[0, 0, 0, 5, 7, 0, 0],
            tokens=[0, 0, 0, 1, 1, 0, 0],
            at=[1, 2, 3, 4, 5, 6, 7],
            done_at=8,
        ),
    )
    yield Case("many events in one read", [CHUNKED + chunked(body) + LAST], sound(at=[0] * 5, done_at=0))
    yield Case(
        "head and first events in one read",
        [CHUNKED + chunked(lf[0] + lf[1]), *map(chunked, lf[2:]), LAST],
        sound(at=[0, 0, 1, 2, 3], done_at=4),
    )
    cut = lf[2].index("ö".encode()) + 1
    yield Case(
        "a character cut in two",
        [CHUNKED, *map(chunked, lf[:2]), chunked(lf[2][:cut]), chunked(lf[2][cut:]), *map(chunked, lf[3:]), LAST],
        sound(at=[1, 2, 4, 5, 6], done_at=7),
    )
    yield Case("chunk extensions", [CHUNKED, *(chunked(data, b';a=b;c="d;e"') for data in lf), LAST], sound())
    yield Case(
        "trailers",
        [
            head("Transfer-Encoding: chunked", "Trailer: X-Sum"),
            *map(chunked, lf),
            b"0\r\nX-Sum: 1\r\nContent-Encoding: br\r\n\r\n",
        ],
        sound(),
    )
    yield Case(
        "chunk sizes with zeros and capitals",
        [CHUNKED, *(b"000%X\r\n%s\r\n" % (len(data), data) for data in lf), b"000\r\n\r\n"],
        sound(),
    )
    yield Case("Content-Length", [head(f"Content-Length: {len(body)}"), *lf], sound())
    yield Case("until closed", [head("Connection: close"), *lf, "close"], sound(kept=False))
    yield Case("until closed, unannounced", [head(), *lf, "close"], sound(kept=False))
    yield Case("HTTP/1.0", [head(version="HTTP/1.0"), *lf, "close"], sound(kept=False))
    yield Case(
        "HTTP/1.0 kept alive",
        [head(f"Content-Length: {len(body)}", "Connection: keep-alive", version="HTTP/1.0"), *lf],
        sound(),
    )
    yield Case("100-continue", [b"HTTP/1.1 100 Continue\r\n\r\n", *chunks(lf)], sound(at=[2, 3, 4, 5, 6], done_at=7))
    yield Case(
        "103 early hints, in one read",
        [b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nRetry-After: 9\r\n\r\n" + CHUNKED, *map(chunked, lf), LAST],
        sound(),
    )
    yield Case("goes on after [DONE]", chunks([*lf, event(voice.content("late"))]), sound())
    yield Case("silent after [DONE]", [CHUNKED, *map(chunked, lf), "await close"], sound(kept=False))
    yield Case("closed after [DONE]", [CHUNKED, *map(chunked, lf), "close"], sound(kept=False))
    yield Case("reset after [DONE]", [CHUNKED, *map(chunked, lf), "reset"], sound(kept=False))
    yield Case("half-closed after the answer", [*chunks(lf), "half-close", "await close"], sound(kept=False))
    yield Case(
        "Connection: close",
        [head("Transfer-Encoding: chunked", "Connection: close"), *map(chunked, lf), LAST],
        sound(kept=False),
    )
    yield Case("more than the answer", [*chunks(lf)[:-1], LAST + b"HTTP/1.1 200 OK\r\n\r\n"], sound(kept=False))
    yield Case("no [DONE], but a finish reason", chunks(lf[:-1]), sound(done_at=6))
    yield Case(
        "no [DONE], and closed in mid-message",
        [CHUNKED, *map(chunked, lf[:-1]), "close"],
        sound(done_at=None, kept=False),
    )
    yield Case("[DONE] without its blank line", chunks([*lf[:-1], b"data: [DONE]\n"]), sound(done_at=7))
    yield Case("no type", [head("Transfer-Encoding: chunked", kind=""), *map(chunked, lf), LAST], sound())
    yield Case(
        "a type with parameters",
        [head("Transfer-Encoding: chunked", kind="text/event-stream; charset=utf-8"), *map(chunked, lf), LAST],
        sound(),
    )


def _codings(voice: Voice) -> Iterator[Case]:
    lf = events(voice)
    for name, coded in (
        ("gzip", _gzip(lf)),
        ("x-gzip", _gzip(lf)),
        ("deflate", _deflate(lf, zlib.MAX_WBITS)),
        ("br", _br(lf)),
        ("zstd", _zstd(lf)),
    ):
        yield Case(
            f"coded as {name}",
            [head("Transfer-Encoding: chunked", f"Content-Encoding: {name}"), *map(chunked, coded), LAST],
            sound(),
        )
    raw = _deflate(lf, -zlib.MAX_WBITS)
    yield Case(
        "deflate without its wrapper",
        [head("Transfer-Encoding: chunked", "Content-Encoding: deflate"), *map(chunked, raw), LAST],
        sound(),
    )
    yield Case(
        "coded twice",
        [head("Transfer-Encoding: chunked", "Content-Encoding: gzip, BR"), *map(chunked, _br(_gzip(lf))), LAST],
        sound(),
    )
    members = [gzip.compress(data) for data in lf]
    yield Case(
        "a gzip member an event",
        [head("Transfer-Encoding: chunked", "Content-Encoding: gzip"), *map(chunked, members), LAST],
        sound(),
    )
    frames = [zstd.compress(data) for data in lf]
    yield Case(
        "a zstd frame an event",
        [head("Transfer-Encoding: chunked", "Content-Encoding: zstd"), *map(chunked, frames), LAST],
        sound(),
    )
    yield Case(
        "coded as identity",
        [head("Transfer-Encoding: chunked", "Content-Encoding: identity"), *map(chunked, lf), LAST],
        sound(),
    )
    yield Case(
        "an unknown coding",
        [head("Transfer-Encoding: chunked", "Content-Encoding: snappy"), *map(chunked, lf), LAST],
        Expect(error="malformed", detail="coded as snappy, which was not asked for"),
    )
    yield Case(
        "not what the coding says",
        [head("Transfer-Encoding: chunked", "Content-Encoding: gzip"), *map(chunked, lf), LAST],
        Expect(error="malformed", detail="gzip coding is broken"),
    )
    for name, bomb in (
        ("gzip", gzip.compress(bytes(5 << 20)) * 13),
        ("br", _brotli_bomb()),
        ("zstd", zstd.compress(bytes(65 << 20))),
    ):
        yield Case(
            f"a {name} bomb",
            [head(f"Content-Length: {len(bomb)}", f"Content-Encoding: {name}") + bomb],
            Expect(error="malformed", detail=f"{name} coding holds more than 64 MiB"),
        )


def _gzip(pieces: Sequence[bytes]) -> list[bytes]:
    return _deflate(pieces, zlib.MAX_WBITS | 16)


def _deflate(pieces: Sequence[bytes], window_bits: int) -> list[bytes]:
    deflater = zlib.compressobj(wbits=window_bits)
    coded = [deflater.compress(piece) + deflater.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]
    return [*coded[:-1], coded[-1] + deflater.flush()]


def _br(pieces: Sequence[bytes]) -> list[bytes]:
    compressor = brotli.Compressor()
    coded = [compressor.process(piece) + compressor.flush() for piece in pieces]
    return [*coded[:-1], coded[-1] + compressor.finish()]


def _zstd(pieces: Sequence[bytes]) -> list[bytes]:
    compressor = zstd.ZstdCompressor()
    coded = [compressor.compress(piece, zstd.ZstdCompressor.FLUSH_BLOCK) for piece in pieces]
    return [*coded[:-1], coded[-1] + compressor.flush()]


@cache
def _brotli_bomb() -> bytes:
    return brotli.compress(bytes(65 << 20), quality=1)


# what events carry


def _deltas(voice: Voice) -> Iterator[Case]:
    hello, stop = voice.content("Hello"), voice.finish()
    spoken = {"finish_reason": "stop", "response_id": "c-1"}
    yield Case(
        "many tokens in one chunk",
        said(voice.content("one two three"), stop, voice.usage(7, 3)),
        Expect(
            kinds=[CONTENT, EMPTY, USAGE],
            sizes=[13, 0, 0],
            at=[1, 2, 3],
            done_at=4,
            input_tokens=7,
            output_tokens=3,
            token_source="usage",
            **spoken,
        ),
    )
    yield Case(
        "no usage",
        said(hello, stop),
        Expect(kinds=[CONTENT, EMPTY], sizes=[5, 0], at=[1, 2], done_at=3, **spoken),
    )
    yield Case(
        "usage with the last chunk",
        said(
            hello,
            voice.delta({}, text="", finish_reason="stop")[:-1]
            + b', "usage": {"prompt_tokens": 7, "completion_tokens": 1}}',
        ),
        Expect(
            kinds=[CONTENT, USAGE],
            sizes=[5, 0],
            tokens=[1, 0],
            at=[1, 2],
            done_at=3,
            input_tokens=7,
            output_tokens=1,
            token_source="usage_matched",
            **spoken,
        ),
    )
    yield Case(
        "details of the usage",
        said(
            hello,
            stop,
            voice.usage(
                7, 1, prompt_tokens_details={"cached_tokens": 4}, completion_tokens_details={"reasoning_tokens": 0}
            ),
        ),
        Expect(
            kinds=[CONTENT, EMPTY, USAGE],
            sizes=[5, 0, 0],
            tokens=[1, 0, 0],
            at=[1, 2, 3],
            done_at=4,
            input_tokens=7,
            output_tokens=1,
            cached_tokens=4,
            reasoning_tokens=0,
            token_source="usage_matched",
            **spoken,
        ),
    )
    yield Case(
        "usage of other types",
        said(hello, stop, voice.usage(-7, 1.5, prompt_tokens_details=[])),  # type: ignore[arg-type]
        Expect(kinds=[CONTENT, EMPTY, USAGE], sizes=[5, 0, 0], at=[1, 2, 3], done_at=4, **spoken),
    )
    large = voice.content("x" * (1 << 20))
    yield Case(
        "a chunk of 1 MB",
        said(hello, large, stop),
        Expect(kinds=[CONTENT, CONTENT, EMPTY], sizes=[5, 1 << 20, 0], at=[1, 2, 3], done_at=4, **spoken),
    )
    flood = b"data: " + b"x" * (12 << 20)
    yield Case(
        "an event without end",
        [CHUNKED, chunked(event(hello)), chunked(flood), "await close"],
        Expect(
            kinds=[CONTENT],
            sizes=[5],
            at=[1],
            error="malformed",
            detail="an event of more than 8 MiB",
            response_id="c-1",
            kept=False,
        ),
    )
    yield Case(
        "many events of 1 MB",
        said(*[large] * 12, stop),
        Expect(kinds=[*[CONTENT] * 12, EMPTY], sizes=[*[1 << 20] * 12, 0], at=list(range(1, 14)), done_at=14, **spoken),
    )
    yield Case(
        "an error instead of a chunk",
        said(hello, b'{"error": {"message": "out of memory", "code": 500}}', done=False),
        Expect(
            kinds=[CONTENT],
            sizes=[5],
            at=[1],
            done_at=3,
            error="error_event",
            detail="out of memory",
            response_id="c-1",
        ),
    )
    yield Case(
        "an error, then [DONE]",
        said(hello, b'{"error": "no"}'),
        Expect(kinds=[CONTENT], sizes=[5], at=[1], done_at=3, error="error_event", detail='"no"', response_id="c-1"),
    )
    yield Case(
        "an event named error",
        chunks([event(hello), event(b"overloaded", name=b"error")]),
        Expect(
            kinds=[CONTENT], sizes=[5], at=[1], done_at=3, error="error_event", detail="overloaded", response_id="c-1"
        ),
    )
    yield Case(
        "an error object without its envelope",
        said(b'{"object": "error", "message": "no such model", "code": 404}'),
        Expect(done_at=2, error="error_event", detail="no such model"),
    )
    yield Case(
        "an error, then the connection is reset",
        [CHUNKED, chunked(event(b'{"error": "no"}')), "reset"],
        Expect(error="error_event", detail='"no"', kept=False),
    )
    yield Case(
        "an event that is not JSON",
        said(hello, b'{"choices": [', stop),
        Expect(
            kinds=[CONTENT, EMPTY], sizes=[5, 0], at=[1, 3], done_at=4, error="malformed", detail="not JSON", **spoken
        ),
    )
    yield Case(
        "an event that is not UTF-8",
        said(hello, b'{"choices": "\xff\xfe"}', stop),
        Expect(
            kinds=[CONTENT, EMPTY], sizes=[5, 0], at=[1, 3], done_at=4, error="malformed", detail="not JSON", **spoken
        ),
    )
    for odd in (
        b"[]",
        b"3",
        b'"text"',
        b"null",
        b"{}",
        b'{"choices": null}',
        b'{"choices": [null]}',
        b'{"choices": [{"delta": null}]}',
        b'{"choices": [{"delta": {"content": 3}, "text": 3}]}',
        b'{"choices": {"0": {}}}',
        b'{"choices": [{"delta": []}]}',
    ):
        yield Case(
            f"odd JSON: {odd.decode()}",
            said(odd, hello, stop),
            Expect(kinds=[EMPTY, CONTENT, EMPTY], sizes=[0, 5, 0], at=[1, 2, 3], done_at=4, **spoken),
        )
    yield Case(
        "deep JSON",
        said(b"[" * 100_000, hello, stop),
        Expect(
            kinds=[CONTENT, EMPTY], sizes=[5, 0], at=[2, 3], done_at=4, error="malformed", detail="not JSON", **spoken
        ),
    )
    yield Case(
        "two choices in one chunk",
        said(_two_choices(voice), stop),
        Expect(kinds=[CONTENT, EMPTY], sizes=[7, 0], at=[1, 2], done_at=3, finish_reason="stop", response_id="c-1"),
    )
    yield Case("nothing but [DONE]", said(), Expect(done_at=1, error="empty"))
    yield Case(
        "nothing but usage",
        said(voice.usage(7, 0)),
        Expect(
            kinds=[USAGE],
            sizes=[0],
            tokens=[0],
            at=[1],
            done_at=2,
            error="empty",
            input_tokens=7,
            output_tokens=0,
            token_source="usage_matched",
            response_id="c-1",
        ),
    )
    yield Case("an empty stream", [CHUNKED, LAST], Expect(done_at=1, error="truncated", detail="without [DONE]"))
    yield Case(
        "neither [DONE] nor a finish reason",
        said(hello, done=False),
        Expect(kinds=[CONTENT], sizes=[5], at=[1], done_at=2, error="truncated", response_id="c-1"),
    )
    yield Case(
        "text that is no stream of events",
        [CHUNKED, chunked(b"Hello, world\n\n" * 9), LAST],
        Expect(done_at=2, error="truncated"),
    )


def _two_choices(voice: Voice) -> bytes:
    def choice(index: int, text: str) -> dict[str, Any]:
        return {"index": index, "text": text} if voice != CHAT else {"index": index, "delta": {"content": text}}

    return voice.chunk(choices=[choice(0, "one"), choice(1, "four")])


def _chat_only() -> Iterator[Case]:
    hello, stop = CHAT.content("Hello"), CHAT.finish()
    call = [{"index": 0, "id": "1", "function": {"name": "f", "arguments": ""}}]
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hmm"}]}]
    text_parts = [{"type": "text", "text": "Hi"}]
    for name, delta, kind, size in (
        ("role only", {"role": "assistant"}, EMPTY, 0),
        ("an empty delta", {}, EMPTY, 0),
        ("null content", {"content": None}, EMPTY, 0),
        ("reasoning", {"reasoning": "Hmm"}, REASONING, 3),
        ("reasoning_content", {"reasoning_content": "Hmmm", "content": None}, REASONING, 4),
        ("reasoning and empty content", {"reasoning_content": "Hm", "content": ""}, REASONING, 2),
        ("thinking in content parts", {"content": parts}, REASONING, 3),
        ("text in content parts", {"content": text_parts}, CONTENT, 2),
        ("a refusal", {"refusal": "No."}, CONTENT, 3),
        ("a tool call", {"tool_calls": call}, TOOL_CALL, len(json.dumps(call[0]))),
        ("audio", {"audio": {"data": "AAAA"}}, MEDIA, 6),
        ("characters outside ASCII", {"content": "日本"}, CONTENT, 6),
    ):
        yield Case(
            f"delta: {name}",
            said(CHAT.delta(delta), hello, stop),
            Expect(
                kinds=[kind, CONTENT, EMPTY],
                sizes=[size, 5, 0],
                at=[1, 2, 3],
                done_at=4,
                finish_reason="stop",
                response_id="c-1",
            ),
        )
    yield Case(
        "reasoning that was counted but not sent",
        said(hello, stop, CHAT.usage(7, 41, completion_tokens_details={"reasoning_tokens": 40})),
        Expect(
            kinds=[CONTENT, EMPTY, USAGE],
            sizes=[5, 0, 0],
            tokens=[1, 0, 0],
            at=[1, 2, 3],
            done_at=4,
            finish_reason="stop",
            input_tokens=7,
            output_tokens=41,
            reasoning_tokens=40,
            token_source="usage_matched",
            response_id="c-1",
        ),
    )
    yield Case(
        "a tool call in several chunks",
        said(*(CHAT.delta({"tool_calls": call}) for _ in range(3)), CHAT.finish("tool_calls")),
        Expect(
            kinds=[TOOL_CALL] * 3 + [EMPTY],
            sizes=[len(json.dumps(call[0]))] * 3 + [0],
            at=[1, 2, 3, 4],
            done_at=5,
            finish_reason="tool_calls",
            response_id="c-1",
        ),
    )


def _documents(voice: Voice) -> Iterator[Case]:
    """Answers in one piece: asked for, or instead of a stream."""
    body = voice.whole("Hello, world")
    answered = Expect(
        kinds=[CONTENT],
        sizes=[12],
        tokens=[2],
        at=[0],
        done_at=0,
        finish_reason="stop",
        streamed=False,
        input_tokens=7,
        output_tokens=2,
        token_source="usage",
        response_id="c-1",
    )
    asked = {"stream": False}
    yield Case("one document", [document(body)], answered, asked)
    yield Case("one document where a stream was asked for", [document(body)], answered)
    yield Case("one document without a type", [document(body, kind="")], answered)
    yield Case("one document as text", [document(body, kind="text/plain")], answered)
    coded = gzip.compress(body)
    yield Case(
        "one document, coded",
        [head(f"Content-Length: {len(coded)}", "Content-Encoding: gzip", kind="application/json") + coded],
        answered,
        asked,
    )
    yield Case(
        "an error with status 200",
        [document(b'{"error": {"message": "no"}}')],
        Expect(done_at=0, error="error_event", detail='"no"', streamed=False),
    )
    yield Case(
        "a document without content",
        [document(voice.whole("", (7, 0)))],
        Expect(
            kinds=[USAGE],
            sizes=[0],
            tokens=[0],
            at=[0],
            done_at=0,
            error="empty",
            finish_reason="stop",
            streamed=False,
            input_tokens=7,
            output_tokens=0,
            token_source="usage",
            response_id="c-1",
        ),
    )
    yield Case(
        "half a document",
        [document(body[:20])],
        Expect(done_at=0, error="malformed", detail="not JSON", streamed=False),
        asked,
    )
    yield Case(
        "an empty document",
        [document(b"")],
        Expect(kinds=[EMPTY], sizes=[0], at=[0], done_at=0, error="empty", streamed=False),
        asked,
    )
    for name, rest in (("bytes that are no text", b'"\xff"'), ("nothing but depth", b"[" * 100_000)):
        yield Case(
            f"a document of odd types and {name}",
            [document(b'{"choices": 3, "x": ' + rest + b"}")],
            Expect(done_at=0, error="malformed", detail="not JSON", streamed=False),
        )
    yield Case(
        "HTML with status 200",
        [document(HTML, kind="text/html")],
        Expect(done_at=0, error="malformed", detail="not JSON", streamed=False),
    )
    yield Case(
        "HTML with status 200 and no type",
        [document(HTML, kind="")],
        Expect(done_at=0, error="malformed", streamed=False),
    )


# messages and statuses, of any dialect


def _answered(voice: Voice, **changes: Any) -> Expect:
    """Of `voice.whole("Hello, world")` in one read, where one document was asked for."""
    facts: dict[str, Any] = {"done_at": 0, "streamed": False}
    if voice != HTTP:
        facts |= {
            "kinds": [CONTENT],
            "sizes": [12],
            "tokens": [2],
            "at": [0],
            "finish_reason": "stop",
            "input_tokens": 7,
            "output_tokens": 2,
            "token_source": "usage",
            "response_id": "c-1",
        }
    facts |= changes
    if voice != HTTP:
        facts["at"] = [facts["done_at"]]
    return Expect(**facts)


def _messages(voice: Voice) -> Iterator[Case]:
    body = voice.whole("Hello, world")
    asked: dict[str, Any] = {} if voice == HTTP else {"stream": False}
    answer = document(body)
    yield Case("message: Content-Length", [answer], _answered(voice), asked)
    yield Case(
        "message: chunked", [CHUNKED, chunked(body[:9]), chunked(body[9:]), LAST], _answered(voice, done_at=3), asked
    )
    yield Case("message: until closed", [head() + body, "close"], _answered(voice, kept=False), asked)
    yield Case("message: an empty reason", [answer.replace(b"200 OK", b"200 ")], _answered(voice), asked)
    yield Case("message: no reason", [answer.replace(b"200 OK", b"200")], _answered(voice), asked)
    yield Case(
        "message: a header twice, another empty",
        [answer.replace(b"\r\n\r\n", b"\r\nX-A: 1\r\nX-A: 2\r\nX-B:\r\n\r\n", 1)],
        _answered(voice),
        asked,
    )
    yield Case(
        "message: 5 interim answers",
        [b"HTTP/1.1 102 Processing\r\n\r\n" * 5, answer],
        _answered(voice, done_at=1),
        asked,
    )
    broken: dict[str, Any] = {"error": "malformed", "streamed": False, "kept": False, "done_at": None}
    for name, sends, status in (
        ("not HTTP", b"SSH-2.0-OpenSSH_9.6\r\n", None),
        ("HTTP/2", b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80\0\x04\0\x01\0\0\0\x05\0\xff\xff\xff", None),
        ("HTTP/3.7", b"HTTP/3.7 200 OK\r\n\r\n", None),
        ("a status that is none", b"HTTP/1.1 2x0 OK\r\n\r\n", None),
        ("two different lengths", head("Content-Length: 5", "Content-Length: 6") + b"hello", None),
        ("a length below 0", head("Content-Length: -5") + b"hello", None),
        ("a length beyond all bounds", head("Content-Length: 99999999999999999999999") + b"hello", None),
        ("a chunk size that is none", CHUNKED + b"zz\r\nhello\r\n", 200),
        ("a chunk longer than its size", CHUNKED + b"2\r\nhello\r\n0\r\n\r\n", 200),
        ("a header without a colon", b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", None),
        ("a NUL in a header", b"HTTP/1.1 200 OK\r\nX: \0\r\n\r\n", None),
        (
            "101 Switching Protocols",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
            None,
        ),
    ):
        yield Case(f"message: {name}", [sends, "await close"], Expect(**broken, status=status), asked)
    flood = b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * (3 << 20)
    yield Case(
        "message: headers without end",
        [flood, "await close"],
        Expect(**broken, status=None, detail="headers of more than"),
        asked,
    )


def _statuses(voice: Voice) -> Iterator[Case]:
    refusal = b'{"error": {"message": "slow down"}}'
    for status, word in (
        ("400 Bad Request", "http_4xx"),
        ("401 Unauthorized", "http_4xx"),
        ("404 Not Found", "http_4xx"),
        ("429 Too Many Requests", "rate_limited"),
        ("500 Internal Server Error", "http_5xx"),
        ("502 Bad Gateway", "http_5xx"),
        ("503 Service Unavailable", "overloaded"),
        ("529 Overloaded", "overloaded"),
        ("201 Created", "malformed"),
        ("300 Multiple Choices", "redirect"),
        ("599 ?", "http_5xx"),
    ):
        code = int(status[:3])
        streamed = voice != HTTP
        yield Case(
            f"status {code}",
            [document(refusal, status=status)],
            Expect(status=code, error=word, detail=f"HTTP {code}", done_at=0, streamed=streamed),
        )
    streamed = voice != HTTP
    for status in (
        "301 Moved Permanently",
        "302 Found",
        "303 See Other",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ):
        yield Case(
            f"status {status}",
            [document(b"", "Location: https://elsewhere.example/v1", status=status)],
            Expect(
                status=int(status[:3]),
                error="redirect",
                detail="to https://elsewhere.example/v1",
                done_at=0,
                streamed=streamed,
            ),
        )
    for status, word in (("429 Too Many Requests", "rate_limited"), ("503 Service Unavailable", "overloaded")):
        for after, seconds in (
            ("7", 7.0),
            ("0", 0.0),
            ("1.5", 1.5),
            ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
            ("soon", None),
            ("-3", None),
        ):
            yield Case(
                f"status {status[:3]} with Retry-After: {after}",
                [document(refusal, f"Retry-After: {after}", status=status)],
                Expect(
                    status=int(status[:3]),
                    error=word,
                    detail="slow down",
                    retry_after_s=seconds,
                    done_at=0,
                    streamed=streamed,
                ),
            )
    yield Case(
        "an HTML error page",
        [document(HTML, status="502 Bad Gateway", kind="text/html")],
        Expect(status=502, error="http_5xx", detail="502 Bad Gateway", done_at=0, streamed=streamed),
    )
    coded = gzip.compress(HTML)
    yield Case(
        "an HTML error page, coded",
        [head(f"Content-Length: {len(coded)}", "Content-Encoding: gzip", status="502 Bad Gateway") + coded],
        Expect(status=502, error="http_5xx", detail="502 Bad Gateway", done_at=0, streamed=streamed),
    )
    yield Case(
        "an error that ends with the connection",
        [head(status="503 Service Unavailable") + HTML, "close"],
        Expect(status=503, error="overloaded", done_at=None, kept=False, streamed=streamed),
    )
    yield Case(
        "an error cut in its body",
        [head("Content-Length: 900", status="429 Too Many Requests") + b"slow", "reset"],
        Expect(status=429, error="rate_limited", done_at=None, kept=False, streamed=streamed),
    )
    yield Case(
        "204 No Content",
        [head(status="204 No Content", kind="")],
        Expect(status=204, error="malformed", done_at=0, streamed=streamed),
    )


def _breaks(voice: Voice) -> Iterator[Case]:
    """The connection, or patience, ends at each phase."""
    streamed = voice != HTTP
    lost: dict[str, Any] = {"kept": False, "streamed": streamed}
    partial = Expect(kinds=[CONTENT], sizes=[5], at=[1], response_id="c-1", kept=False) if streamed else None
    opening = [CHUNKED, chunked(event(voice.content("Hello")))]
    phases = (
        ("before the answer", [], None),
        ("in the headers", [CHUNKED[:30]], None),
        ("after the headers", [CHUNKED], 200),
    )
    for phase, sends, status in phases:
        yield Case(f"closed {phase}", [*sends, "close"], Expect(**lost, status=status, error="truncated"))
        yield Case(
            f"half-closed {phase}",
            [*sends, "half-close", "await close"],
            Expect(**lost, status=status, error="truncated"),
        )
        yield Case(f"reset {phase}", [*sends, "reset"], Expect(**lost, status=status, error="reset"))
        word = "timeout_idle" if sends else "timeout_first_byte"
        yield Case(f"stalled {phase}", [*sends, "await close"], Expect(**lost, status=status, error=word), _impatient())
    if partial is not None:
        for name, end, word in (
            ("closed", "close", "truncated"),
            ("reset", "reset", "reset"),
            ("half-closed", "half-close", "truncated"),
        ):
            yield Case(f"{name} in the stream", [*opening, end], _with(partial, error=word))  # type: ignore[list-item]
        yield Case(
            "stalled in the stream", [*opening, "await close"], _with(partial, error="timeout_idle"), _impatient()
        )
        yield Case(
            "stalled in an event",
            [*opening, chunked(b"data: {"), "await close"],
            _with(partial, error="timeout_idle"),
            _impatient(),
        )
        yield Case(
            "stalled in a character",
            [*opening, chunked(b'data: {"a": "\xc3'), "await close"],
            _with(partial, error="timeout_idle"),
            _impatient(),
        )
        dripping: list[Step] = [step for _ in range(20) for step in (chunked(b": still here\n\n"), "pause")]  # type: ignore[misc]
        yield Case(
            "never done",
            [*opening, *dripping, "await close"],
            _with(partial, error="timeout_total"),
            {"timeouts": {"total_s": 0.25}},
        )
    else:
        yield Case(
            "closed in the body", [head("Content-Length: 100") + b"half", "close"], Expect(**lost, error="truncated")
        )
        yield Case("reset in the body", [head("Content-Length: 100") + b"half", "reset"], Expect(**lost, error="reset"))
        yield Case(
            "stalled in the body",
            [head("Content-Length: 100") + b"half", "await close"],
            Expect(**lost, error="timeout_idle"),
            _impatient(),
        )


def _impatient() -> dict[str, Any]:
    return {"timeouts": {"first_byte_s": 0.25, "idle_s": 0.25}}


def _with(expect: Expect, **changes: Any) -> Expect:
    return Expect(**({name: getattr(expect, name) for name in expect.__struct_fields__} | changes))


def _http_only() -> Iterator[Case]:
    body = b"not\0JSON"
    answered = Expect(done_at=0, streamed=False)
    yield Case("HEAD", [head("Content-Length: 1000000", kind="application/json")], answered, {"method": "HEAD"})
    yield Case("HEAD of a chunked answer", [CHUNKED], answered, {"method": "HEAD"})
    yield Case(
        "HEAD with a body all the same",
        [document(body)],
        Expect(done_at=0, streamed=False, kept=False),
        {"method": "HEAD"},
    )
    yield Case("GET", [document(body)], answered, {"method": "GET"})
    yield Case(
        "204 as expected", [head(status="204 No Content", kind="")], _with(answered, status=204), {"expect_status": 204}
    )
    yield Case(
        "304 as expected",
        [head("Content-Length: 9", status="304 Not Modified", kind="")],
        _with(answered, status=304),
        {"expect_status": 304},
    )
    yield Case(
        "404 as expected", [document(body, status="404 Not Found")], _with(answered, status=404), {"expect_status": 404}
    )
    yield Case("an empty answer", [document(b"")], answered)
