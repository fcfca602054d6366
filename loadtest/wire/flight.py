"""The wait of one request, and how it ends early."""

from collections.abc import Callable
from time import time_ns
from typing import Any, TypeVar

import gevent
from gevent import getcurrent

from loadtest.types import ErrorWord

T = TypeVar("T")

LINGER_S = 0.5
"""How often a stream is looked at that may have said its last word without ending, and how long it must have been
silent by then: it is let go within twice this time."""


class Broken(Exception):
    """A request has ended early, by the named error."""

    def __init__(self, word: ErrorWord, detail: str) -> None:
        super().__init__(word, detail)
        self.word = word
        self.detail = detail


class Flight:
    """One request in the air: puts its greenlet to sleep, and wakes it for an event, a time limit or a cancellation.

    `judge(now_ns)` says in how many seconds to look again, raises Broken when time is up, and returns None when there
    is nothing left to wait for. The wire looks at all of its flights every `LINGER_S`; a timer of its own has only one
    that is to be looked at sooner.
    """

    __slots__ = ("_asleep", "_cancelled", "_judge", "_loop", "_switch_to_hub", "_timer", "request")

    def __init__(self) -> None:
        hub = gevent.get_hub()
        self._loop = hub.loop
        self._switch_to_hub: Callable[[], None] = hub.switch
        self._asleep: Any = None
        self._cancelled = False
        self._judge: Callable[[int], float | None] | None = None
        self._timer: Any = None
        self.request = b""

    def cancel(self) -> None:
        """End the request from another greenlet; what was measured until then is kept."""
        self._cancelled = True
        self._loop.run_callback(self._throw, Broken("cancelled", "the run ended before the answer did"))

    def watch(self, judge: Callable[[int], float | None], *, at_once: bool = True) -> None:
        """`at_once`: where a limit may be nearer than the next look at all flights."""
        self._judge = judge
        if at_once or self._timer is not None:
            self.look()

    def sleep(self) -> None:
        """Until `wake`."""
        self.during(self._switch_to_hub)

    def during(self, wait: Callable[[], T]) -> T:
        """A wait of whatever kind, which time limits and cancellation can end."""
        if self._cancelled:
            raise Broken("cancelled", "the run ended before the answer did")
        self._asleep = getcurrent()
        try:
            return wait()
        finally:
            self._asleep = None

    def wake(self) -> None:
        if self._asleep is not None:
            self._asleep.switch()

    def land(self) -> None:
        self._judge = None
        self._stop_timer()

    def look(self) -> None:
        self._stop_timer()
        if self._judge is None:
            return
        try:
            seconds = self._judge(time_ns())
        except Exception as e:  # the event loop would only print it, and the request hang
            broken = e if isinstance(e, Broken) else Broken("generator", f"while waiting for the answer: {e!r}")
            if self._asleep is None:
                raise broken from e
            self._throw(broken)
            return
        if seconds is None:
            self.wake()
        elif seconds < LINGER_S:
            self._timer = self._loop.timer(max(seconds, 0.001))
            self._timer.start(self.look)

    def _throw(self, broken: Broken) -> None:
        if self._asleep is not None:
            self._asleep.throw(broken)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
