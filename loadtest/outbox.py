"""A worker process's way out: frames on a pipe, and the report of itself that it sends ten times a second."""

import os
import resource
import time
from collections.abc import Sequence

import gevent

from loadtest import skew
from loadtest.frames import Frame, Report, StageCount, pack

REPORT_EVERY_S = 0.1
FLUSH_EVERY_S = 0.025
FLUSH_AT_BYTES = 64 << 10
OUTBOX_LIMIT_BYTES = 64 << 20


class Outbox:
    """The way out: a bounded buffer before a non-blocking pipe, so that a slow host never holds a request up."""

    def __init__(self, fd: int) -> None:
        self.dropped = 0
        self._fd = fd
        self._buffer = bytearray()
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
        return True

    def flush_for(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self.flush() and time.monotonic() < deadline:
            gevent.sleep(0.005)


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
