"""Looking at sockets together: when, and what it knows of those that were not there."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gevent
import pytest

from loadtest.lookout import Lookout

PAIRS = 20


@pytest.fixture
def lookout() -> Iterator[Lookout]:
    made = Lookout()
    yield made
    made.close()


@contextmanager
def written(sockets: list[socket.socket]) -> Iterator[None]:
    """A thread that writes a byte to one after the other, some thousand a second in all."""
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            for sock in sockets:
                sock.send(b"x")
            over.wait(0.002)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def pairs(lookout: Lookout, read: Callable[[socket.socket], None]) -> Iterator[list[socket.socket]]:
    """Connected sockets; `read` is called with an end that has something to read."""
    made = [socket.socketpair() for _ in range(PAIRS)]
    for _, end in made:
        end.setblocking(False)
        lookout.add(end.fileno(), lambda end=end: read(end))  # type: ignore[misc]
    yield [begin for begin, _ in made]
    for begin, end in made:
        lookout.remove(end.fileno())
        begin.close()
        end.close()


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        gevent.sleep(0.005)
    return condition()


def test_a_single_chunk_is_read_at_once(lookout: Lookout) -> None:
    seen: list[bytes] = []
    with pairs(lookout, lambda end: seen.append(end.recv(9))) as begins:
        begins[3].send(b"a")
        assert until(lambda: bool(seen))
        assert not lookout.calm
    assert seen == [b"a"]


def test_looks_are_timed_while_much_comes_and_no_longer(lookout: Lookout) -> None:
    read = 0

    def take(end: socket.socket) -> None:
        nonlocal read
        read += len(end.recv(4096))

    with pairs(lookout, take) as begins:
        with written(begins):
            assert until(lambda: lookout.calm)
            before = read
            assert until(lambda: read > before + 1000)
        assert until(lambda: not lookout.calm)
        begins[0].send(b"a")  # wakes it as at first
        before = read
        assert until(lambda: read > before)


def test_answers_that_end_are_not_waited_for(lookout: Lookout) -> None:
    read = 0

    def end_answer(end: socket.socket) -> None:
        nonlocal read
        end.recv(4096)
        lookout.ended += 1
        read += 1

    with pairs(lookout, end_answer) as begins, written(begins):
        assert until(lambda: read > 1000)
        assert not lookout.calm


def test_where_chunks_merge_looks_are_timed_no_more(lookout: Lookout) -> None:
    merging = False

    def take(end: socket.socket) -> None:
        end.recv(4096)
        if merging:
            lookout.note_merged()

    with pairs(lookout, take) as begins, written(begins):
        assert until(lambda: lookout.calm)
        merging = True
        assert until(lambda: not lookout.calm)
        merging = False
        gevent.sleep(0.1)
        assert not lookout.calm


def test_a_socket_was_empty_in_the_look_before(lookout: Lookout) -> None:
    """Whatever is read came after the moment that the lookout names: here, each byte says when it was sent."""
    early = []

    def take(end: socket.socket) -> None:
        sent_ns = int.from_bytes(end.recv(8))
        early.append(sent_ns - lookout.seen_empty_ns())

    with pairs(lookout, take) as begins:
        for _ in range(30):
            for begin in begins:
                begin.send(time.time_ns().to_bytes(8))
            gevent.sleep(0.002)
    assert len(early) == 30 * PAIRS
    assert min(early) > -100_000  # the send itself took time after its clock was read


def test_what_is_closed_within_a_look_is_not_called(lookout: Lookout) -> None:
    one, other = socket.socketpair(), socket.socketpair()
    called: list[socket.socket] = []

    def close(mine: socket.socket, theirs: socket.socket) -> None:
        called.append(mine)
        mine.recv(1)
        lookout.remove(theirs.fileno())

    for mine, theirs in ((one[1], other[1]), (other[1], one[1])):
        mine.setblocking(False)
        lookout.add(mine.fileno(), lambda mine=mine, theirs=theirs: close(mine, theirs))  # type: ignore[misc]
    one[0].send(b"a")
    other[0].send(b"a")
    assert until(lambda: bool(called))
    gevent.sleep(0.05)
    assert len(called) == 1
    lookout.remove(called[0].fileno())
    for sock in (*one, *other):
        sock.close()
