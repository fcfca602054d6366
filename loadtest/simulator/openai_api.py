"""OpenAI's wire form, server side: a request's bytes -> `Call`, and the payloads of its answer. No I/O.

A stream's payloads are made once but for the text itself: a simulated GPU must not need more CPU than the load
generator that is measured against it.
"""

from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from loadtest.simulator.script import Beat, Script
from loadtest.types import ChunkKind

_json = msgspec.json.Encoder()
Json = dict[str, Any]
Event = tuple[ChunkKind, int, bytes]
"""One event of a stream: what it carries, how many tokens, and its payload."""
MOST_TOKENS = 100_000


class ApiError(Exception):
    """An answer other than 200, in OpenAI's form."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        self.body = error_body(message, kind, param, code)


def error_body(message: str, kind: str, param: str | None = None, code: str | None = None) -> bytes:
    return _json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


class _Part(Struct):
    type: str = "text"
    text: str = ""


class _Message(Struct):
    role: str
    content: str | list[_Part] | None = None


class _StreamOptions(Struct):
    include_usage: bool = False
    continuous_usage_stats: bool = False  # vLLM: each chunk carries the usage so far


class _Request(Struct, kw_only=True):
    """What both endpoints share. Keys that are not named here are ignored, as vLLM does."""

    model: str
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    n: int | None = 1
    simulate: Script | None = None


class _ChatRequest(_Request, kw_only=True):
    messages: list[_Message]
    max_completion_tokens: int | None = None


class _CompletionRequest(_Request, kw_only=True):
    prompt: str | list[Any]


class Call(Struct, frozen=True):
    """A request that was understood."""

    kind: Literal["chat", "completion"]
    model: str
    stream: bool
    include_usage: bool
    continuous_usage: bool
    prompt: list[str | int]  # its tokens. A word is one: synthetic prompts are made of one-token words
    max_tokens: int | None
    script: Script | None

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt)


_chat_decoder = msgspec.json.Decoder(_ChatRequest)
_completion_decoder = msgspec.json.Decoder(_CompletionRequest)


def parse_chat(body: bytes) -> Call:
    """Raises ApiError."""
    request = _decode(_chat_decoder, body)
    if not request.messages:
        raise ApiError(400, "messages is empty; give at least one message", param="messages")
    words: list[str | int] = []
    for message in request.messages:
        parts = message.content if isinstance(message.content, list) else [_Part(text=message.content or "")]
        for part in parts:
            words += part.text.split()
    return _call("chat", request, words, request.max_completion_tokens or request.max_tokens)


def parse_completion(body: bytes) -> Call:
    """Raises ApiError."""
    request = _decode(_completion_decoder, body)
    script = request.simulate
    if script is not None and (script.reasoning or script.tool_calls):
        raise ApiError(400, "simulate.reasoning and simulate.tool_calls are for chat answers only", param="simulate")
    return _call("completion", request, _tokens(request.prompt), request.max_tokens)


def _tokens(prompt: str | list[Any]) -> list[str | int]:
    if isinstance(prompt, str):
        return [*prompt.split()]
    if all(isinstance(token, int) for token in prompt):
        return prompt
    if len(prompt) == 1 and isinstance(prompt[0], str | list):
        return _tokens(prompt[0])
    raise ApiError(400, f"prompt holds {len(prompt)} prompts; send one prompt a request", param="prompt")


_R = TypeVar("_R", _ChatRequest, _CompletionRequest)


def _decode(decoder: msgspec.json.Decoder[_R], body: bytes) -> _R:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:  # ValidationError is a DecodeError
        message = str(error)
        param = message.partition("`$.")[2].rstrip("`") or None
        if param is not None and param.startswith("simulate"):
            message += f"; its keys are {', '.join(Script.__struct_fields__)}"
        raise ApiError(400, message, param=param) from None


def _call(
    kind: Literal["chat", "completion"], request: _Request, prompt: list[str | int], max_tokens: int | None
) -> Call:
    if max_tokens is not None and not 1 <= max_tokens <= MOST_TOKENS:
        message = f"max_tokens is {max_tokens}; it must be between 1 and {MOST_TOKENS}"
        raise ApiError(400, message, param="max_tokens")
    if request.n not in (None, 1):
        raise ApiError(400, f"n is {request.n}; this server gives one choice a request", param="n")
    options = request.stream_options
    if options is not None and not request.stream:
        raise ApiError(400, "stream_options is only allowed where stream is true", param="stream_options")
    options = options or _StreamOptions()
    return Call(
        kind, request.model, bool(request.stream), options.include_usage, options.continuous_usage_stats,
        prompt, max_tokens, request.simulate,
    )  # fmt: skip


class Answer:
    """The payloads of one answer. `text` arguments are JSON, quotes included."""

    def __init__(self, call: Call, number: int, created_s: int, cached_tokens: int | None = None) -> None:
        chat = call.kind == "chat"
        self._call = call
        self._cached_tokens = cached_tokens
        self.head: Json = {
            "id": f"chatcmpl-{number:024x}" if chat else f"cmpl-{number:024x}",
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": created_s,
            "model": call.model,
        }
        self._open = _json.encode(self.head)[:-1] + b',"choices":[{"index":0,'
        self._text_open, self._text_close = (b'"delta":{"content":', b"}") if chat else (b'"text":', b"")
        # OpenAI: where usage was asked for, every chunk has the key, null in all but the last
        self._close = b'}],"usage":null}' if call.include_usage else b"}]}"
        self._before = self._open + self._text_open
        self._after = self._text_close + b',"logprobs":null,"finish_reason":null' + self._close

    def role(self) -> bytes | None:
        """The role-only first chunk of a chat; a completion has none."""
        if self._call.kind != "chat":
            return None
        return self._delta(b'"delta":{"role":"assistant","content":""}', None, 0)

    def content(self, text: bytes, tokens_so_far: int, reason: str | None = None) -> bytes:
        if reason is None and not self._call.continuous_usage:  # the hot path
            return self._before + text + self._after
        return self._delta(self._text_open + text + self._text_close, reason, tokens_so_far)

    def beat(self, beat: Beat, *, first_of_kind: bool, field: str, tokens_so_far: int, reason: str | None) -> bytes:
        """A chunk of a scripted answer."""
        text = _json.encode(beat.text)
        if beat.kind == ChunkKind.REASONING:
            return self._delta(b'"delta":{"%b":%b}' % (field.encode(), text), reason, tokens_so_far)
        if beat.kind == ChunkKind.TOOL_CALL:
            call: Json = {"index": 0, "function": {"arguments": beat.text}}
            if first_of_kind:
                call |= {"id": "call_0", "type": "function"}
                call["function"] = {"name": "simulated", "arguments": beat.text}
            return self._delta(b'"delta":{"tool_calls":[%b]}' % _json.encode(call), reason, tokens_so_far)
        return self.content(text, tokens_so_far, reason)

    def tail(self, reason: str | None, output_tokens: int, usage: Json | None) -> list[Event]:
        """What follows the last token: a chunk with nothing but the finish reason, one with usage and no choices."""
        events: list[Event] = []
        if reason is not None:
            empty = b'"delta":{}' if self._call.kind == "chat" else b'"text":""'
            events.append((ChunkKind.EMPTY, 0, self._delta(empty, reason, output_tokens)))
        if usage is not None:
            events.append((ChunkKind.USAGE, 0, _json.encode({**self.head, "choices": [], "usage": usage})))
        return events

    def figures(self, output_tokens: int, reasoning_tokens: int = 0) -> Json:
        prompt_tokens = self._call.prompt_tokens
        figures: Json = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": output_tokens,
            "total_tokens": prompt_tokens + output_tokens,
        }
        if self._cached_tokens is not None:
            figures["prompt_tokens_details"] = {"cached_tokens": self._cached_tokens}
        if reasoning_tokens:
            figures["completion_tokens_details"] = {"reasoning_tokens": reasoning_tokens}
        return figures

    def asked_usage(self, output_tokens: int) -> Json | None:
        """The figures for a stream's usage chunk, None where the client did not ask for one."""
        return self.figures(output_tokens) if self._call.include_usage else None

    def whole(
        self, beats: list[Beat], reason: str | None, usage: Json | None, field: str = "reasoning_content"
    ) -> bytes:
        """The answer where nothing is streamed."""
        texts = {kind: "".join(beat.text for beat in beats if beat.kind == kind) for kind in ChunkKind}
        if self._call.kind == "chat":
            choice: Json = {"index": 0, "message": _message(texts, field), "logprobs": None, "finish_reason": reason}
        else:
            choice = {"index": 0, "text": texts[ChunkKind.CONTENT], "logprobs": None, "finish_reason": reason}
        body: Json = {**self.head, "object": self.head["object"].removesuffix(".chunk"), "choices": [choice]}
        return _json.encode(body if usage is None else {**body, "usage": usage})

    def _delta(self, delta: bytes, reason: str | None, tokens_so_far: int) -> bytes:
        close = self._close
        if self._call.continuous_usage:
            close = b'}],"usage":%b}' % _json.encode(self.figures(tokens_so_far))
        return b'%b%b,"logprobs":null,"finish_reason":%b%b' % (self._open, delta, _json.encode(reason), close)


def _message(texts: dict[ChunkKind, str], field: str) -> Json:
    message: Json = {"role": "assistant", "content": texts[ChunkKind.CONTENT]}
    if texts[ChunkKind.REASONING]:
        message[field] = texts[ChunkKind.REASONING]
    if arguments := texts[ChunkKind.TOOL_CALL]:
        function = {"name": "simulated", "arguments": arguments}
        message["tool_calls"] = [{"id": "call_0", "type": "function", "function": function}]
        message["content"] = message["content"] or None
    return message
