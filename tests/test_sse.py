"""The event stream parser against the standard's own examples, and against itself however the bytes are cut."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.sse import Parser, events


def parsed(*pieces: bytes) -> list[tuple[bytes, str, int]]:
    return list(events(pieces))


# examples of the standard (WHATWG HTML, 9.2.6 "Interpreting an event stream")


def test_the_stock_ticker() -> None:
    assert parsed(b"data: YHOO\ndata: +2\ndata: 10\n\n") == [(b"YHOO\n+2\n10", "", 0)]


def test_comments_ids_and_a_lone_space() -> None:
    stream = b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n"
    assert parsed(stream) == [(b"first event", "", 0), (b"second event", "", 0), (b" third event", "", 0)]


def test_data_without_a_value() -> None:
    assert parsed(b"data\n\ndata\ndata\n\ndata:") == [(b"", "", 0), (b"\n", "", 0)]


# our own


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_line_ends(end: bytes) -> None:
    assert parsed(b"event: x" + end + b"data: a" + end + end + b"data: b" + end + end) == [
        (b"a", "x", 0),
        (b"b", "", 0),
    ]


def test_an_event_belongs_to_the_piece_that_completed_it() -> None:
    assert parsed(b"data: a\n", b"\n", b"data: b\n\ndata: c\n\n", b"da", b"ta: d\n\n") == [
        (b"a", "", 1),
        (b"b", "", 2),
        (b"c", "", 2),
        (b"d", "", 4),
    ]


def test_a_carriage_return_ends_the_event_before_its_line_feed_comes() -> None:
    assert parsed(b"data: a\r\n\r", b"\n", b"data: b\r\n\r\n") == [(b"a", "", 0), (b"b", "", 2)]


def test_what_has_no_blank_line_behind_it_is_no_event() -> None:
    assert parsed(b"data: a\n\n", b"data: b\n") == [(b"a", "", 0)]


def test_a_byte_order_mark_only_counts_at_the_start() -> None:
    assert parsed(b"\xef\xbb", b"\xbfdata: a\n\n", b"\xef\xbb\xbfdata: b\n\n") == [(b"a", "", 1)]


def test_a_plain_stream_takes_the_short_way_and_a_carriage_return_in_it_does_not() -> None:
    assert parsed(b"data: a\n\n", b"data: b\n\n") == [(b"a", "", 0), (b"b", "", 1)]
    assert parsed(b"data: a\n\n", b"data: b\rdata: c\n\n") == [(b"a", "", 0), (b"b\nc", "", 1)]


def test_nothing() -> None:
    assert parsed() == []
    assert parsed(b"", b"") == []


LINES = st.sampled_from(
    [b"data: a", b"data:b", b"data", b": c", b"event: e", b"event", b"id: 1", b"x", b"data:  \xc3\xb6", b""]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
STREAMS = st.lists(st.tuples(LINES, ENDS)).map(lambda lines: b"".join(line + end for line, end in lines))
PLAIN = st.lists(st.sampled_from([b"data: {}\n\n", b"data: [DONE]\n\n", b"data: \n\n"])).map(b"".join)


def cut(stream: bytes, at: Sequence[int]) -> list[bytes]:
    places = sorted({min(place, len(stream)) for place in at})
    return [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]


@given(STREAMS | PLAIN | st.binary(max_size=200), st.lists(st.integers(0, 200)), st.booleans())
def test_any_cut_gives_the_same_events_at_the_byte_that_completes_them(
    stream: bytes, at: list[int], marked: bool
) -> None:
    stream = b"\xef\xbb\xbf" + stream if marked else stream
    bytewise = list(events([stream[i : i + 1] for i in range(len(stream))]))
    pieces = cut(stream, at)
    ends = [sum(map(len, pieces[: i + 1])) for i in range(len(pieces))]
    expected = [(data, name, next(i for i, end in enumerate(ends) if end > byte)) for data, name, byte in bytewise]
    assert list(events(pieces)) == expected


@given(st.lists(st.binary(max_size=20)))
def test_any_bytes_at_all(pieces: list[bytes]) -> None:
    """Never an exception, and never more data than came."""
    assert sum(len(data) for data, _, _ in events(pieces)) <= sum(map(len, pieces))


def test_a_megabyte_bytewise_takes_no_square_time() -> None:
    parser = Parser()
    for _ in range(1 << 20):
        assert parser.feed(b"x") == []
    assert parser.feed(b"\n\n") == []
