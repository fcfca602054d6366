"""A fleet on Ray: each worker's host is an actor (actor.py), placed as the plan's fleet says (placement.py).

Nobody waits for one node. A poll takes what has been answered and lets the rest answer the next one; a host that has said
nothing for `LOST_AFTER_S` is lost, whatever Ray still believes, and stays lost: by then its lease has run out and it has
ended by itself. What Ray says of a death is believed at once.

Secrets come by method call: constructor arguments are kept by Ray for restarts.
"""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from msgspec.structs import replace
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster import files
from cluster.actor import HostActor
from cluster.clocks import Clocks, Reading
from cluster.connect import address_of, connect
from cluster.placement import lacking, placement, said, wanted
from loadtest.errors import RunFailed
from loadtest.frames import Setup
from loadtest.host import Status
from loadtest.run import POLL_EVERY_S, Check, Place, Say
from loadtest.store import Address
from loadtest.types import Region

ANSWER_WITHIN_S = 15.0
OPEN_WITHIN_S = 60.0
LOST_AFTER_S = 5.0  # above the actor's LEASE_S
PATIENCE_S = 1.0  # for all that are asked: well below the lease of those that answer
TELL_EVERY_S = 5.0
CLOCKS_EVERY_S = 10.0
CLOCK_WITHIN_S = 2.0
FRAMES_PIECE_BYTES = 8 << 20
LEAD_S = 1.0
COST_S = 0.001
"""A call to one worker takes the driver less than this; so it polls a thousand once a second, and five five times."""


class RayFleet:
    """Hosts as Ray actors. Ray is the one of the regions or at RAY_ADDRESS, or one started here and ended with the fleet.

    `setups` and `regions` may be a part of the run's (regions.py); workers keep their numbers and take turns in the regions.
    """

    def __init__(
        self,
        setups: list[Setup],
        address: Address,
        directory: Path,
        say: Say,
        check: Check = lambda: None,
        actor: type[HostActor] = HostActor,
        regions: list[Region] | None = None,
    ) -> None:
        self.workers = len(setups)
        self.start_lead_s = LEAD_S + 2 * COST_S * self.workers
        self.poll_every_s = max(POLL_EVERY_S, COST_S * self.workers)
        self.lost: dict[int, str] = {}
        self._raised: set[int] = set()  # of these: their actors live
        self._plan = setups[0].plan
        self._fleet = self._plan.fleet if regions is None else replace(self._plan.fleet, regions=regions)
        self._placement = placement(self._fleet, self.workers)
        self._numbers = [setup.shard for setup in setups]  # of the workers
        self._directory = directory
        self._say = say
        self._check = check
        self._own = not address_of(self._fleet)
        self._actors: dict[int, Any] = {}  # by worker, as in all that follow
        self._nodes: dict[int, str] = {}
        self._polls: dict[int, Any] = {}  # the one that is not answered yet
        self._silent_since: dict[int, float] = {}  # monotonic, of the first poll since its last answer
        self._statuses = {worker: Status(worker=worker, state="starting") for worker in self._numbers}
        self._clocks = Clocks()
        self._clock_thread = threading.Thread(target=self._measure_for_ever, name="clocks", daemon=True)
        self._over = threading.Event()
        self._group: Any = None
        if self._own and self._fleet.regions:
            raise RunFailed(
                "fleet.regions names places of a Ray cluster; set RAY_ADDRESS to the one that has them, or give each region "
                "the address of its own"
            )
        connect(self._fleet, self.workers)
        try:
            self._refuse_unreachable(address)
            self._place(actor)
            self._open(setups, address)
            self._measure_clocks()
        except BaseException:
            self.close()
            raise
        self._clock_thread.start()

    def call(self, method: str, *args: Any) -> list[Any]:
        if method == "poll":
            return self._poll()
        refs = {worker: self._actors[worker].call.remote(method, *args) for worker in self._living()}
        answers = self._answers(refs, PATIENCE_S)
        return [answers.get(worker) for worker in self._numbers]

    def places(self) -> list[Place]:
        nodes = self._nodes.values()
        readings = [self._clocks.worst.get(node, Reading(0, 0)) for node in nodes]
        return [
            Place(node, vantage, reading.offset_ns, reading.error_ns)
            for node, vantage, reading in zip(nodes, self._placement.vantage_of, readings, strict=True)
        ]

    @property
    def deserted(self) -> bool:
        """Whether nobody is left to be ended."""
        return not self._living() and not self._raised

    def fetch_frames(self) -> None:
        """Bring the frame files of other nodes here, of those that are still there."""
        if self._own:
            return
        for worker in self._living():
            with (self._directory / f"worker-{worker}.frames").open("wb") as file:
                while piece := self._read_frames(worker, file.tell()):
                    file.write(piece)

    def close(self) -> None:
        self._over.set()
        if self._clock_thread.is_alive():
            self._clock_thread.join(2 * CLOCK_WITHIN_S)
        there = [*self._living(), *self._raised]
        self._answers({worker: self._actors[worker].clean.remote() for worker in there}, LOST_AFTER_S)
        for worker in there:
            with suppress(RayError):
                ray.kill(self._actors[worker])
        ray.shutdown()  # with the driver's job Ray ends the placement group, and actors that were silent and come back

    # polls and calls

    def _living(self) -> list[int]:
        return [worker for worker in self._actors if worker not in self.lost]

    def _poll(self) -> list[Status | None]:
        """The newest status of each worker; of one that was silent this time the last one, without its samples."""
        silent = len(self._polls)
        for worker in self._living():
            if worker not in self._polls:
                self._polls[worker] = self._actors[worker].call.remote("poll")
                self._silent_since.setdefault(worker, time.monotonic())
        answers = self._answers(self._answered(silent), PATIENCE_S)
        for worker, status in answers.items():
            self._statuses[worker] = status
            del self._silent_since[worker]
        for worker, since in list(self._silent_since.items()):
            if time.monotonic() - since > LOST_AFTER_S:
                self._lose(worker, f"has not answered for {LOST_AFTER_S:g} s")
        return [None if worker in self.lost else self._status(worker, answers) for worker in self._numbers]

    def _answered(self, silent: int) -> dict[int, Any]:
        """The polls that are answered; for `silent` of them nobody waits."""
        refs = list(self._polls.values())
        if not refs:
            return {}
        ray.wait(refs, num_returns=max(1, len(refs) - silent), timeout=PATIENCE_S)
        ready = set(ray.wait(refs, num_returns=len(refs), timeout=0)[0])
        return {worker: self._polls.pop(worker) for worker, ref in list(self._polls.items()) if ref in ready}

    def _status(self, worker: int, answers: Mapping[int, Status]) -> Status:
        status = answers.get(worker)
        return status if status is not None else replace(self._statuses[worker], samples=[])

    def _answers(self, refs: Mapping[int, Any], within_s: float) -> dict[int, Any]:
        """What came in time, by worker. One whose actor is dead, or whose host raised something, is lost from now on."""
        if not refs:
            return {}
        ready = set(ray.wait(list(refs.values()), num_returns=len(refs), timeout=within_s)[0])
        out = {}
        for worker, ref in refs.items():
            try:
                if ref in ready:
                    out[worker] = ray.get(ref, timeout=PATIENCE_S)
            except RayTaskError as e:
                self._raised.add(worker)
                self._lose(worker, f"failed: {type(e.cause).__name__}: {e.cause}")  # Ray's own words are a traceback
            except ActorUnavailableError:
                continue  # silent: the polls tell whether for good
            except RayActorError as e:
                self._lose(worker, f"is gone: {_first_sentence(e)}")
            except RayError:
                continue  # its answer went with its node
        return out

    def _where(self, worker: int) -> str:
        return f" on node {self._nodes[worker]}" if worker in self._nodes else ""

    def _lose(self, worker: int, how: str) -> None:
        self.lost.setdefault(worker, f"worker {worker}{self._where(worker)} {how}")
        self._polls.pop(worker, None)
        self._silent_since.pop(worker, None)

    def _read_frames(self, worker: int, offset: int) -> bytes:
        ref = self._actors[worker].call.remote("read_frames", offset, FRAMES_PIECE_BYTES)
        return bytes(self._answers({worker: ref}, ANSWER_WITHIN_S).get(worker, b""))

    # the start

    def _place(self, actor: type[HostActor]) -> None:
        """Reserve the nodes and start the actors on them; nodes that are still to come are waited for."""
        fleet, chosen = self._fleet, self._placement
        deadline = time.monotonic() + fleet.wait_s
        self._group = placement_group(chosen.bundles, chosen.strategy, bundle_label_selector=chosen.selectors)
        self._await(lambda: self._group.wait(1), deadline)
        self._actors = dict(zip(self._numbers, self._start(actor), strict=True))
        refs = [actor.where.remote() for actor in self._actors.values()]
        self._await(lambda: _all_there(refs), deadline)
        try:
            where = [f"{ip} ({node[:8]})" for node, ip in ray.get(refs)]
            self._nodes = dict(zip(self._numbers, where, strict=True))
        except RayActorError as e:
            raise RunFailed(f"a worker's actor ended before it began: {_first_sentence(e)}") from e

    def _start(self, actor: type[HostActor]) -> list[Any]:
        """An actor for each worker, in its place."""
        fleet = self._fleet
        custom = {name: amount for name, amount in fleet.resources.items() if name != "memory"}
        memory = int(fleet.resources.get("memory", 0)) or None
        remote, actors = ray.remote(actor), []
        for bundle in self._placement.bundle_of:
            where = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=bundle)
            options = {"num_cpus": fleet.cpus, "resources": custom, "memory": memory, "max_restarts": 0}
            actors.append(remote.options(**options, scheduling_strategy=where).remote())
        return actors

    def _await(self, there: Callable[[], bool], deadline: float) -> None:
        fleet = self._fleet
        what = wanted(fleet, self.workers)
        told, tell_again = "", 0.0
        while not there():  # which looks for a second
            self._check()
            left_s = deadline - time.monotonic()
            nodes = ray.nodes()
            lacks = lacking(fleet, self.workers, nodes)
            if left_s <= 0:
                free = {"CPU": ray.available_resources().get("CPU", 0)}
                why = "; ".join(lacks) or f"only {said(free)} is free in the cluster"
                raise RunFailed(
                    f"{what}: not placed within {fleet.wait_s:g} s: {why}; add nodes, ask for less (--workers, fleet in the "
                    "plan), or wait longer (fleet.wait_s)"
                )
            why = f": {'; '.join(lacks)}" if lacks else ""
            alive = sum(node["Alive"] for node in nodes)
            where = f"on {alive} node{'s' if alive != 1 else ''} so far"
            if (news := f"{where}{why}") != told or time.monotonic() > tell_again:
                told, tell_again = news, time.monotonic() + TELL_EVERY_S
                self._say(f"waiting for {what}, {where}, {left_s:.0f} s left{why}")

    def _open(self, setups: list[Setup], address: Address) -> None:
        local = str(self._directory) if self._own else None
        paths = [] if self._own else files.named_by(self._plan)
        contents = ray.put({path: Path(path).read_bytes() for path in paths})
        placed = zip(setups, self._placement.vantage_of, strict=True)
        setups = [replace(setup, vantage=vantage) for setup, vantage in placed]
        refs = {s.shard: self._actors[s.shard].open.remote(s, address, local, contents) for s in setups}
        deadline = time.monotonic() + OPEN_WITHIN_S
        while not _all_there(list(refs.values())) and time.monotonic() < deadline:
            self._check()
        opened = self._answers(refs, 0)
        for worker in refs:
            if worker not in opened:
                what = f"worker {worker}{self._where(worker)} did not take its work within {OPEN_WITHIN_S:g} s"
                raise RunFailed(f"{self.lost.get(worker, what)}; nothing was sent")

    def _refuse_unreachable(self, address: Address) -> None:
        here = ray.util.get_node_ip_address()
        elsewhere = [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]
        if address.embedded and any(ip != here for ip in elsewhere):
            raise RunFailed(
                f"the store {address} is embedded and answers on this machine only, but the Ray cluster has other nodes "
                f"({', '.join(sorted(set(elsewhere) - {here}))}); give --store clickhouse://user@host:8123/database"
            )

    # the clocks

    def _measure_for_ever(self) -> None:
        while not self._over.wait(CLOCKS_EVERY_S):
            self._measure_clocks()

    def _measure_clocks(self) -> None:
        """By one actor of each node. With a Ray of our own there is only one clock."""
        if not self._own:
            one_of_each = {self._nodes[worker]: self._actors[worker] for worker in reversed(self._living())}
            self._clocks.measure({node: _asking(actor) for node, actor in one_of_each.items()})


def _all_there(refs: list[Any]) -> bool:
    """Looks for a second."""
    return len(ray.wait(refs, num_returns=len(refs), timeout=1)[0]) == len(refs)


def _asking(actor: Any) -> Callable[[], int]:
    def ask() -> int:
        try:
            return int(ray.get(actor.now_ns.remote(), timeout=CLOCK_WITHIN_S))
        except RayError as e:
            raise ConnectionError from e

    return ask


def _first_sentence(error: Exception) -> str:
    """Ray's own words go on for a page."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
