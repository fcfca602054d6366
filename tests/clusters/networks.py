"""Two hosts and the network between them: two network namespaces, joined by a pair of tun devices.

What is written to one comes out of the other after a delay, unless it is lost: netem in user space, since many kernels
come without it. Both ends keep their own TCP, so that what is lost is really sent again.
"""

import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import threading
import time
from itertools import count
from types import TracebackType

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
ADDRESSES = ("10.77.0.1", "10.77.0.2")


def is_possible() -> bool:
    return os.geteuid() == 0 and os.access("/dev/net/tun", os.W_OK) and os.path.exists("/usr/sbin/ip")


class Link:
    """Within `with`: namespaces whose programs run by `inside[host]`, one way `delay_s` and `loss` apart in each direction."""

    def __init__(self, delay_s: float, loss: float) -> None:
        self.loss = loss
        self._delay_s = delay_s
        self._names = [f"lt{os.getpid() % 100_000}{end}" for end in "ab"]
        self._random = random.Random(7)
        self._over = threading.Event()
        self.inside = [("ip", "netns", "exec", name) for name in self._names]

    def __enter__(self) -> "Link":
        self._fds = [
            self._end(name, *ends) for name, ends in zip(self._names, (ADDRESSES, ADDRESSES[::-1]), strict=True)
        ]
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        for fd in self._fds:
            os.close(fd)
        for name in self._names:
            _ip("netns", "del", name)

    def cut(self) -> None:
        self.loss = 1.0

    def _end(self, name: str, here: str, there: str) -> int:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
        _ip("netns", "add", name)
        _ip("link", "set", name, "netns", name)
        _ip("-n", name, "addr", "add", here, "peer", there, "dev", name)
        for device in ("lo", name):
            _ip("-n", name, "link", "set", device, "up")
        _ip("-n", name, "route", "add", "default", "via", there)
        return fd

    def _carry(self) -> None:
        under_way: list[tuple[float, int, int, bytes]] = []  # due, number, to, packet
        numbers = count()
        while not self._over.is_set():
            now = time.monotonic()
            while under_way and under_way[0][0] <= now:
                _, _, to, packet = heapq.heappop(under_way)
                os.write(to, packet)
            wait_s = max(0.0, under_way[0][0] - now) if under_way else 0.1
            for fd in select.select(self._fds, [], [], min(wait_s, 0.1))[0]:
                packet = os.read(fd, 65_536)
                if self._random.random() >= self.loss:
                    to = self._fds[1 - self._fds.index(fd)]
                    heapq.heappush(under_way, (time.monotonic() + self._delay_s, next(numbers), to, packet))


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
