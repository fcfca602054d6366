"""To the Ray that is named, or to one that is started here: in seconds, or with a sentence that says why not."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray._raylet import Config, GcsClient  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError, RayError

from cluster.placement import totals
from loadtest.errors import RunFailed
from loadtest.types import Fleet

PROBE_S = 5
HEAD_AWAY_S = "86400"
OBJECT_STORE_BYTES = 80 << 20  # Ray's least: nothing of a run goes through it but the plan's files


def address_of(fleet: Fleet) -> str | None:
    """The regions that one fleet gets are all of one cluster."""
    return next((region.address for region in fleet.regions if region.address), os.environ.get("RAY_ADDRESS"))


def connect(fleet: Fleet, workers: int) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a load test tells nobody
    _outlive_the_head()
    for region in fleet.regions:
        if region.token_file:
            _set_token_file(region.token_file, region.name)
    address = address_of(fleet)
    options: dict[str, Any] = {"address": address}
    if address:
        if "://" not in address and address.rpartition(":")[2].isdigit():  # auto, ray://...: for Ray to find
            _probe(address, _named_in(fleet))
            _use_token(address)
    else:
        needed = totals(fleet, workers)  # a third one-CPU actor on two CPUs would pend for ever
        cpus = max(os.cpu_count() or 1, -int(-needed.pop("CPU") // 1))
        options = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
        options["object_store_memory"] = OBJECT_STORE_BYTES
        options["_memory"] = needed.pop("memory", None)
        options["resources"] = needed
    try:
        with _own_sigterm():
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as e:  # Ray raises a bare one where its own node takes longer than it waits, 30 s
        if address is None:
            raise RunFailed(
                f"no Ray could be started here: {e}; has this machine a free core and 1 GB of memory? Its logs are in "
                "/tmp/ray/session_latest/logs; nothing was sent"
            ) from e
        raise RunFailed(
            f"no Ray at {address}: {e}; start one (ray start --head), or correct {_named_in(fleet)}; "
            "where it asks for a token, is it the one here (RAY_AUTH_MODE, ~/.ray/auth_token, token_file of a region)?"
        ) from e


def _set_token_file(path: str, region: str) -> None:
    """Ray itself ends the process over a file that it cannot read."""
    try:
        empty = not Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as e:
        raise RunFailed(f"token_file of region {region} cannot be read: {e}; nothing was sent") from None
    if empty:
        raise RunFailed(f"token_file of region {region} is empty: {path}; nothing was sent")
    os.environ.pop("RAY_AUTH_TOKEN", None)
    os.environ["RAY_AUTH_TOKEN_PATH"] = path


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray sets a handler of its own, which exits: a run that is told to end would have no report."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _outlive_the_head() -> None:
    """Ray ends a process that cannot reach its head for a minute, without a word that Python hears. Its actors may go by
    that; a driver has a report to write, and learns from their silence all that it needs."""
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", HEAD_AWAY_S)
    Config.initialize("")  # what was read of the environment when Ray was imported


def _named_in(fleet: Fleet) -> str:
    return "the address of the region" if any(region.address for region in fleet.regions) else "RAY_ADDRESS"


def _probe(address: str, named_in: str) -> None:
    """Ray itself tries for minutes before it says that nobody is there."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_S).close()
    except OSError as e:
        raise RunFailed(f"no Ray at {address}: {e}; start one (ray start --head), or correct {named_in}") from e


def _use_token(address: str) -> None:
    """Show the user's token to a cluster that asks for one, as `ray start` does once a user has one.

    Ray itself sends none to an address that it is told. Nor may one always be sent: a driver that has one turns away
    those that have none, and a cluster without takes that for the driver's death.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        with _unheard():
            GcsClient(address=address)
    except AuthenticationError:
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    except (RayError, ValueError, RuntimeError):
        pass  # ray.init says it better


@contextmanager
def _unheard() -> Iterator[None]:
    """Ray's native part warns on descriptor 2 of what is asked here on purpose."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
