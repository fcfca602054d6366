"""Content codings of the ClickHouse HTTP interface, a piece at a time: lz4 frames, zstd, gzip, deflate.

A body may be several frames one after the other (clickhouse-connect compresses each block on its own).
"""

import zlib
from collections.abc import Callable
from typing import Any, Protocol

import lz4.frame

from loadtest.store.engine import failure


class Decoder(Protocol):
    """What the decompressors of lz4, zstd and zlib have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def _zstd() -> Any:
    from backports import zstd  # comes with clickhouse-connect on every Python that we support

    return zstd


_DECODERS: dict[str, Callable[[], Decoder]] = {
    "lz4": lz4.frame.LZ4FrameDecompressor,
    "zstd": lambda: _zstd().ZstdDecompressor(),
    "gzip": lambda: zlib.decompressobj(zlib.MAX_WBITS | 16),
    "deflate": zlib.decompressobj,
}
_ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "lz4": lz4.frame.compress,
    "zstd": lambda data: _zstd().compress(data, level=1),
    "gzip": lambda data: _flush(zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS | 16), data),
}


def _flush(compressor: Any, data: bytes) -> bytes:
    return bytes(compressor.compress(data) + compressor.flush())


def decoder(coding: str) -> Callable[[bytes], bytes]:
    """A function from the pieces of a coded body to those of the plain one; b"" at the end checks that it is whole."""
    if coding in ("", "identity"):
        return lambda piece: piece
    if coding not in _DECODERS:
        raise failure(
            475, "UNKNOWN_COMPRESSION_METHOD", f"Content-Encoding {coding} is not one of {', '.join(_DECODERS)}"
        )
    make = _DECODERS[coding]
    current: Decoder | None = None

    def decode(piece: bytes) -> bytes:
        nonlocal current
        if not piece and current is not None:
            raise failure(33, "CANNOT_READ_ALL_DATA", f"the {coding} body ends in the middle of a frame")
        out = []
        while piece:
            current = current or make()
            try:
                out.append(current.decompress(piece))
            except Exception as error:  # noqa: BLE001 - each library has its own
                raise failure(432, "CANNOT_DECOMPRESS", f"the body is not {coding}: {error}") from None
            if not current.eof:
                break
            piece = current.unused_data or b""
            current = None
        return b"".join(out)

    return decode


def encoder(accepted: str) -> tuple[str, Callable[[bytes], bytes]]:
    """The first coding of ours that Accept-Encoding names, and a function that turns a piece into a whole frame."""
    names = [part.split(";")[0].strip() for part in accepted.split(",")]
    for name, encode in _ENCODERS.items():
        if name in names:
            return name, encode
    return "", lambda piece: piece
