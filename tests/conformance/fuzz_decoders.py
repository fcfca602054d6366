"""Coverage-guided fuzzing of what reads a server's bytes, by atheris: `python -m tests.conformance.fuzz_decoders CORPUS ...`.

The rest of the arguments are libFuzzer's. An input is how the body is cut, what decodes it, and the body. Whatever comes:
a decision and no exception, chunks that lie within the body, and the same events wherever it was cut.
"""

import sys

import atheris
import msgspec

with atheris.instrument_imports(include=["loadtest.sse", "loadtest.dialects", "loadtest.codings"]):
    from loadtest import codings, dialects, sse

    DIALECTS = tuple(dialects.names())
    for name in DIALECTS:
        dialects.load(name)

CODINGS = ("", *sorted(codings.DECODERS))


def packed(dialect: str, coding: str, cuts: int, body: bytes) -> bytes:
    """An input that `fuzz` takes apart."""
    return bytes([DIALECTS.index(dialect), CODINGS.index(coding), cuts]) + body


def cut(body: bytes, cuts: int) -> list[bytes]:
    """Into pieces of `cuts` bytes; 0: one piece."""
    return [body[at : at + cuts] for at in range(0, len(body), cuts)] if cuts else [body]


def fuzz(data: bytes) -> None:
    if len(data) < 3:
        return
    dialect = dialects.load(DIALECTS[data[0] % len(DIALECTS)])
    coding, body = CODINGS[data[1] % len(CODINGS)], data[3:]
    try:
        pieces = list(codings.decoded(cut(body, data[2]), coding))
    except ValueError:
        return  # what a coding that does not fit is to become
    check(dialect.decode_stream(pieces), len(pieces))
    whole = b"".join(pieces)
    check(dialect.decode_body(whole), 1)
    events = [event[:2] for event in sse.events([whole])]
    assert [event[:2] for event in sse.events(pieces)] == events, "where it is cut changes what it says"


def check(decoded: dialects.Decoded, pieces: int) -> None:
    assert len(decoded.chunk_at) == len(decoded.chunk_kind) == len(decoded.chunk_bytes)
    assert decoded.chunk_at == sorted(decoded.chunk_at)
    assert all(0 <= at < max(pieces, 1) for at in decoded.chunk_at)
    msgspec.msgpack.encode(decoded)


if __name__ == "__main__":
    atheris.Setup(sys.argv, fuzz)
    atheris.Fuzz()
