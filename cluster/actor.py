"""What runs on a node: one Host behind one Ray actor, which ends itself when nobody asks for it any more.

Ray kills the actors of a driver that died, but only where its own control plane can be reached. A node that was cut off
would go on sending paid requests that nobody counts, so each actor holds a lease: every call renews it, and when it has
run out the worker is ended, what it had measured is stored, and the actor's process goes.

Locust must not be imported inside a Ray actor (its monkey-patching hangs there), which is one of the reasons why the worker
is a process of its own.
"""

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import ray

from cluster import files
from loadtest.frames import Setup
from loadtest.host import Host
from loadtest.locustfiles.host import host_of
from loadtest.store import Address

LEASE_S = 4.0
STORED_WITHIN_S = 12.0
FETCHED_WITHIN_S = 600.0  # once nothing runs here any more: the driver fetches one worker's frames after the other's
LOOK_EVERY_S = 0.5


class HostActor:
    """The very Host that runs locally, behind one method."""

    def __init__(self, lease_s: float = LEASE_S) -> None:
        self._host: Host | None = None
        self._made: str | None = None
        self._lease_s = lease_s
        self._heard = float("inf")  # monotonic; the lease begins with the first call

    def where(self) -> tuple[str, str]:
        """Node id and address."""
        return ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()

    def now_ns(self) -> int:
        """This node's real-time clock, for clocks.py."""
        return time.time_ns()

    def open(self, setup: Setup, address: Address, directory: str | None, contents: Mapping[str, bytes]) -> None:
        """`directory`: for the frame file; None: one of this node's own, which also takes the plan's files."""
        if directory is None:
            directory = self._made = tempfile.mkdtemp(prefix=f"loadtest-{setup.run}-")
            moved = files.write(contents, Path(directory))
            setup = msgspec.structs.replace(setup, plan=files.relocated(setup.plan, moved))
            setup = files.landed(setup, Path(directory))
        self._host = host_of(setup, address, directory)
        threading.Thread(target=self._end_when_forgotten, daemon=True).start()

    def call(self, method: str, *args: Any) -> Any:
        self._heard = time.monotonic()
        return getattr(self._host, method)(*args)

    def clean(self) -> None:
        if self._made:
            shutil.rmtree(self._made, ignore_errors=True)

    def _end_when_forgotten(self) -> None:
        host = self._host
        assert host is not None
        while time.monotonic() - self._heard < (FETCHED_WITHIN_S if host.finished else self._lease_s):
            time.sleep(LOOK_EVERY_S)
        host.close()
        deadline = time.monotonic() + STORED_WITHIN_S
        while not host.finished and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY_S)
        host.kill()
        self.clean()
        os._exit(1)
