"""What the OpenAI dialects share: the request's form, and how chunks and bodies are read.

Decoding is typed for speed (msgspec skips what is not declared) and forgiving by retreat: a chunk whose fields have
other types than usual is read again as plain JSON, of which only what makes sense is taken. Only text that is not JSON
at all is `malformed`. Chat and completions differ in where the text lies (`delta.content`, `message.content`, `text`),
so one set of structs reads both.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from loadtest import sse
from loadtest.dialects import Decoded, Head, headers
from loadtest.types import ChunkKind, Target

TERMINAL = b"[DONE]"
WITH_USAGE = {"include_usage": True}
WITH_RUNNING_USAGE = {**WITH_USAGE, "continuous_usage_stats": True}
EMPTY, REASONING, CONTENT, TOOL_CALL, MEDIA, USAGE = map(int, ChunkKind)

Count = Annotated[int, Meta(ge=0, lt=2**32)]


class _CompletionDetails(Struct):
    reasoning_tokens: Count | None = None


class _PromptDetails(Struct):
    cached_tokens: Count | None = None


class _Usage(Struct):
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    completion_tokens_details: _CompletionDetails | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Said(Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[msgspec.Raw] | None = None
    audio: dict[str, msgspec.Raw] | None = None


class _Choice(Struct):
    index: int | None = None
    delta: _Said | None = None
    message: _Said | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Chunk(Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


class _Function(Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(Struct):
    function: _Function | None = None


class _First(_Chunk):
    """A chunk read for what is the same in all of them as well."""

    id: str | None = None
    model: str | None = None


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are not the JSON hoped for."""

_decode = msgspec.json.Decoder(_Chunk).decode
_decode_first = msgspec.json.Decoder(_First).decode
_decode_tool_call = msgspec.json.Decoder(_ToolCall).decode
_encode = msgspec.json.Encoder().encode


def check(target: Target, path: str) -> list[str]:
    problems = []
    if urlsplit(target.url).path.rstrip("/").endswith(path):
        problems.append(f"url ends in {path}, which the dialect {target.dialect} adds itself; leave it out")
    problems += [
        f"body.{name} cannot be set: `stream:` of the target decides it"
        for name in ("stream", "stream_options")
        if name in target.body
    ]
    return problems


def head(target: Target, path: str, key: str | None) -> Head:
    defaults = {
        "Content-Type": "application/json",
        "Accept": "text/event-stream" if target.stream else "application/json",
    }
    if key is not None:
        defaults["Authorization"] = f"Bearer {key}"
    url = urlsplit(target.url)
    path = url.path.rstrip("/") + path + (f"?{url.query}" if url.query else "")
    return Head("POST", path, headers(target, key, defaults))


def body(target: Target, name: str, said: object, max_tokens: int | None) -> bytes:
    """The model, what is `said`, limits and stream options; the target's `body` over it, where None removes a field."""
    fields: dict[str, object] = {}
    if target.model:
        fields["model"] = target.model
    fields[name] = said
    if max_tokens is not None:
        fields["max_tokens"] = max_tokens
    if target.stream:
        fields["stream"] = True
        fields["stream_options"] = WITH_RUNNING_USAGE if target.continuous_usage else WITH_USAGE
    if target.body:
        fields |= target.body
        fields = {name: value for name, value in fields.items() if value is not None}
    return _encode(fields)


def decode_stream(pieces: Sequence[bytes], keep_texts: bool = False) -> Decoded:
    out = Decoded()
    at, kinds, sizes = out.chunk_at, out.chunk_kind, out.chunk_bytes
    decode: Any = _decode_first
    for data, name, index in sse.events(pieces):
        if data == TERMINAL:
            out.terminal_at = index
            break
        try:
            chunk: _Chunk | None = decode(data)
        except UNREADABLE:
            chunk = _read_loosely(data, name, out)
        if chunk is None or (
            (name or chunk.error is not None or not chunk.choices) and _is_error(chunk, data, name, out)
        ):
            continue
        if decode is _decode_first and _note_identity(chunk, out):
            decode = _decode
        kind, size = _carried(chunk, out)
        at.append(index)
        kinds.append(kind)
        sizes.append(size)
        if keep_texts:
            out.texts.append(_text_in(chunk))
            out.answer.append(_answer_in(chunk))
    if out.error is None:
        out.error = _verdict(out, sum(map(len, pieces)))
    return out


def decode_body(body: bytes, keep_texts: bool = False) -> Decoded:
    """One chunk for the whole answer; it counts as content where it has any, else as reasoning or tool call."""
    out = Decoded()
    try:
        chunk: _Chunk | None = _decode_first(body)
    except UNREADABLE:
        chunk = _read_loosely(body, "", out)
    if chunk is None or _is_error(chunk, body, "", out):
        return out
    _note_identity(chunk, out)
    kind, size = _carried(chunk, out)
    out.chunk_at, out.chunk_kind, out.chunk_bytes = [0], [kind], [size]
    if keep_texts:
        out.texts = [_text_in(chunk)]
        out.answer = [_answer_in(chunk)]
    if kind in (EMPTY, USAGE):
        out.error = ("empty", "an answer without content, reasoning or tool call")
    return out


def _verdict(out: Decoded, size: int) -> tuple[Any, str] | None:
    if out.terminal_at is None and not out.finish_reason:
        return "truncated", f"the stream ended after {len(out.chunk_at)} chunks ({size} bytes) without [DONE]"
    if not any(REASONING <= kind <= MEDIA for kind in out.chunk_kind):
        return "empty", f"none of {len(out.chunk_at)} chunks carried content, reasoning or a tool call"
    return None


def _is_error(chunk: _Chunk, data: bytes, name: str, out: Decoded) -> bool:
    """Whether a chunk is an error, which is then noted. Some servers send it bare where others send {"error": ...}."""
    if chunk.choices and chunk.error is None and name != "error":
        return False
    if chunk.error is None and name != "error":
        value = _any_json(data) if data and chunk.usage is None else None
        if not isinstance(value, dict) or not (value.get("object") == "error" or {"message", "code"} <= value.keys()):
            return False
    out.error = out.error or ("error_event", _shown(data))
    return True


def _any_json(data: bytes) -> object:
    """None where what the typed decoder skipped cannot be read."""
    try:
        return msgspec.json.decode(data)
    except UNREADABLE:
        return None


def _shown(data: bytes) -> str:
    """As much of it as a message can use."""
    return data[:8192].decode(errors="replace")


def _note_identity(chunk: _Chunk, out: Decoded) -> bool:
    """Note the answer's id and model; True when there is nothing left to note."""
    if isinstance(chunk, _First):
        out.response_id = out.response_id or chunk.id or ""
        out.response_model = out.response_model or chunk.model or ""
    return bool(out.response_id and out.response_model)


def _carried(chunk: _Chunk, out: Decoded) -> tuple[int, int]:
    """Kind and size of what a chunk carried; notes its usage and finish reason on the way."""
    kind = size = 0
    for choice in chunk.choices:
        said = choice.delta or choice.message
        if choice.finish_reason:
            out.finish_reason = choice.finish_reason
        if text := choice.text or (said and said.content):
            kind = CONTENT
            size += len(text) if text.isascii() else len(text.encode())
        elif said is not None:
            other, more = _rarely_carried(said)
            kind = kind if kind == CONTENT else max(kind, other)
            size += more
    if chunk.usage is not None:
        _note_usage(chunk.usage, out)
        kind = kind or USAGE
    return kind, size


def _rarely_carried(said: _Said) -> tuple[int, int]:
    if reasoning := said.reasoning or said.reasoning_content:
        return REASONING, len(reasoning.encode())
    if said.tool_calls:
        return TOOL_CALL, sum(len(bytes(call)) for call in said.tool_calls)
    if said.refusal:
        return CONTENT, len(said.refusal.encode())
    if said.audio:
        return MEDIA, sum(len(bytes(part)) for part in said.audio.values())
    return EMPTY, 0


def _text_in(chunk: _Chunk) -> str:
    """All that the model wrote in a chunk."""
    return "".join(part for choice in chunk.choices for part in _texts_in(choice) if part)


def _answer_in(chunk: _Chunk) -> str:
    """What of it is the answer; of several choices, which come in any order, the first one's."""
    for choice in chunk.choices:
        if not choice.index:
            said = choice.delta or choice.message
            return choice.text or (said and (said.content or said.refusal)) or ""
    return ""


def _texts_in(choice: _Choice) -> Iterator[str | None]:
    yield choice.text
    if said := choice.delta or choice.message:
        yield said.reasoning or said.reasoning_content
        yield said.content or said.refusal
        for call in said.tool_calls or ():
            yield from _texts_in_call(call)


def _texts_in_call(call: msgspec.Raw) -> Iterator[str | None]:
    """Name and arguments of the function; what is said in another form is not looked for."""
    try:
        function = _decode_tool_call(call).function
    except UNREADABLE:
        return
    if function is not None:
        yield function.name
        yield function.arguments


def _note_usage(usage: _Usage, out: Decoded) -> None:
    """The last one stands: servers that report as they go report totals."""
    out.input_tokens = usage.prompt_tokens
    out.output_tokens = usage.completion_tokens
    if usage.completion_tokens is not None:
        out.totals.append((len(out.chunk_kind), usage.completion_tokens))
    if usage.completion_tokens_details is not None:
        out.reasoning_tokens = usage.completion_tokens_details.reasoning_tokens
    if usage.prompt_tokens_details is not None:
        out.cached_tokens = usage.prompt_tokens_details.cached_tokens


def _read_loosely(data: bytes, name: str, out: Decoded) -> _Chunk | None:
    """A chunk from any JSON at all, where what has an unexpected type counts as not sent; None if it is no JSON."""
    if not data:
        return _Chunk()
    try:
        value = msgspec.json.decode(data)
    except UNREADABLE as e:
        text = _shown(data)
        out.error = out.error or (
            ("error_event", text) if name == "error" else ("malformed", f"not JSON ({e}): {text}")
        )
        return None
    if not isinstance(value, dict):
        return _Chunk()
    choices, usage = value.get("choices"), value.get("usage")
    listed = choices if isinstance(choices, list) else []
    return _First(
        id=_text(value.get("id")),
        model=_text(value.get("model")),
        choices=[_loose_choice(choice) for choice in listed if isinstance(choice, dict)],
        usage=_loose_usage(usage) if isinstance(usage, dict) else None,
        error=value.get("error"),
    )


def _loose_choice(choice: dict[str, Any]) -> _Choice:
    said = choice.get("delta") or choice.get("message")
    return _Choice(
        index=_count(choice.get("index")),
        delta=_loose_said(said) if isinstance(said, dict) else None,
        text=_text(choice.get("text")),
        finish_reason=_text(choice.get("finish_reason")),
    )


def _loose_said(said: dict[str, Any]) -> _Said:
    content, reasoning = said.get("content"), _text(said.get("reasoning")) or _text(said.get("reasoning_content"))
    if isinstance(content, list):  # content parts: text beside thinking
        parts = [part for part in content if isinstance(part, dict)]
        reasoning = "".join(_part_text(part) for part in parts if part.get("type") in ("thinking", "reasoning"))
        content = "".join(_part_text(part) for part in parts if part.get("type") not in ("thinking", "reasoning"))
    calls, audio = said.get("tool_calls"), said.get("audio")
    return _Said(
        content=_text(content),
        refusal=_text(said.get("refusal")),
        reasoning=reasoning,
        tool_calls=[msgspec.Raw(_encode(call)) for call in calls] if isinstance(calls, list) else None,
        audio={str(k): msgspec.Raw(_encode(v)) for k, v in audio.items()} if isinstance(audio, dict) else None,
    )


def _part_text(part: dict[str, Any]) -> str:
    for name in ("text", "thinking", "reasoning"):
        if isinstance(text := part.get(name), str):
            return text
        if isinstance(text, list):
            return "".join(_part_text(inner) for inner in text if isinstance(inner, dict))
    return ""


def _loose_usage(usage: dict[str, Any]) -> _Usage:
    completion, prompt = usage.get("completion_tokens_details"), usage.get("prompt_tokens_details")
    return _Usage(
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        completion_tokens_details=_CompletionDetails(_count(completion.get("reasoning_tokens")))
        if isinstance(completion, dict)
        else None,
        prompt_tokens_details=_PromptDetails(_count(prompt.get("cached_tokens"))) if isinstance(prompt, dict) else None,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _count(value: object) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value < 2**32 else None  # type: ignore[operator,return-value]
