"""`loadtest run --locustfile` from its arguments to its exit status: Locust's master, then the fleet, then what any run has."""

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from loadtest import live, session
from loadtest import plan as plans
from loadtest.detach import good_id
from loadtest.errors import Interrupted, PlanError, RunFailed
from loadtest.frames import LocustSetup, Setup
from loadtest.locustfiles import options
from loadtest.locustfiles.driver import LocustDriver, Master
from loadtest.locustfiles.frames import MasterReady, MasterSetup
from loadtest.locustfiles.options import Options
from loadtest.recorder import Recorder
from loadtest.run import READY_WITHIN_S, Interrupts, Say, Snapshot, View
from loadtest.store import Address, Store

LOOPBACK = "127.0.0.1"
ANYWHERE = "192.0.2.1"  # an address of nobody's, by which the way out is found
WEB_PORT = 8089  # Locust's own


def run(
    asked: Options,
    make_fleet: session.MakeFleet,
    master_host: str,
    store: str | None,
    out: Path | None,
    quiet: bool,
    run_id: str | None = None,
) -> int:
    """Returns the exit status; raises UserError before anything is sent. `master_host`: where workers reach Locust's
    master."""
    options.check(asked)
    asked = replace(asked, locustfile=asked.locustfile.resolve())
    run_id = good_id(run_id)

    def drive(
        database: Store, directory: Path, interrupts: Interrupts, view: live.View, recorder: Recorder
    ) -> session.Driven:
        def show(snapshot: Snapshot) -> None:
            recorder.note(snapshot)
            view.show(snapshot)

        with view:
            view.say("starting Locust's master and the workers")
            load = Load(asked, run_id, master_host, make_fleet, database.address, directory, view.say)
            return load.drive(show, interrupts, lambda url: view.say(f"Locust's page: {url}")), []

    plan = options.plan(asked)
    return session.carry_out(drive, plan, lambda p: options.record(asked, p), run_id, store, out, quiet)


class Load(Struct):
    """One run's load, from nothing to nothing: Locust's master, the fleet, the driver."""

    asked: Options
    run: str
    master_host: str
    make_fleet: session.MakeFleet
    address: Address
    directory: Path
    say: Say

    def drive(self, show: View, interrupts: Interrupts, say_page: Callable[[str], None] = lambda _: None) -> Snapshot:
        web_port = free_port(WEB_PORT) if self.asked.web else None
        arguments = options.of_master(self.asked, web_port)
        master = Master(MasterSetup(str(self.asked.locustfile), arguments, self.master_host), self.directory)
        try:
            ready = master.wait_ready(READY_WITHIN_S)
            fleet = self.make_fleet(self._setups(ready), self.address, self.directory, self.say, interrupts.check)
            try:
                driver = LocustDriver(options.plan(self.asked), self.run, fleet, show, interrupts, master, ready.page)
                snapshot = driver.go(say_page)
                fleet.fetch_frames()
            finally:
                fleet.close()
        finally:
            master.close()
        _refuse_nothing(snapshot, master)
        return snapshot

    def _setups(self, ready: MasterReady) -> list[Setup]:
        asked, plan = self.asked, options.plan(self.asked)
        keys = _resolved(ready.keys)
        directory = asked.locustfile.parent
        locust = LocustSetup(
            locustfile=str(asked.locustfile),
            arguments=options.of_workers(asked),
            master_host=self.master_host,
            master_port=ready.port,
            files={str(Path(file).relative_to(directory)): Path(file).read_bytes() for file in ready.modules},
        )
        return [Setup(self.run, plan, keys, shard, asked.workers, locust) for shard in range(asked.workers)]


def _resolved(references: Mapping[str, str]) -> dict[str, str]:
    """The secrets that InferenceUsers refer to, found here: the workers' machines need not have them."""
    keys = {}
    for user, reference in references.items():
        if not reference.startswith(("env:", "file:")):
            raise PlanError(f"the key of {user} must be env:NAME or file:PATH, never the key itself")
        try:
            keys[user] = plans.secret(reference, os.environ)
        except ValueError as e:
            raise PlanError(f"{user} has no usable key: {e}") from None
    return keys


def _refuse_nothing(snapshot: Snapshot, master: Master) -> None:
    """A run without a single request has nothing to report on, and is no success."""
    if any(count.targets for host in snapshot.hosts for count in host.stages):
        return
    if snapshot.interrupted:
        raise Interrupted("interrupted before the first request; nothing was sent")
    problems = [problem for host in snapshot.hosts for problem in host.problems]
    raise RunFailed(
        f"the locustfile made no request: {problems[0] if problems else 'no user fired an event of one'}; "
        f"Locust's own words are in {master.log_path} and the workers' logs beside it"
    )


def free_port(wished: int) -> int:
    """The wished one if nobody has it, else any."""
    for port in (wished, 0):
        with socket.socket() as taken:
            try:
                taken.bind((LOOPBACK, port))
            except OSError:
                continue
            return int(taken.getsockname()[1])
    raise RunFailed("no port is free for Locust's page")


def address_towards(ray_address: str | None) -> str:
    """Under which the nodes of a cluster reach this machine; loopback where there is no cluster but ours."""
    if not ray_address:
        return LOOPBACK
    host = urlsplit(ray_address if "://" in ray_address else f"//{ray_address}").hostname or socket.gethostname()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
            way.connect((ANYWHERE if host == "auto" else host, 9))  # sends nothing
            return str(way.getsockname()[0])
    except OSError as e:
        raise RunFailed(f"no way to the Ray cluster at {ray_address}: {e}; correct RAY_ADDRESS or unset it") from None
