"""What servers that nobody here wrote have sent, byte for byte, and what is made of it. docs/servers.md tells it in words.

Each was asked for 4 tokens about "about the house", with usage, by tests/external.
"""

from pathlib import Path

import pytest

from loadtest import dialects, tokens
from loadtest.dialects import Decoded
from loadtest.types import ChunkKind

TRANSCRIPTS = Path(__file__).with_name("transcripts")
EMPTY, CONTENT, USAGE = int(ChunkKind.EMPTY), int(ChunkKind.CONTENT), int(ChunkKind.USAGE)


def decoded(name: str, cut_bytes: int | None = None) -> Decoded:
    """The transcript decoded, a stream from pieces of `cut_bytes`, or whole."""
    text = (TRANSCRIPTS / name).read_bytes()
    dialect = dialects.load("openai-completions" if "completions" in name else "openai-chat")
    if name.endswith(".json"):
        return dialect.decode_body(text, True)
    size = cut_bytes or len(text)
    return dialect.decode_stream([text[at : at + size] for at in range(0, len(text), size)], True)


STREAMS = {
    # name: kinds of its chunks, usage (input, output), finish reason, whether [DONE] came
    "transformers-chat.sse": ([EMPTY, CONTENT, CONTENT, CONTENT, USAGE], (13, 4), "length", False),
    "transformers-completions.sse": ([CONTENT] * 4 + [USAGE], (3, 4), "length", False),
    "llama_cpp-chat.sse": ([EMPTY, CONTENT, EMPTY, CONTENT, CONTENT, EMPTY], (None, None), "length", True),
    "llama_cpp-completions.sse": ([CONTENT, EMPTY, CONTENT, CONTENT, EMPTY], (None, None), "length", True),
    "llama_cpp-chat-interrupted.sse": ([EMPTY, CONTENT], (None, None), "", True),
    "guidellm-chat.sse": ([CONTENT] * 4 + [EMPTY, USAGE], (5, 4), "stop", True),
    "guidellm-completions.sse": ([CONTENT] * 4 + [EMPTY, USAGE], (5, 4), "stop", True),
}


@pytest.mark.parametrize("cut_bytes", [None, 1, 100])
@pytest.mark.parametrize("name", STREAMS)
def test_streams(name: str, cut_bytes: int | None) -> None:
    kinds, usage, finish_reason, done = STREAMS[name]
    found = decoded(name, cut_bytes)
    assert found.error is None
    assert found.chunk_kind == kinds
    assert (found.input_tokens, found.output_tokens) == usage
    assert found.finish_reason == finish_reason
    assert (found.terminal_at is not None) == done
    assert found.response_model in ("tiny", "tiny@main")
    assert found.response_id
    assert [bool(text) for text in found.texts] == [kind == CONTENT for kind in kinds]


def test_every_transcript_of_a_stream_is_told_of() -> None:
    assert {path.name for path in TRANSCRIPTS.glob("*.sse")} == set(STREAMS)


@pytest.mark.parametrize("path", sorted(TRANSCRIPTS.glob("*.json")), ids=lambda path: path.name)
def test_answers_in_one_piece(path: Path) -> None:
    found = decoded(path.name)
    assert (found.error, found.chunk_kind, found.output_tokens) == (None, [CONTENT], 4)
    assert found.finish_reason in ("length", "stop")
    assert len(found.texts) == 1


def test_a_character_cut_off_by_the_server_makes_a_tokenizer_disagree_with_it(byte_tokenizer: tokens.Tokenizer) -> None:
    """transformers sends U+FFFD for a token that is a part of a character: three bytes where one was generated."""
    found = decoded("transformers-chat.sse")
    assert found.texts == ["", " story", "\N{REPLACEMENT CHARACTER} mad", " through", ""]
    # 6 bytes; 3 of the character and 4; 8
    assert tokens.per_chunk(byte_tokenizer, found.chunk_kind, found.texts) == [0, 6, 7, 8, 0]


@pytest.fixture(scope="module")
def byte_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> tokens.Tokenizer:
    import made_tokenizers as made

    return tokens.Tokenizer(made.save(made.byte_level(257), tmp_path_factory.mktemp("bytes")))
