"""What nobody knew before the run: the names under which a locustfile's requests are grouped.

A snapshot carries them with the counts, so that it can be handed on as it is; whoever shows it or adds it up names it first.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from loadtest.frames import StageCount, TargetCount
from loadtest.locustfiles import options
from loadtest.types import Plan

if TYPE_CHECKING:
    from loadtest.run import Snapshot


def named(snapshot: "Snapshot") -> "Snapshot":
    """The snapshot as if its plan had the requests' names for targets: every count has one of each, in one order.

    That of a plan, and one that was named already, stays as it is.
    """
    if not snapshot.of_locustfile:
        return snapshot
    names = options.in_locusts_order({name for host in snapshot.hosts for c in host.stages for name in c.names})
    hosts = [replace(host, stages=[_in_order(count, names) for count in host.stages]) for host in snapshot.hosts]
    return replace(snapshot, plan=_with_names(snapshot.plan, names), hosts=hosts, of_locustfile=False)


def _in_order(count: StageCount, names: Sequence[str]) -> StageCount:
    of = dict(zip(count.names, count.targets, strict=True))
    return replace(count, targets=[of.get(name, TargetCount()) for name in names])


def _with_names(plan: Plan, names: Sequence[str]) -> Plan:
    return replace(plan, targets=[options.target(name) for name in names])
