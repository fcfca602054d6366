"""The evidence behind a stamp: what is certain, and what is only bounded."""

import struct
import time

import gevent
import pytest

from loadtest.stamps import NO_STAMP, PollClock, Segments, TcpInfo, unpack


def test_control_data_becomes_nanoseconds() -> None:
    assert unpack(struct.pack("=qq", 1_700_000_000, 5) + NO_STAMP) == [1_700_000_000_000_000_005, 0]
    assert unpack(b"") == []


def info(bytes_in: int, segments: int) -> TcpInfo:
    return TcpInfo(rtt_us=1, retransmits=0, bytes_in=bytes_in, data_segments_in=segments)


def test_a_read_of_one_segment_is_certain_and_one_of_two_is_not() -> None:
    segments = Segments()
    assert segments.one(info(100, 1), reads=1, bytes_read=100)
    assert segments.one(info(900, 9), reads=9, bytes_read=900)  # the seven between were not looked at
    assert not segments.one(info(1200, 11), reads=10, bytes_read=1200)
    assert segments.one(info(1300, 12), reads=11, bytes_read=1300)


def test_growth_since_the_last_look_makes_a_read_uncertain_whichever_read_it_was() -> None:
    segments = Segments()
    assert not segments.one(info(500, 6), reads=5, bytes_read=500)


def test_a_segment_that_lies_unread_does_not_raise_what_later_reads_are_compared_with() -> None:
    segments = Segments()
    assert not segments.one(info(200, 2), reads=1, bytes_read=100)  # one more came in before we looked
    assert segments.one(info(200, 2), reads=2, bytes_read=200)
    assert not segments.one(info(400, 4), reads=3, bytes_read=400)


def test_nothing_is_certain_where_the_kernel_does_not_tell() -> None:
    assert not Segments().one(None, reads=1, bytes_read=1)


@pytest.fixture
def polls() -> PollClock:
    return PollClock()


def test_before_the_first_poll_nothing_is_known(polls: PollClock) -> None:
    assert polls.seen_empty_ns() == 0
    polls.close()


def test_a_poll_that_slept_bounds_what_woke_it(polls: PollClock) -> None:
    """What woke the loop came shortly before it woke, however long it slept."""
    seen: list[tuple[int, int]] = []
    timer = gevent.get_hub().loop.timer(0.05)
    gevent.sleep(0)  # so that the sleep has a beginning
    timer.start(lambda: seen.append((time.time_ns(), polls.seen_empty_ns())))
    gevent.sleep(0.1)
    polls.close()
    ((woken_ns, empty_ns),) = seen
    assert woken_ns - 60_000_000 < empty_ns < woken_ns
