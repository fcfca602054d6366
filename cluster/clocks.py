"""How far the clocks of the nodes are from the driver's, each with the error bar of the measurement.

An exchange asks a node for its time. The node read its clock somewhere between question and answer, so its offset is known
to half the round trip, whatever the two ways were: of several exchanges the quickest one says most. That is repeated while
the run goes on, and the worst of the rounds counts. Nothing is corrected by it: it says how far stamps of different nodes
may be compared. The durations of a request never need it, since both ends are stamps of one clock.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from msgspec import Struct

EXCHANGES = 8
AT_ONCE = 16


class Reading(Struct, frozen=True):
    """The node's clock minus the driver's is `offset_ns`, give or take `error_ns`."""

    offset_ns: int
    error_ns: int

    @property
    def bound_ns(self) -> int:
        """The clocks are not further apart than this."""
        return abs(self.offset_ns) + self.error_ns


Ask = Callable[[], int]


def exchange(ask: Ask, real_ns: Ask = time.time_ns, monotonic_ns: Ask = time.monotonic_ns) -> Reading:
    began_ns = monotonic_ns()
    sent_ns = real_ns()
    theirs_ns = ask()
    round_trip_ns = monotonic_ns() - began_ns
    return Reading(theirs_ns - sent_ns - round_trip_ns // 2, round_trip_ns // 2 + 1)


class Clocks:
    """The worst reading of each node so far, each the best of its round."""

    def __init__(self) -> None:
        self.worst: dict[str, Reading] = {}

    def measure(self, nodes: Mapping[str, Ask]) -> None:
        """One round. A node that does not answer (`ask` raises TimeoutError or ConnectionError) is left as it is known."""
        with ThreadPoolExecutor(max(1, min(AT_ONCE, len(nodes)))) as pool:
            for node, reading in zip(nodes, pool.map(_best, nodes.values()), strict=True):
                known = self.worst.get(node)
                if reading and (known is None or reading.bound_ns > known.bound_ns):
                    self.worst[node] = reading


def _best(ask: Ask) -> Reading | None:
    try:
        return min((exchange(ask) for _ in range(EXCHANGES)), key=lambda reading: reading.error_ns)
    except (TimeoutError, ConnectionError):
        return None
