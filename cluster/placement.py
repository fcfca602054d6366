"""Which worker goes where: a plan's fleet -> the bundles of a Ray placement group, and each worker's place in them. Pure.

Workers take turns in the regions, as requests take turns in the workers: each region has its equal share of one schedule.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from loadtest.types import Fleet

STRATEGIES = {"spread": "SPREAD", "pack": "PACK"}


class Placement(Struct, frozen=True):
    """`bundles`, `strategy` and `selectors` as ray.util.placement_group takes them."""

    bundles: list[dict[str, float]]
    strategy: str
    selectors: list[dict[str, str]]  # labels of the nodes that a bundle may be on
    bundle_of: list[int]  # of each worker
    vantage_of: list[str]


def placement(fleet: Fleet, workers: int) -> Placement:
    each = {"CPU": fleet.cpus, **fleet.resources}
    regions: Sequence[Any] = fleet.regions or [None]
    made = Placement([], STRATEGIES[fleet.placement], [], [0] * workers, [""] * workers)
    for index, region in enumerate(regions):
        here = range(index, workers, len(regions))
        size = fleet.per_node or 1
        for at in range(0, len(here), size):
            group = here[at : at + size]
            for worker in group:
                made.bundle_of[worker] = len(made.bundles)
                made.vantage_of[worker] = region.name if region else ""
            made.bundles.append({name: amount * len(group) for name, amount in each.items()})
            made.selectors.append(dict(region.labels) if region else {})
    strategy = "STRICT_SPREAD" if fleet.per_node else made.strategy
    return Placement(made.bundles, strategy, made.selectors, made.bundle_of, made.vantage_of)


def totals(fleet: Fleet, workers: int) -> dict[str, float]:
    """What all workers together ask for: a Ray of our own must have it."""
    return {name: amount * workers for name, amount in {"CPU": fleet.cpus, **fleet.resources}.items()}


def wanted(fleet: Fleet, workers: int) -> str:
    """What is asked for, in words."""
    each = said({"CPU": fleet.cpus, **fleet.resources})
    how = f", {fleet.per_node} on a node" if fleet.per_node else f", {fleet.placement}"
    where = f", in {', '.join(region.name for region in fleet.regions)}" if fleet.regions else ""
    return f"{workers} worker{'s' if workers != 1 else ''} with {each}{' each' if workers != 1 else ''}{how}{where}"


def lacking(fleet: Fleet, workers: int, nodes: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the nodes (as ray.nodes() has them) lack altogether, whatever else runs on them; each with a remedy."""
    alive = [node for node in nodes if node["Alive"]]
    out = []
    for region in fleet.regions:
        if not any(region.labels.items() <= node["Labels"].items() for node in alive):
            labels = ", ".join(f"{name}={value}" for name, value in region.labels.items())
            out.append(f"no node has the labels {labels} of region {region.name} (ray start --labels {labels})")
    for name, amount in totals(fleet, workers).items():
        there = sum(node["Resources"].get(name, 0) for node in alive)
        if there < amount:
            out.append(f"of {said({name: amount})} the cluster has {there:g}")
    if fleet.per_node and (groups := len(placement(fleet, workers).bundles)) > len(alive):
        out.append(f"{groups} nodes are needed for {fleet.per_node} workers on each and there are {len(alive)}")
    return out


def said(resources: Mapping[str, float]) -> str:
    return ", ".join(
        f"{amount / 2**30:.3g} GiB of memory" if name == "memory" else f"{amount:g} {name}"
        for name, amount in resources.items()
    )
