"""A fleet on Ray: each host is an actor with one CPU, spread over the nodes, and its worker is a child of that actor.

Locust must not be imported inside a Ray actor (its monkey-patching hangs there), which is one of the reasons why the worker
is a process of its own. Secrets come by method call: constructor arguments are kept by Ray for restarts.
"""

import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import ray
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from cluster import files
from loadtest.errors import RunFailed
from loadtest.frames import Setup
from loadtest.host import Host
from loadtest.store import Address

PROBE_S = 5
PLACED_WITHIN_S = 60
ANSWER_WITHIN_S = 15
FRAMES_PIECE_BYTES = 8 << 20
OBJECT_STORE_BYTES = 80 << 20  # Ray's least: nothing of a run goes through it but the plan's files


class HostActor:
    """The very Host that runs locally, behind one method."""

    def __init__(self) -> None:
        self._host: Host | None = None
        self._made: str | None = None

    def open(self, setup: Setup, address: Address, directory: str | None, contents: Mapping[str, bytes]) -> None:
        """`directory`: for the frame file; None: one of this node's own, which also takes the plan's files."""
        if directory is None:
            directory = self._made = tempfile.mkdtemp(prefix=f"loadtest-{setup.run}-")
            moved = files.write(contents, Path(directory))
            setup = msgspec.structs.replace(setup, plan=files.relocated(setup.plan, moved))
        self._host = Host(setup, address, directory)

    def call(self, method: str, *args: Any) -> Any:
        return getattr(self._host, method)(*args)

    def clean(self) -> None:
        if self._made:
            shutil.rmtree(self._made, ignore_errors=True)


class RayFleet:
    """Hosts as Ray actors. Ray is the one at RAY_ADDRESS, or one started here and ended with the fleet."""

    start_lead_s = 1.0

    def __init__(self, setups: list[Setup], address: Address, directory: Path) -> None:
        self.workers = len(setups)
        self._directory = directory
        self._own = not os.environ.get("RAY_ADDRESS")
        self._actors: list[Any] = []
        self._connect()
        try:
            self._refuse_unreachable(address)
            actor = ray.remote(HostActor).options(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")
            self._actors = [actor.remote() for _ in setups]
            self._await_placement()
            self._open(setups, address)
        except BaseException:
            self.close()
            raise

    def call(self, method: str, *args: Any) -> list[Any]:
        refs = [actor.call.remote(method, *args) for actor in self._actors]
        deadline = time.monotonic() + ANSWER_WITHIN_S
        return [_answer(ref, deadline) for ref in refs]

    def fetch_frames(self) -> None:
        """Bring the frame files of other nodes here."""
        if self._own:
            return
        for shard, actor in enumerate(self._actors):
            with (self._directory / f"worker-{shard}.frames").open("wb") as file:
                while piece := _answer(
                    actor.call.remote("read_frames", file.tell(), FRAMES_PIECE_BYTES),
                    time.monotonic() + ANSWER_WITHIN_S,
                ):
                    file.write(piece)

    def close(self) -> None:
        deadline = time.monotonic() + ANSWER_WITHIN_S
        for ref in [actor.clean.remote() for actor in self._actors]:
            _answer(ref, deadline)
        for actor in self._actors:
            ray.kill(actor)
        ray.shutdown()

    def _open(self, setups: list[Setup], address: Address) -> None:
        local = str(self._directory) if self._own else None
        paths = [] if self._own else files.named_by(setups[0].plan)
        contents = ray.put({path: Path(path).read_bytes() for path in paths})
        pairs = zip(self._actors, setups, strict=True)
        ray.get([actor.open.remote(setup, address, local, contents) for actor, setup in pairs])

    def _refuse_unreachable(self, address: Address) -> None:
        here = ray.util.get_node_ip_address()
        elsewhere = [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]
        if address.embedded and any(ip != here for ip in elsewhere):
            raise RunFailed(
                f"the store {address} is embedded and answers on this machine only, but the Ray cluster has other nodes "
                f"({', '.join(sorted(set(elsewhere) - {here}))}); give --store clickhouse://user@host:8123/database"
            )

    def _connect(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a load test tells nobody
        options: dict[str, Any] = {"address": os.environ.get("RAY_ADDRESS")}
        if not self._own:
            _probe(os.environ["RAY_ADDRESS"])
            _use_token()
        if self._own:
            cpus = max(os.cpu_count() or 1, self.workers)  # a third one-CPU actor on two CPUs would pend for ever
            options = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
            options["object_store_memory"] = OBJECT_STORE_BYTES
        try:
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        except (RayError, ConnectionError, ValueError, RuntimeError) as e:
            where = os.environ.get("RAY_ADDRESS", "a local Ray")
            raise RunFailed(
                f"no Ray at {where}: {e}; start one (ray start --head), correct RAY_ADDRESS or unset it; where it asks for "
                "a token, is it the one here (RAY_AUTH_MODE, ~/.ray/auth_token)?"
            ) from e

    def _await_placement(self) -> None:
        try:
            ray.get([actor.__ray_ready__.remote() for actor in self._actors], timeout=PLACED_WITHIN_S)
        except GetTimeoutError:
            free = ray.available_resources().get("CPU", 0)
            raise RunFailed(
                f"{self.workers} workers of one CPU each were not placed within {PLACED_WITHIN_S} s: {free:g} CPUs are free "
                "in the cluster; use fewer --workers or add nodes"
            ) from None


def _probe(address: str) -> None:
    """Ray itself tries for minutes before it says that nobody is there."""
    host, _, port = address.rpartition(":")
    if "://" in address or not port.isdigit():
        return  # auto, ray://...: for Ray to find
    try:
        socket.create_connection((host, int(port)), timeout=PROBE_S).close()
    except OSError as e:
        raise RunFailed(
            f"no Ray at {address}: {e}; start one (ray start --head), correct RAY_ADDRESS or unset it"
        ) from e


def _use_token() -> None:
    """Ray makes a token for each user and `ray start` then asks for it, but a client told an address does not send it."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def _answer(ref: Any, deadline: float) -> Any:
    """A host's answer; None where its actor is gone or silent."""
    try:
        return ray.get(ref, timeout=max(0.1, deadline - time.monotonic()))
    except (RayActorError, GetTimeoutError):
        return None
