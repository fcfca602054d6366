"""Server-sent events out of the pieces of a body, cut anywhere: the WHATWG rules, without I/O.

A load generator parses tens of thousands of events a second, and in most streams each piece is one `data:` line and a
blank one. `events` recognises such a stream as a whole, with a few searches in C, and sends every other through
`Parser`, which knows all of it: LF, CRLF and CR line ends, a byte order mark, comments, several `data:` lines, fields
without a value. An event belongs to the piece that brought its last byte, since that piece's arrival is the event's;
what has no blank line behind it when the stream ends is no event. `id:` and `retry:` are for browsers that reconnect.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Parser:
    """Feed it pieces; it holds no more than the event that is not complete yet."""

    __slots__ = ("_after_cr", "_at_start", "_data", "_name", "_unended")

    def __init__(self) -> None:
        self._unended: list[bytes] = []  # of the last line, whose end has not come
        self._data: list[bytes] = []
        self._name = ""
        self._after_cr = False  # an LF that comes now belongs to the CR before it
        self._at_start = True

    def feed(self, piece: bytes) -> list[tuple[bytes, str]]:
        """The events that this piece completes, as (data, name); the name of most is empty."""
        if self._after_cr and piece:
            piece = piece.removeprefix(b"\n")
            self._after_cr = False
        if b"\n" not in piece and b"\r" not in piece:
            if piece:
                self._unended.append(piece)
            return []
        if self._unended:
            piece = b"".join(self._unended) + piece
            self._unended.clear()
        lines = piece.splitlines()
        if piece.endswith(b"\r"):
            self._after_cr = True
        elif not piece.endswith(b"\n"):
            self._unended.append(lines.pop())
        if self._at_start:
            lines[0] = lines[0].removeprefix(BYTE_ORDER_MARK)
            self._at_start = False
        return [event for line in lines if (event := self._line(line))]

    def _line(self, line: bytes) -> tuple[bytes, str] | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
        elif field == b"event":
            self._name = value.removeprefix(b" ").decode(errors="replace")
        return None

    def _dispatch(self) -> tuple[bytes, str] | None:
        event = (b"\n".join(self._data), self._name) if self._data else None
        self._data.clear()
        self._name = ""
        return event


Event = tuple[bytes, str, int]
"""Data, name (empty for most), and the index of the piece that completed it."""


def events(pieces: Sequence[bytes]) -> Iterable[Event]:
    """The events of a stream, in order."""
    return _plain_events(pieces) or _any_events(pieces)


def _plain_events(pieces: Sequence[bytes]) -> Iterable[Event] | None:
    """The events of a stream whose every piece is one line of data and the blank line after it; None for any other."""
    body = b"".join(pieces)
    if not body.startswith(b"data: ") or not body.endswith(b"\n\n") or b"\r" in body:
        return None
    lines = body[6:-2].split(b"\n\ndata: ")
    if body.count(b"\n") != 2 * len(lines) or list(map(len, pieces)) != [len(line) + 8 for line in lines]:
        return None
    return zip(lines, repeat(""), range(len(lines)), strict=False)


def _any_events(pieces: Iterable[bytes]) -> Iterator[Event]:
    parser = Parser()
    for index, piece in enumerate(pieces):
        for data, name in parser.feed(piece):
            yield data, name, index
