"""What runs on this machine, as far as tests ask."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except (OSError, IndexError):
        return 0


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def is_below(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        pid = parent(pid)
    return False


def workers_of(cluster: Any) -> list[int]:
    """The worker processes that run below a node of the cluster."""
    raylets = [of_node(node) for node in cluster.list_all_nodes()]
    return [pid for pid in pids() if "loadtest.worker" in command(pid) and any(is_below(pid, r) for r in raylets)]


def of_node(node: Any) -> int:
    """The process id of its raylet."""
    return int(node.all_processes["raylet"][0].process.pid)


def below(ancestor: int) -> list[int]:
    return [pid for pid in pids() if is_below(pid, ancestor)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def is_open(port: int) -> bool:
    """Whether anybody listens there on loopback."""
    with socket.socket() as way:
        return not way.connect_ex(("127.0.0.1", port))


def wait_until(so: Callable[[], bool], within_s: float, every_s: float = 0.1) -> float:
    """Returns how long it took."""
    began = time.monotonic()
    while not so():
        assert time.monotonic() - began < within_s, f"waited {within_s} s in vain"
        time.sleep(every_s)
    return time.monotonic() - began
