"""Dialects as pure functions: the bytes that go out, and what the bytes that come back mean."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest import dialects
from loadtest.dialects import Decoded, Head, http, openai_chat, openai_completions, text_of
from loadtest.prompts import Prompt
from loadtest.types import ChunkKind, Target
from tests.conformance.voices import CHAT, COMPLETIONS, DONE, HTTP, event

EMPTY, REASONING, CONTENT, TOOL_CALL, MEDIA, USAGE = map(int, ChunkKind)
PROMPT = Prompt("p-7", [{"role": "user", "content": "Say hello"}], 16)


def chat(**more: Any) -> Target:
    return CHAT.target("https://acme.example/v1", **more)


def plain_http(**more: Any) -> Target:
    return HTTP.target("http://acme.example/embed?x=1", **more)


# which there are


def test_names_are_the_modules() -> None:
    assert dialects.names() == ["http", "openai-chat", "openai-completions"]
    assert [dialects.load(name).OPERATION for name in dialects.names()] == ["http", "chat", "text_completion"]


def test_an_unknown_dialect_is_told_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"dialect 'openai' is not known; it must be one of http, openai-chat, openai-com"
    ):
        dialects.load("openai")


# what goes out


def test_a_chat_request() -> None:
    assert openai_chat.head(chat(), "secret") == Head(
        "POST",
        "/v1/chat/completions",
        [("Content-Type", "application/json"), ("Accept", "text/event-stream"), ("Authorization", "Bearer secret")],
    )
    assert openai_chat.body(chat(), PROMPT) == (
        b'{"model":"m","messages":[{"role":"user","content":"Say hello"}],"max_tokens":16,'
        b'"stream":true,"stream_options":{"include_usage":true}}'
    )


def test_the_targets_body_comes_last_and_null_removes() -> None:
    target = chat(
        stream=False, body={"max_tokens": None, "max_completion_tokens": 9, "model": "other", "ignore_eos": True}
    )
    body = openai_chat.body(target, PROMPT)
    assert body == (
        b'{"model":"other","messages":[{"role":"user","content":"Say hello"}],"max_completion_tokens":9,"ignore_eos":true}'
    )


def test_a_completion_request_joins_the_messages() -> None:
    target = COMPLETIONS.target("http://acme.example:8000/v1/?version=2", stream=False)
    parts: list[dict[str, Any]] = [{"type": "text", "text": "b"}, {"type": "image_url"}, {"type": "text", "text": "c"}]
    prompt = Prompt("p", [{"role": "system", "content": "a"}, {"role": "user", "content": parts}])
    assert openai_completions.head(target, None).path == "/v1/completions?version=2"
    assert openai_completions.body(target, prompt) == b'{"model":"m","prompt":"a\\nbc"}'
    assert text_of(prompt) == "a\nbc"


def test_headers_of_the_plan_replace_ours_and_may_carry_the_key() -> None:
    target = chat(key="env:KEY", headers={"api-key": "{key}", "ACCEPT": "*/*", "X": "1"})
    assert openai_chat.head(target, "secret").headers == [
        ("Content-Type", "application/json"),
        ("ACCEPT", "*/*"),
        ("api-key", "secret"),
        ("X", "1"),
    ]


def test_an_http_request_from_a_template() -> None:
    body = {
        "input": "Q: {prompt} ({id}, {{braces}})",
        "n": "{max_tokens}",
        "deep": [{"of": "{model}"}, 1, None, "at most {max_tokens}"],
        "messages": "{messages}",
    }
    target = plain_http(body=body)
    assert msgspec.json.decode(http.body(target, PROMPT)) == {
        "input": "Q: Say hello (p-7, {braces})",
        "n": 16,
        "deep": [{"of": "m"}, 1, None, "at most 16"],
        "messages": [{"role": "user", "content": "Say hello"}],
    }
    assert http.head(target, None) == Head(
        "POST", "/embed?x=1", [("Accept", "*/*"), ("Content-Type", "application/json")]
    )


def test_a_prompt_with_braces_is_not_a_template() -> None:
    prompt = Prompt("p", [{"role": "user", "content": "{model} {x}"}])
    assert http.body(plain_http(body={"q": "{prompt}"}), prompt) == b'{"q":"{model} {x}"}'


def test_an_http_request_without_a_body() -> None:
    target = plain_http(method="GET")
    assert http.head(target, None) == Head("GET", "/embed?x=1", [("Accept", "*/*")])
    assert http.body(target, PROMPT) == b""


@pytest.mark.parametrize("name", dialects.names())
def test_the_same_prompt_gives_the_same_bytes(name: str) -> None:
    target = Target(name="t", url="http://acme.example/v1", dialect=name, body={"b": 1, "a": {"d": 2, "c": "{prompt}"}})
    same = msgspec.msgpack.decode(msgspec.msgpack.encode(target), type=Target)  # as it reaches a worker
    dialect = dialects.load(name)
    assert dialect.body(target, PROMPT) == dialect.body(same, PROMPT)
    assert dialect.head(target, "k") == dialect.head(same, "k")


# what is found wrong beforehand


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        (chat(), []),
        (chat(body={"stream": True}), ["body.stream cannot be set: `stream:` of the target decides it"]),
        (
            CHAT.target("https://a.example/v1/chat/completions"),
            ["url ends in /chat/completions, which the dialect openai-chat adds itself; leave it out"],
        ),
        (
            CHAT.target("ftp://a.example"),
            ["url is 'ftp://a.example'; it must be http:// or https://, a host, and a path"],
        ),
        (CHAT.target("https:///v1"), ["url is 'https:///v1'; it must be http:// or https://, a host, and a path"]),
        (
            CHAT.target("https://u:p@a.example"),
            ["url holds a user name; put credentials into `key` (env:NAME or file:PATH) and headers"],
        ),
        (chat(headers={"a b": "x"}), ["headers has 'a b', which is not a name of an HTTP header"]),
        (chat(headers={"x": "a\r\nb: c"}), ["headers.x holds a character that an HTTP header cannot carry"]),
        (chat(headers={"x": "{key}"}), ["headers.x mentions {key}, but the target has no key; add key: env:NAME"]),
        (
            chat(headers={"Content-Length": "1"}),
            ["headers.Content-Length cannot be set: it is written for each request"],
        ),
        (plain_http(body={"a": "{prompt} {{x}}"}), []),
        (plain_http(method="CONNECT"), ["method is CONNECT, which opens a tunnel and gets no answer to measure"]),
        (
            plain_http(body={"a": ["{promt}"]}),
            [
                "body holds '{promt}' in '{promt}'; known are {prompt}, {model}, {max_tokens}, {id} and, as a string of its "
                "own, {messages}; a brace that is meant as such is written twice"
            ],
        ),
    ],
)
def test_problems_of_a_target(target: Target, problem: list[str]) -> None:
    assert dialects.check(target) == problem


# what comes back


def streamed(*data: bytes) -> Decoded:
    return openai_chat.decode_stream([*map(event, data), event(DONE)])


def test_chunks_in_three_arrays() -> None:
    decoded = streamed(
        CHAT.nothing(),
        CHAT.delta({"reasoning": "hm"}),
        CHAT.delta({"reasoning_content": "hmm"}),
        CHAT.content("Grüße"),
        CHAT.delta({"tool_calls": [{"index": 0}]}),
        CHAT.finish("length"),
        CHAT.usage(7, 4, completion_tokens_details={"reasoning_tokens": 2}, prompt_tokens_details={"cached_tokens": 3}),
    )
    assert decoded.chunk_kind == [EMPTY, REASONING, REASONING, CONTENT, TOOL_CALL, EMPTY, USAGE]
    assert decoded.chunk_bytes == [0, 2, 3, 7, len('{"index": 0}'), 0, 0]
    assert decoded.chunk_at == [0, 1, 2, 3, 4, 5, 6]
    assert (decoded.terminal_at, decoded.finish_reason, decoded.error) == (7, "length", None)
    assert (decoded.response_id, decoded.response_model) == ("c-1", "m-1")
    assert (decoded.input_tokens, decoded.output_tokens) == (7, 4)
    assert (decoded.reasoning_tokens, decoded.cached_tokens) == (2, 3)


def test_what_has_a_strange_type_counts_as_not_sent() -> None:
    decoded = streamed(
        b'{"id": 7, "model": null, "choices": [{"delta": {"content": "a", "reasoning": 5}, "finish_reason": 1}]}',
        b'{"choices": [{"delta": {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}}]}',
        b'{"choices": [{"delta": {"content": [{"type": "text", "text": "b"}]}, "finish_reason": "stop"}]}',
        b'{"choices": "none", "usage": {"prompt_tokens": -1, "completion_tokens": "2", "x": []}}',
        b"[]",
        b"1",
    )
    assert decoded.chunk_kind == [CONTENT, REASONING, CONTENT, USAGE, EMPTY, EMPTY]
    assert (decoded.response_id, decoded.response_model, decoded.finish_reason) == ("", "", "stop")
    assert (decoded.input_tokens, decoded.output_tokens, decoded.error) == (None, None, None)


@pytest.mark.parametrize(
    "error", [b'{"error": "x"}', b'{"object": "error", "message": "x"}', b'{"message": "x", "code": 500}']
)
def test_an_error_in_a_stream_is_no_chunk(error: bytes) -> None:
    decoded = streamed(CHAT.content("a"), error, CHAT.content("b"))
    assert decoded.error == ("error_event", error.decode())
    assert decoded.chunk_kind == [CONTENT, CONTENT]


def test_an_event_named_error() -> None:
    decoded = openai_chat.decode_stream([event(b"out of memory", name=b"error")])
    assert decoded.error == ("error_event", "out of memory")


NAMES = """choices delta message content reasoning tool_calls usage prompt_tokens error text finish_reason id model audio type
    completion_tokens_details reasoning_tokens""".split()  # noqa: SIM905 shorter than the list
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(JSON.map(msgspec.json.encode) | st.binary(max_size=30)))
def test_no_stream_makes_a_decoder_raise(data: list[bytes]) -> None:
    decoded = openai_chat.decode_stream([event(one) for one in data])
    assert (
        len(decoded.chunk_at) == len(decoded.chunk_kind) == len(decoded.chunk_bytes) <= sum(map(len, data)) + len(data)
    )
    assert set(decoded.chunk_kind) <= set(map(int, ChunkKind))


@given(JSON.map(msgspec.json.encode) | st.binary(max_size=30))
def test_no_body_makes_a_decoder_raise(body: bytes) -> None:
    openai_completions.decode_body(body)
    http.decode_body(body)


def test_deep_nesting_is_malformed() -> None:
    decoded = streamed(b'{"choices": ' + b"[" * 100_000)
    assert decoded.error is not None
    assert decoded.error[0] == "malformed"
