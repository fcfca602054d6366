"""When bytes arrived, and how sure that is.

Linux stamps each segment when it comes in (SO_TIMESTAMPNS) and hands out, with each read, the stamp of the *last*
segment read. One chunk a read is therefore exact, however late the read. Where one read holds several chunks, the
first of them may have come earlier than the stamp says, by at most stamp - (the last moment at which the socket is
known to have been empty). Three sources know such moments; each is a lower bound of the first arrival, so the latest
of them counts, and a source that is missing on some system only makes the uncertainty larger, never smaller:

1. The reads of this socket. The clock is taken before a read, and the read takes all that had come by then.
2. The kernel's count of data segments (TCP_INFO). On one connection, segments in - reads grows with every read of more
   than one segment; where it did not grow, the chunks came in one segment, whose stamp is exact: uncertainty 0. It can
   only err to the careful side (duplicates and segments not yet read count too), as long as what it is compared with
   was taken when nothing lay unread, which the count of bytes tells.
3. The event loop's polls. A poll that did not report this socket saw it empty. And if the poll that did report it had
   to sleep first, the socket was empty when it began, and its first arrival did not come before what ended the sleep:
   the poll's return, less what the thread then waited for a core (the second number of /proc/thread-self/schedstat),
   less `WAKE_UP_NS` for what that number does not hold (the interrupt of an idle core, system calls). A process that
   is stopped in its sleep, or whose whole machine is, waits without being counted: a timer ends every poll within
   `TICK_S`, so one that took much longer proves it, and only the poll's beginning is trusted.

Source 3 trusts the loop to report every ready socket in one poll. libev reports at most 64 at first and doubles that
as often as it is reached, so in the few polls of a process's life that reach a new record it is too sure by one poll.
"""

import _socket
import os
import struct
import sys
from socket import IPPROTO_TCP, SOL_SOCKET
from time import time_ns
from typing import Any

import gevent
from msgspec import Struct

SO_TIMESTAMPNS = 35
ANCILLARY_BYTES = 64
NO_STAMP = bytes(16)
TCP_INFO_BYTES = 160
_TCP_INFO = struct.Struct("=68xI28xI24xQ16xI")
CLOSE_WAIT = 8
WAKE_UP_NS = 100_000
SLEPT_NS = 100_000  # a poll that took longer, and not for want of a core, slept
IDLE_NS = 1_000_000  # after a poll this long there is time to read schedstat
TICK_S = 0.02
STOPPED_NS = 30_000_000  # a poll that took longer, and not for want of a core, slept through a tick


def stamping_socket() -> _socket.socket | None:
    """A socket that asks for stamps, to be kept open as long as the process lives; None where there are no stamps.

    The kernel begins to stamp when the first socket asks for it, by a deferred job: without this one, the first reads
    of a process may have none.
    """
    if sys.platform != "linux":
        return None
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    try:
        sock.setsockopt(SOL_SOCKET, SO_TIMESTAMPNS, 1)
    except OSError:
        sock.close()
        return None
    return sock


def unpack(controls: bytes | bytearray) -> list[int]:
    """Control data of reads, one behind the other -> nanoseconds, 0 where a read had no stamp."""
    return [s * 1_000_000_000 + ns for s, ns in struct.iter_unpack("=qq", controls)]


class TcpInfo(Struct, frozen=True):
    """What the kernel knows about a connection; `unread` is what it holds for us, were `received` the bytes read so
    far."""

    rtt_us: int
    retransmits: int
    bytes_in: int
    data_segments_in: int


def tcp_info(sock: _socket.socket) -> TcpInfo | None:
    try:
        raw = sock.getsockopt(IPPROTO_TCP, _socket.TCP_INFO, TCP_INFO_BYTES)
    except (OSError, AttributeError):
        return None
    if len(raw) < TCP_INFO_BYTES:
        return None
    rtt_us, retransmits, bytes_in, data_segments_in = _TCP_INFO.unpack_from(raw)
    fin = raw[0] == CLOSE_WAIT  # the end of the connection counts as a byte
    return TcpInfo(rtt_us, retransmits, bytes_in - fin, data_segments_in)


class Segments:
    """Source 2, for one connection: whether the last read took one segment."""

    __slots__ = ("_surplus",)

    def __init__(self) -> None:
        self._surplus = 0

    def one(self, info: TcpInfo | None, reads: int, bytes_read: int) -> bool:
        """`info` was taken right after the last of `reads` reads, which brought `bytes_read` bytes altogether."""
        if info is None:
            return False
        surplus = info.data_segments_in - reads
        one = surplus <= self._surplus
        if info.bytes_in == bytes_read:
            self._surplus = surplus
        return one


class PollClock:
    """Source 3: when the event loop of this thread polled."""

    def __init__(self) -> None:
        self._before_ns = self._after_ns = self._empty_ns = 0
        self._run_delay_ns = self._growth_ns = 0
        self._sampled_after_ns = -1
        try:
            self._schedstat = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._schedstat = -1
        if self._schedstat >= 0 and os.pread(self._schedstat, 100, 0).startswith(b"0 "):
            os.close(self._schedstat)  # a kernel that does not count
            self._schedstat = -1
        loop = gevent.get_hub().loop
        self._watchers: list[Any] = [
            loop.prepare(ref=False, priority=loop.MINPRI),  # after all greenlets that can run have run
            loop.check(ref=False, priority=loop.MAXPRI),  # before any socket is read
        ]
        self._watchers[0].start(self._before_poll)
        self._watchers[1].start(self._after_poll)
        self._watchers.append(loop.timer(TICK_S, repeat=TICK_S, ref=False))
        self._watchers[2].start(lambda: None)

    def _before_poll(self) -> None:
        self._empty_ns = self._before_ns
        if self._after_ns - self._before_ns > IDLE_NS and (growth_ns := self._waited_for_core_ns()) is not None:
            self._empty_ns = self._slept_until_ns(growth_ns)
        self._before_ns = time_ns()

    def _after_poll(self) -> None:
        self._after_ns = time_ns()

    def seen_empty_ns(self) -> int:
        """A moment when a socket that the present poll reported, and not the one before, was empty. 0: none is known."""
        polled_ns = self._after_ns - self._before_ns
        growth_ns = self._waited_for_core_ns() if polled_ns > SLEPT_NS else None
        if growth_ns is None or polled_ns - growth_ns <= SLEPT_NS:
            return self._empty_ns
        return self._slept_until_ns(growth_ns)

    def _slept_until_ns(self, growth_ns: int) -> int:
        """When the present poll's sleep was ended, at the earliest."""
        if self._after_ns - self._before_ns - growth_ns > STOPPED_NS:
            return self._before_ns
        return max(self._before_ns, self._after_ns - growth_ns - WAKE_UP_NS)

    def _waited_for_core_ns(self) -> int | None:
        """For how long this thread has waited for a core since before the present poll, at most."""
        if self._schedstat < 0:
            return None
        if self._sampled_after_ns != self._after_ns:
            total_ns = int(os.pread(self._schedstat, 100, 0).split()[1])
            self._growth_ns, self._run_delay_ns = total_ns - self._run_delay_ns, total_ns
            self._sampled_after_ns = self._after_ns
        return self._growth_ns

    def close(self) -> None:
        for watcher in self._watchers:
            watcher.stop()
            watcher.close()
        self._watchers.clear()
        if self._schedstat >= 0:
            os.close(self._schedstat)
            self._schedstat = -1
