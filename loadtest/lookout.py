"""Which connections have something to read: asked for all of them at once, and not oftener than is worth it.

A stamp is the kernel's, so a chunk loses nothing by lying in the kernel for a millisecond, as long as no second chunk of
its stream comes to lie behind it. To look after every chunk, as an event loop does, costs as much again as reading it.
So the sockets are in an epoll set of their own, of which the loop knows one descriptor:

- While little comes, the loop watches that descriptor and wakes for the first chunk: at once, as always.
- While chunks of unfinished answers come at `OFTEN_PER_S` or more, it does not: a timer looks every `LOOK_EVERY_S`,
  and reads what has come meanwhile in one go. Answers that end are not counted, so that load without streaming is not
  held up by it.
- Where such looks find chunks of one stream that have come in the same millisecond (more than `MERGED_SHARE` of them),
  the stamps would suffer, and the loop goes back to waking at once for `NOT_AGAIN_S`. What a late look merged, because
  this thread did not get a core, does not count: to look oftener would not help that.

Where there is no epoll, each socket has a watcher of its own.
"""

import time
from collections.abc import Callable
from typing import Any

import gevent
from gevent.monkey import get_original

from loadtest.stamps import PollClock

READABLE = 1
LOOK_EVERY_S = 0.001
LATE_NS = 3_000_000  # libev rounds a timer up to the next millisecond
OFTEN_PER_S = 2000
JUDGED_EVERY_NS = 10_000_000
MERGED_SHARE = 0.05
NOT_AGAIN_S = 10


class Lookout:
    """For the thread that made it, whose gevent hub drives it."""

    def __init__(self) -> None:
        self.ended = 0  # answers, by whoever reads them
        self.calm = False  # whether looks are timed
        self._polls = PollClock()
        self._loop = gevent.get_hub().loop
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._watchers: dict[int, Any] = {}  # without epoll
        self._looked_ns = self._looked_before_ns = 0
        self._came = self._merged = 0  # since `_judged_ns`
        self._judged_ns = self._not_before_ns = 0
        try:
            self._epoll: Any = get_original("select", "epoll")()
        except AttributeError:
            self._epoll = None
            return
        self._at_once = self._loop.io(self._epoll.fileno(), READABLE, ref=False)
        self._at_once.start(self._look)
        self._timed = self._loop.timer(LOOK_EVERY_S, LOOK_EVERY_S, ref=False)

    def add(self, fd: int, on_readable: Callable[[], None]) -> None:
        if self._epoll is None:
            self._watchers[fd] = self._loop.io(fd, READABLE, ref=False)
            self._watchers[fd].start(on_readable)
            return
        self._callbacks[fd] = on_readable
        self._epoll.register(fd, READABLE)

    def remove(self, fd: int) -> None:
        """Before it is closed, and gets a new owner."""
        if self._epoll is None:
            watcher = self._watchers.pop(fd)
            watcher.stop()
            watcher.close()
            return
        del self._callbacks[fd]
        self._epoll.unregister(fd)

    def seen_empty_ns(self) -> int:
        """A moment when a socket that is read now, and was not in the look before, was empty. 0: none is known."""
        if self.calm:
            return self._looked_before_ns
        return max(self._looked_before_ns, self._polls.seen_empty_ns())

    def note_merged(self) -> None:
        """Chunks of one stream were read together."""
        self._merged += self._looked_ns - self._looked_before_ns < LATE_NS

    def _look(self) -> None:
        self._looked_before_ns = self._looked_ns
        self._looked_ns = now_ns = time.time_ns()
        callbacks = self._callbacks
        ready = self._epoll.poll(0, len(callbacks) + 1)  # all there are: who is not among them was empty
        for fd, _ in ready:
            callback = callbacks.get(fd)
            if callback is not None:  # else what was read before it has closed it
                callback()
        self._came += len(ready)
        if now_ns - self._judged_ns >= JUDGED_EVERY_NS:
            self._judge(now_ns)

    def _judge(self, now_ns: int) -> None:
        often = (self._came - self.ended) * 1_000_000_000 >= OFTEN_PER_S * (now_ns - self._judged_ns)
        if self.calm and self._merged > MERGED_SHARE * self._came:
            self._not_before_ns = now_ns + NOT_AGAIN_S * 1_000_000_000
        calm = often and now_ns >= self._not_before_ns
        if calm != self.calm:
            (self._at_once if calm else self._timed).stop()
            (self._timed if calm else self._at_once).start(self._look)
            (self._polls.pause if calm else self._polls.resume)()
            self.calm = calm
        self._judged_ns = now_ns
        self._came = self._merged = self.ended = 0

    def close(self) -> None:
        self._polls.close()
        self._callbacks.clear()
        if self._epoll is not None:
            for watcher in (self._at_once, self._timed):
                watcher.stop()
                watcher.close()
            self._epoll.close()
