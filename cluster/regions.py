"""Regions on Ray clusters of their own: a process has one connection to Ray, so each cluster gets a process here, which holds
the fleet there (fleet.py) and does what the driver says. To the driver they are one fleet.

All of them are on the driver's machine, so there is one clock that the nodes of every cluster are compared with. A process
that says nothing holds up nobody, as a host that says nothing doesn't; of one that is gone, all workers are lost.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path
from socket import socketpair
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from cluster.actor import FETCHED_WITHIN_S, LEASE_S
from cluster.fleet import RayFleet
from loadtest.errors import RunFailed, UserError
from loadtest.frames import Setup
from loadtest.host import Status
from loadtest.run import Check, Fleet, Place, Say
from loadtest.store import Address
from loadtest.types import Region

ASKING_S = 1.0  # what asking all clusters may take beside the wait for their answers
LOST_AFTER_S = 10.0
CHECK_EVERY_S = 1.0
END_WITHIN_S = 20.0


class Work(Struct):
    """The first that a cluster's process is told."""

    setups: list[Setup]
    address: Address
    directory: Path
    regions: list[Region]


class Said(Struct):
    words: str


class Ready(Struct):
    start_lead_s: float
    poll_every_s: float


class Failed(Struct):
    words: str


class Question(Struct):
    asked_s: float  # monotonic
    is_poll: bool


class Answer(Struct):
    value: Any
    lost: dict[int, str]


def fleet_of(setups: list[Setup], address: Address, directory: Path, say: Say, check: Check) -> Fleet:
    """On as many Ray clusters as the plan's regions name."""
    clusters = by_cluster(setups[0].plan.fleet.regions)
    if len(clusters) > 1:
        return Clusters(clusters, setups, address, directory, say, check)
    return RayFleet(setups, address, directory, say, check)


def by_cluster(regions: Sequence[Region]) -> list[list[int]]:
    """Which regions, by their indices, are places of one cluster."""
    found: dict[tuple[str, str | None], list[int]] = {}
    for index, region in enumerate(regions):
        found.setdefault((region.address, region.token_file), []).append(index)
    return list(found.values())


class Cluster:
    """One cluster's process, as the driver sees it. Its answers come in the order of the questions."""

    def __init__(self, number: int, work: Work) -> None:
        self.workers = [setup.shard for setup in work.setups]
        self.vantages = {setup.shard: work.regions[at % len(work.regions)].name for at, setup in enumerate(work.setups)}
        where = work.regions[0].address or os.environ.get("RAY_ADDRESS", "")
        self.name = f"{', '.join(region.name for region in work.regions)}{f' at {where}' if where else ''}"
        self.ready: Ready | None = None
        self.lost: dict[int, str] = {}
        self.gone = False
        self.log_path = work.directory / f"cluster-{number}.log"
        self._statuses = {worker: Status(worker=worker, state="starting") for worker in self.workers}
        self._unanswered: list[Question] = []
        ours, theirs = socketpair()
        with ours, theirs, self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cluster.regions", str(theirs.fileno())],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is for the driver alone
            )  # fmt: skip
            self.connection = connection.Connection(ours.detach())
        try:
            self.connection.send(work)
        except OSError:
            self.end()
            raise self._ended() from None

    def ask(self, method: str, *args: Any) -> None:
        if not self.gone:
            try:
                self.connection.send((method, args))
                self._unanswered.append(Question(time.monotonic(), is_poll=args == ("poll",)))
            except OSError:
                self._lose("has ended")

    def answer(self, by: float) -> Any:
        """To the last question, if it comes `by` then; else None. What a poll brings is kept for `statuses`."""
        value = None
        while self._unanswered and not self.gone:
            try:
                if not self.connection.poll(max(0.0, by - time.monotonic())):
                    if time.monotonic() - self._unanswered[0].asked_s > LOST_AFTER_S:
                        self._lose(f"has not answered for {LOST_AFTER_S:g} s")
                    return None
                told = self.connection.recv()
            except (EOFError, OSError):
                self._lose("has ended")
                return None
            if isinstance(told, Answer):
                value = told.value
                self.lost |= told.lost
                if self._unanswered.pop(0).is_poll:
                    self._keep(told.value)
        return value

    def statuses(self) -> dict[int, Status]:
        """The newest of each worker; hosts hand samples over once, and so does this."""
        newest = self._statuses
        self._statuses = {worker: replace(status, samples=[]) for worker, status in newest.items()}
        return newest

    def _keep(self, told: list[Status | None]) -> None:
        for status in told:
            if status is not None:
                samples = [*self._statuses[status.worker].samples, *status.samples]
                self._statuses[status.worker] = replace(status, samples=samples)

    def hear(self, say: Say) -> None:
        """Something of its start. Raises RunFailed if there will be none."""
        try:
            match self.connection.recv():
                case Said(words):
                    say(f"{self.name}: {words}")
                case Failed(words):
                    raise RunFailed(f"{self.name}: {words}")
                case Ready() as ready:
                    self.ready = ready
        except (EOFError, OSError):
            raise self._ended() from None

    def owes(self) -> bool:
        return bool(self._unanswered)

    def _ended(self) -> RunFailed:
        self.await_end(time.monotonic() + END_WITHIN_S)  # its last words
        see = f"; see {self.log_path}" if self.log_path.exists() else ""
        how = f"with status {self._process.returncode}{see}"
        return RunFailed(f"{self.name}: the process that holds the cluster has ended {how}; nothing was sent")

    def _lose(self, how: str) -> None:
        self.gone = True
        for worker in self.workers:
            self.lost.setdefault(worker, f"worker {worker} in {self.name}: the process that holds the cluster {how}")
        self._process.kill()

    def end(self) -> None:
        """It closes its fleet when nobody speaks to it any more."""
        self.connection.close()

    def await_end(self, by: float) -> None:
        try:
            self._process.wait(max(0.0, by - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self.log_path.exists() and not self.log_path.stat().st_size:
            self.log_path.unlink()


class Clusters:
    """The fleets of several clusters as one."""

    def __init__(
        self,
        clusters: list[list[int]],
        setups: list[Setup],
        address: Address,
        directory: Path,
        say: Say,
        check: Check,
    ) -> None:
        regions = setups[0].plan.fleet.regions
        self.workers = len(setups)
        self._clusters: list[Cluster] = []
        try:
            for number, its in enumerate(clusters):
                mine = [setup for setup in setups if setup.shard % len(regions) in its]
                work = Work(mine, address, directory, [regions[index] for index in its])
                self._clusters.append(Cluster(number, work))
            self._start(say, check)
        except BaseException:
            self.close()
            raise
        ready = [cluster.ready for cluster in self._clusters if cluster.ready]
        self.start_lead_s = max(each.start_lead_s for each in ready)
        self.poll_every_s = max(each.poll_every_s for each in ready)
        self._answer_within_s = (
            LEASE_S - self.poll_every_s - ASKING_S
        )  # of actors that wait while another cluster's are slow

    @property
    def lost(self) -> Mapping[int, str]:
        return {worker: how for cluster in self._clusters for worker, how in cluster.lost.items()}

    def call(self, method: str, *args: Any) -> list[Any]:
        if method == "poll":
            return self._poll()
        answers: dict[int, Any] = {}
        for cluster, told in self._ask("call", method, *args).items():
            answers |= zip(cluster.workers, told or [None] * len(cluster.workers), strict=True)
        return [answers.get(worker) for worker in range(self.workers)]

    def places(self) -> list[Place]:
        found: dict[int, Place] = {}
        for cluster, told in self._ask("places", patience_s=LOST_AFTER_S).items():
            unknown = [Place("unknown", cluster.vantages[worker]) for worker in cluster.workers]
            found |= zip(cluster.workers, told or unknown, strict=True)
        return [found[worker] for worker in range(self.workers)]

    def fetch_frames(self) -> None:
        self._ask("fetch_frames", patience_s=FETCHED_WITHIN_S)

    def close(self) -> None:
        for cluster in self._clusters:
            cluster.end()
        deadline = time.monotonic() + END_WITHIN_S
        for cluster in self._clusters:
            cluster.await_end(deadline)

    def _start(self, say: Say, check: Check) -> None:
        while waiting := {cluster.connection: cluster for cluster in self._clusters if cluster.ready is None}:
            for one in connection.wait(list(waiting), CHECK_EVERY_S):
                waiting[one].hear(say)  # type: ignore[index]
            check()

    def _poll(self) -> list[Status | None]:
        """The newest status of each worker; where a cluster's process was silent the last one, without its samples."""
        self._ask("call", "poll")
        newest: dict[int, Status] = {}
        for cluster in self._clusters:
            newest |= cluster.statuses()
        lost = self.lost
        return [None if worker in lost else newest[worker] for worker in range(self.workers)]

    def _ask(self, method: str, *args: Any, patience_s: float | None = None) -> dict[Cluster, Any]:
        """Of all at once. One that owes an answer already is not waited for unless there is patience, and not polled
        again; all else waits its turn there."""
        owing = [cluster for cluster in self._clusters if cluster.owes()]
        for cluster in self._clusters:
            if not (args == ("poll",) and cluster in owing):
                cluster.ask(method, *args)
        now = time.monotonic()
        late = now + (patience_s or 0)
        by = now + (patience_s or self._answer_within_s)
        return {cluster: cluster.answer(late if cluster in owing else by) for cluster in self._clusters}


def main(fd: int) -> None:
    """The process of one cluster: until the driver closes its end, or has ended."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # `ray job stop` sends it to the driver's children too
    with connection.Connection(fd) as driver, suppress(EOFError, ConnectionError):
        work: Work = driver.recv()

        def say(words: str) -> None:
            driver.send(Said(words))

        def check() -> None:
            if driver.poll():  # it says nothing before it is told Ready
                raise EOFError

        try:
            fleet = RayFleet(work.setups, work.address, work.directory, say, check, regions=work.regions)
        except UserError as e:
            driver.send(Failed(str(e)))
            return
        try:
            driver.send(Ready(fleet.start_lead_s, fleet.poll_every_s))
            while True:
                method, args = driver.recv()
                value = getattr(fleet, method)(*args)
                driver.send(Answer(value, dict(fleet.lost)))
        finally:
            if not fleet.deserted:
                fleet.close()
            elif isinstance(sys.exception(), EOFError | ConnectionError):
                os._exit(0)  # Ray would wait for an answer of the cluster, which is lost


if __name__ == "__main__":
    from cluster import regions  # what is sent is of the module that the driver has, not of __main__

    regions.main(int(sys.argv[1]))
