"""Whatever bytes come: a decision, never an exception, and a Result that can be handed on."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest import codings, dialects, sse
from loadtest.dialects import Decoded
from tests.conformance import cases
from tests.conformance.voices import CHAT, COMPLETIONS, DONE, event

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["choices", "delta", "message", "content", "text", "usage", "error", "tool_calls", "audio",
                         "reasoning", "prompt_tokens", "completion_tokens", "type", "thinking", "object", "id"]),
        inner, max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip
DATA = JSON.map(msgspec.json.encode) | st.binary(max_size=40) | st.just(DONE)
LINES = st.sampled_from(
    [b"data: ", b"data", b"event: error", b"id: 1", b":", b"\n", b"\r", b"\r\n", b"\xef\xbb\xbf", b"\0"]
)
STREAMS = st.lists(DATA.map(event) | LINES | st.binary(max_size=20), max_size=12).map(b"".join)


def cut(body: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(body) + 1) for place in places} | {len(body)})
    return [body[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


@settings(max_examples=300)
@given(STREAMS, st.lists(st.integers(0, 10_000), max_size=6))
def test_where_a_stream_is_cut_does_not_matter(body: bytes, places: list[int]) -> None:
    whole = [(data, name) for data, name, _ in sse.events([body])]
    assert [(data, name) for data, name, _ in sse.events(cut(body, places))] == whole


@pytest.mark.parametrize("name", dialects.names())
@settings(max_examples=300)
@given(body=STREAMS | DATA, places=st.lists(st.integers(0, 10_000), max_size=6))
def test_any_bytes_are_decoded_to_something(name: str, body: bytes, places: list[int]) -> None:
    dialect = dialects.load(name)
    pieces = cut(body, places)
    check(dialect.decode_stream(pieces), len(pieces))
    check(dialect.decode_body(body), 1)


def check(decoded: Decoded, pieces: int) -> None:
    assert len(decoded.chunk_at) == len(decoded.chunk_kind) == len(decoded.chunk_bytes)
    assert decoded.chunk_at == sorted(decoded.chunk_at)
    assert all(0 <= at < pieces for at in decoded.chunk_at)
    msgspec.msgpack.encode(decoded)


@settings(max_examples=200)
@given(st.sampled_from(sorted(codings.DECODERS)), st.binary(max_size=200), st.lists(st.integers(0, 999), max_size=4))
def test_any_coded_bytes_are_deciphered_or_refused(name: str, body: bytes, places: list[int]) -> None:
    pieces = cut(body, places)
    refusals = []
    try:
        assert len(codings.decoded(pieces, name)) == len(pieces)
    except ValueError as e:
        refusals.append(str(e))
    assert all(name in refusal for refusal in refusals)


@settings(max_examples=100)
@given(st.sampled_from([CHAT, COMPLETIONS]), st.data())
def test_a_sound_stream_with_one_byte_changed(voice: object, data: st.DataObject) -> None:
    body = bytearray(b"".join(cases.events(voice)))  # type: ignore[arg-type]
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    decoded = dialects.load(voice.dialect).decode_stream([bytes(body)])  # type: ignore[attr-defined]
    check(decoded, 1)
