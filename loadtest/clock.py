"""Waiting for an instant of the real-time clock, under gevent, to some tens of microseconds.

libev's own timers are rounded up to the next millisecond (epoll_wait counts in those), which would be a millisecond of
schedule lag on every request. A timerfd has the kernel's resolution and is one more descriptor for the same loop.
"""

import ctypes
import os
import time

import gevent
from gevent.event import Event

TFD_TIMER_ABSTIME = 1


class _Timerspec(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns"))


class Alarm:
    """One greenlet at a time sleeps on it; any other may end that sleep for good with `stop`."""

    def __init__(self) -> None:
        self.stopped = False
        self._rung = Event()
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            self._settime = libc.timerfd_settime
            self._fd = libc.timerfd_create(time.CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC)
        except AttributeError:  # not Linux: libev's milliseconds must do
            self._fd = -1
        if self._fd >= 0:
            self._watcher = gevent.get_hub().loop.io(self._fd, 1)
            self._watcher.start(self._rung.set)

    def stop(self) -> None:
        self.stopped = True
        self._rung.set()

    def sleep_until(self, due_ns: int) -> bool:
        """Return once `due_ns` has come (True) or the alarm was stopped (False); always let other greenlets run once."""
        gevent.sleep(0)
        while not self.stopped and (left_ns := due_ns - time.time_ns()) > 0:
            self._rung.clear()
            if self._fd >= 0:
                at_s, at_ns = divmod(due_ns, 1_000_000_000)
                self._settime(self._fd, TFD_TIMER_ABSTIME, ctypes.byref(_Timerspec(0, 0, at_s, at_ns)), None)
            # the time-out is for a real-time clock that was set back while we slept, and for systems without timerfd
            self._rung.wait(min(left_ns / 1e9, 1.0) + (0.05 if self._fd >= 0 else 0))
            if self._fd >= 0:
                self._drain()
        return not self.stopped

    def _drain(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            pass

    def close(self) -> None:
        if self._fd >= 0:
            self._watcher.stop()
            self._watcher.close()
            os.close(self._fd)
            self._fd = -1
