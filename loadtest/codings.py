"""Content codings of answers: gzip, deflate, br, zstd, one upon the other if need be.

We ask for none (`Accept-Encoding: identity`); some servers and proxies compress all the same. Each piece of a body keeps
its place, so that what it deciphers to keeps its stamp. What a body may grow to is bounded, and so is the memory that a
decoder may ask for before it has said a word (RFC 9659: a zstd window of at most 8 MiB).
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import brotli
from backports import zstd

MAX_DECODED_BYTES = 64 << 20
ZSTD_WINDOW_LOG = 23


class Decoder(Protocol):
    """Of one coded body, which may be several members or frames one after the other."""

    def decode(self, piece: bytes, limit: int) -> bytes:
        """What is readable after this piece, at most `limit` bytes; raises one of ERRORS where it does not fit."""


class _Inflate:
    """gzip or zlib. What follows the last gzip member and is none itself is padding."""

    def __init__(self, window_bits: int) -> None:
        self._window_bits = window_bits
        self._inflater = zlib.decompressobj(window_bits)

    def decode(self, piece: bytes, limit: int) -> bytes:
        out = bytearray(self._inflater.decompress(piece, limit))
        while self._inflater.eof and self._inflater.unused_data.startswith(b"\x1f\x8b") and len(out) < limit:
            rest = self._inflater.unused_data
            self._inflater = zlib.decompressobj(self._window_bits)
            out += self._inflater.decompress(rest, limit - len(out))
        return bytes(out)


class _Deflate:
    """With the zlib wrapper, as the standard has it, or without, as some send it: the first byte tells."""

    def __init__(self) -> None:
        self._inflate: _Inflate | None = None

    def decode(self, piece: bytes, limit: int) -> bytes:
        if self._inflate is None:
            if not piece:
                return b""
            wrapped = piece[0] & 0x0F == 8 and piece[0] >> 4 <= 7  # CM and CINFO of RFC 1950
            self._inflate = _Inflate(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
        return self._inflate.decode(piece, limit)


class _Brotli:
    def __init__(self) -> None:
        self._decompressor: Any = brotli.Decompressor()

    def decode(self, piece: bytes, limit: int) -> bytes:
        out = bytearray(self._decompressor.process(piece, output_buffer_limit=limit))
        while not self._decompressor.can_accept_more_data() and len(out) < limit:
            out += self._decompressor.process(b"", output_buffer_limit=limit - len(out))
        return bytes(out)


class _Zstd:
    def __init__(self) -> None:
        self._frame = _zstd_frame()

    def decode(self, piece: bytes, limit: int) -> bytes:
        out = bytearray()
        while piece and len(out) < limit:
            if self._frame.eof:
                self._frame = _zstd_frame()
            out += self._frame.decompress(piece, limit - len(out))
            piece = self._frame.unused_data
        return bytes(out)


def _zstd_frame() -> zstd.ZstdDecompressor:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG})


DECODERS: Mapping[str, Callable[[], Decoder]] = {
    "gzip": lambda: _Inflate(zlib.MAX_WBITS | 16),
    "x-gzip": lambda: _Inflate(zlib.MAX_WBITS | 16),
    "deflate": _Deflate,
    "br": _Brotli,
    "zstd": _Zstd,
}
ERRORS = (zlib.error, brotli.error, zstd.ZstdError, EOFError)


def decoded(pieces: Sequence[bytes], codings: str) -> Sequence[bytes]:
    """The pieces without the codings of a Content-Encoding header; ValueError says what does not fit."""
    names = [name for coding in codings.lower().split(",") if (name := coding.strip()) not in ("", "identity")]
    for name in reversed(names):
        pieces = _without(name, pieces)
    return pieces


def _without(name: str, pieces: Sequence[bytes]) -> list[bytes]:
    if name not in DECODERS:
        raise ValueError(f"the answer is coded as {name}, which was not asked for")
    decoder = DECODERS[name]()
    out, size = [], 0
    for piece in pieces:
        try:
            out.append(decoder.decode(piece, MAX_DECODED_BYTES - size + 1))
        except ERRORS as e:
            raise ValueError(f"the answer's {name} coding is broken: {e}") from e
        size += len(out[-1])
        if size > MAX_DECODED_BYTES:
            raise ValueError(f"the answer's {name} coding holds more than {MAX_DECODED_BYTES >> 20} MiB")
    return out
