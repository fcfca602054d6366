"""What kept a worker from its core: its own work, other processes, its cgroup's quota, its machine's hypervisor.

A host takes a `Moment` about twice a second while a measured stage goes on; `Gauge` turns them into shares of that time.
Linux tells all of it in files; what a system does not tell counts as 0 there.
"""

from collections import deque
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

SUSTAINED_NS = 3_000_000_000
PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


class Moment(Struct, frozen=True, kw_only=True):
    """Counters at one instant; only their differences mean anything."""

    at_ns: int  # of a clock that is never set
    cpu_ns: int = 0  # that the worker ran
    waited_ns: int = 0  # that it could have run and no core was free
    throttled_ns: int = 0  # that its cgroup was out of its quota
    stolen: int = 0  # of the machine's CPU time, in `ticks`
    ticks: int = 0


class Pressure(Struct):
    """Shares of the time of measured stages, as in validity.Generator."""

    busiest: float = 0
    busiest_waited: float = 0
    throttled: float = 0
    stolen: float = 0


class Gauge:
    """Adds moments up. Nothing is measured across a `pause`."""

    def __init__(self) -> None:
        self.pressure = Pressure()
        self._recent: deque[Moment] = deque()  # what the newest SUSTAINED_NS begin with, and since
        self._watched_ns = self._throttled_ns = self._stolen = self._ticks = 0

    @property
    def running(self) -> bool:
        return bool(self._recent)

    def pause(self) -> None:
        self._recent.clear()

    def note(self, moment: Moment) -> None:
        recent = self._recent
        if recent and _is_older(moment, recent[-1]):
            self.pause()  # the process has ended, or sits in another cgroup: these are not the same counters
        if recent:
            self._add(recent[-1], moment)
        recent.append(moment)
        while len(recent) > 1 and moment.at_ns - recent[1].at_ns >= SUSTAINED_NS:
            recent.popleft()
        if moment.at_ns - recent[0].at_ns >= SUSTAINED_NS:
            self._sustained(recent[0], moment)

    def _sustained(self, begin: Moment, end: Moment) -> None:
        span_ns = end.at_ns - begin.at_ns
        waited = (end.waited_ns - begin.waited_ns) / span_ns
        busy = (end.cpu_ns - begin.cpu_ns) / span_ns + waited
        if busy > self.pressure.busiest:
            self.pressure.busiest, self.pressure.busiest_waited = busy, waited

    def _add(self, begin: Moment, end: Moment) -> None:
        self._watched_ns += end.at_ns - begin.at_ns
        self._throttled_ns += end.throttled_ns - begin.throttled_ns
        self._stolen += end.stolen - begin.stolen
        self._ticks += end.ticks - begin.ticks
        self.pressure.throttled = self._throttled_ns / self._watched_ns if self._watched_ns else 0.0
        self.pressure.stolen = self._stolen / self._ticks if self._ticks else 0.0


def _is_older(moment: Moment, last: Moment) -> bool:
    return moment.throttled_ns < last.throttled_ns or moment.waited_ns < last.waited_ns


def moment(pid: int, at_ns: int, cpu_s: float, proc: Path = PROC, cgroups: Path = CGROUPS) -> Moment:
    stolen, ticks = _steal(_text(proc / "stat"))
    return Moment(
        at_ns=at_ns,
        cpu_ns=round(cpu_s * 1e9),
        waited_ns=_waited_ns(_text(proc / str(pid) / "schedstat")),
        throttled_ns=sum(_throttled_ns(_text(path)) for path in _cpu_stats(_text(proc / str(pid) / "cgroup"), cgroups)),
        stolen=stolen,
        ticks=ticks,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # no such system, no such process any more, or not ours to see
        return ""


def _waited_ns(schedstat: str) -> int:
    """`ran waited slices`, of the process's first thread: the one that runs the event loop."""
    parts = schedstat.split()
    return int(parts[1]) if len(parts) > 1 else 0


def _steal(stat: str) -> tuple[int, int]:
    """`cpu user nice system idle iowait irq softirq steal guest guest_nice`: guests are in user already."""
    parts = stat.partition("\n")[0].split()
    ticks = [int(part) for part in parts[1:9]]
    return (ticks[7], sum(ticks)) if len(ticks) == 8 else (0, 0)


def _cpu_stats(cgroup: str, root: Path) -> Iterator[Path]:
    """cpu.stat of the process's cgroup and of those above it, in the unified hierarchy (v2) or that of `cpu` (v1)."""
    for line in cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        mounts = [root, root / "unified"] if not controllers else [root / controllers, root / "cpu"]
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = next((each for each in mounts if (each / "cpu.stat").exists()), None)
        if mount is not None:
            parts = Path(path).relative_to("/").parts
            yield from (mount.joinpath(*parts[:depth], "cpu.stat") for depth in range(len(parts) + 1))


def _throttled_ns(cpu_stat: str) -> int:
    for line in cpu_stat.splitlines():
        name, _, value = line.partition(" ")
        if name == "throttled_usec":
            return int(value) * 1000
        if name == "throttled_time":
            return int(value)
    return 0
