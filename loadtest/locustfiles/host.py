"""What a host does differently for a worker that runs a locustfile: nothing is due, and names come up as they are requested.

So nobody can say what a dead worker would have sent: what it was known to have in flight is sent and lost, and Locust's
master gives its users to the others until a new process has joined.
"""

import time

from msgspec.structs import replace

from loadtest.frames import Report, Setup, StageCount, TargetCount, decode_frame
from loadtest.host import Host, added
from loadtest.locustfiles import options
from loadtest.store import Address
from loadtest.types import Result


def host_of(setup: Setup, address: Address, directory: str) -> Host:
    """The host for what is to be run."""
    return Host(setup, address, directory) if setup.locust is None else LocustHost(setup, address, directory)


class LocustHost(Host):
    def _measures(self, _stage: int) -> bool:
        return True

    def _on_report(self, report: Report) -> None:
        super()._on_report(report)
        self._status.users = report.users
        self._status.problems = [p for p in self._status.problems if p not in self._told] + report.problems
        self._told = report.problems

    _told: list[str] = []  # noqa: RUF012 replaced as a whole: what the worker's last report complained of

    def _book_dead(self) -> None:
        late = [decode_frame(payload) for payload in self._since_report]
        for stage, count in self._newest.items():
            name = options.stage_name(stage)
            results = [r for r in late if isinstance(r, Result) and r.stage == name]
            self._newest[stage] = _settled(count, results)
            self._booked[stage] = self._total(stage)
        if self._status.state == "failed":
            for count in self._booked.values():
                count.end_ns = count.end_ns or time.time_ns()
                count.drained_ns = count.drained_ns or time.time_ns()
        self._newest = {}
        self._since_report = []
        self._status.users = 0
        self._looked_ns = 0
        self._skew.restart()
        self._gauge.pause()
        self._cpu_of_the_dead_s = self._status.cpu_s
        self._number_on()

    def _number_on(self) -> None:
        """The next process must not give a request the number of one of the last one's."""
        assert self.setup.locust is not None
        first = sum(target.sent for count in self._booked.values() for target in count.targets)
        self.setup = replace(self.setup, locust=replace(self.setup.locust, first=first))

    def _total(self, stage: int) -> StageCount:
        booked, newest = self._booked.get(stage), self._newest.get(stage)
        if booked is None or newest is None:
            return super()._total(stage)
        by_name = dict(zip(booked.names, booked.targets, strict=True))
        for name, count in zip(newest.names, newest.targets, strict=True):
            by_name[name] = added(by_name.get(name, TargetCount()), count)
        return replace(
            newest,
            names=list(by_name),
            targets=list(by_name.values()),
            start_ns=booked.start_ns,
            first_start_ns=booked.first_start_ns,
        )


def _settled(count: StageCount, late: list[Result]) -> StageCount:
    """With the results that came after the last report. What it had in flight stays `sent`, and will have no row."""
    by_name = dict(zip(count.names, count.targets, strict=True))
    for result in late:
        target = by_name.setdefault(result.target, TargetCount())
        if target.in_flight:
            target.in_flight -= 1
        else:
            target.sent += 1
            target.scheduled += 1
        target.done += 1
        target.failed += result.error is not None
    for target in by_name.values():
        target.in_flight = target.oldest_ns = 0
    return replace(count, names=list(by_name), targets=list(by_name.values()))
