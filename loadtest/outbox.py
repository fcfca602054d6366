"""A worker process's way out: frames on a pipe, and the report of itself that it sends ten times a second.

A host that is gone closes its ends of the pipes. One that is there and stands still, as in a frozen container, closes
nothing, and its worker would go on sending paid requests that nobody counts: so the worker looks whether it is read.
"""

import fcntl
import os
import resource
import struct
import sys
import termios
import time
from collections.abc import Sequence

import gevent

from loadtest import skew
from loadtest.frames import UNREAD_S, UNREAD_STATUS, Frame, Report, StageCount, pack

REPORT_EVERY_S = 0.1
UNREAD_LOOKS = round(UNREAD_S / REPORT_EVERY_S)
"""Looks and not seconds: where the host stood still because the whole machine did, it reads after the next one."""
FLUSH_EVERY_S = 0.025
FLUSH_AT_BYTES = 64 << 10
OUTBOX_LIMIT_BYTES = 64 << 20


class Outbox:
    """The way out: a bounded buffer before a non-blocking pipe, so that a slow host never holds a request up."""

    def __init__(self, fd: int) -> None:
        self.dropped = 0
        self._fd = fd
        self._buffer = bytearray()
        self._written = self._read = self._unread_looks = 0  # the first two in bytes
        os.set_blocking(fd, False)

    def put(self, frame: Frame) -> None:
        if len(self._buffer) > OUTBOX_LIMIT_BYTES:
            self.dropped += 1
        else:
            self._buffer += pack(frame)
            if len(self._buffer) > FLUSH_AT_BYTES:
                self.flush()

    def flush(self) -> bool:
        """Write what the pipe takes; True when nothing is left."""
        while self._buffer:
            try:
                written = os.write(self._fd, self._buffer[: 1 << 18])
            except BlockingIOError:
                return False
            del self._buffer[:written]
            self._written += written
        return True

    def flush_for(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self.flush() and time.monotonic() < deadline:
            gevent.sleep(0.005)

    def end_if_unread(self) -> None:
        """With each report: end this process once its host has read nothing for `UNREAD_S`."""
        (waiting,) = struct.unpack("i", fcntl.ioctl(self._fd, termios.FIONREAD, bytes(4)))
        read = self._written - waiting
        self._unread_looks = self._unread_looks + 1 if waiting and read == self._read else 0
        self._read = read
        if self._unread_looks > UNREAD_LOOKS:
            print(f"the host of this worker has read nothing for {UNREAD_S:g} s; nothing more is sent", file=sys.stderr)
            sys.stderr.flush()
            os._exit(UNREAD_STATUS)


def report(outbox: Outbox, stages: list[StageCount], users: int = 0, problems: Sequence[str] = ()) -> Report:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    now = skew.pair()
    return Report(
        at_ns=now.real_ns,
        monotonic_raw_ns=now.raw_ns,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_rss_bytes=peak_rss_bytes(),
        dropped_frames=outbox.dropped,
        stages=stages,
        users=users,
        problems=list(problems),
    )


def peak_rss_bytes() -> int:
    """VmHWM: unlike ru_maxrss, it does not begin with what the process that forked us held."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
