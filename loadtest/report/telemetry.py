"""What a target's GPUs and engines did in each stage, and how the sources of that answered: of summary.json and the report.

A figure that no source gave is None, and is shown as "not provided".
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from loadtest.gpu import figures

Row = dict[str, Any]
Group = tuple[str, str]  # stage, target

MEASURES = {
    "utilization": "hw.gpu.utilization",
    "memory_bytes": "hw.gpu.memory.usage",
    "memory_limit_bytes": "hw.gpu.memory.limit",
    "power_w": "hw.power",
    "temperature_c": "hw.temperature",
    "clock_hz": "gpu.clock.sm",
    "running": "engine.running",
    "queue_length": "engine.queue_length",
    "batch_size": "engine.batch_size",
    "kv_cache_utilization": "engine.kv_cache_utilization",
}
"""Fields of Devices -> the sampled gauges."""


class Meanwhile(Struct, frozen=True):
    """Over a stage's steps: of all devices together, or their mean, with the extremes of one (gpu/figures.py)."""

    mean: float
    least: float
    most: float


class Devices(Struct, kw_only=True):
    """What serves one target, in one stage. `covered` is the share of the stage's steps that have a value at all."""

    gpus: int = 0
    engines: int = 0
    covered: float = 0
    oldest_s: float = 0
    utilization: Meanwhile | None = None
    memory_bytes: Meanwhile | None = None
    memory_limit_bytes: Meanwhile | None = None
    power_w: Meanwhile | None = None
    temperature_c: Meanwhile | None = None
    clock_hz: Meanwhile | None = None
    running: Meanwhile | None = None
    queue_length: Meanwhile | None = None
    batch_size: Meanwhile | None = None
    kv_cache_utilization: Meanwhile | None = None
    throttled_s: dict[str, float] | None = None  # by reason, over all devices together
    energy_j: float | None = None
    energy_j_per_output_token: float | None = None


class Source(Struct, kw_only=True):
    """How one source answered over the run."""

    kind: str
    targets: list[str]
    scrapes: int
    failed: int
    errors: dict[str, int]
    slowest_s: float
    values: int
    oldest_s: float


def sources(ask: Callable[[str], list[Row]]) -> dict[str, Source]:
    """By name; empty where the run sampled nothing. `ask` runs a query of the run."""
    return {
        row.pop("source"): Source(
            **row | {"targets": sorted(row["targets"]), "errors": dict(sorted(row["errors"].items()))}
        )
        for row in ask(figures.SCRAPES)
    }


def devices(ask: Callable[[str], list[Row]], energy_per_token: Mapping[Group, float | None]) -> dict[Group, Devices]:
    """`energy_per_token`: the metric of that name."""
    fields = {metric: field for field, metric in MEASURES.items()}
    out: dict[Group, Devices] = {}
    for row in ask(figures.of_stages()):
        made = out.setdefault((row["stage"], row["target"]), Devices())
        kind = "engines" if row["metric"].startswith("engine.") else "gpus"
        setattr(made, kind, max(getattr(made, kind), row["devices"]))
        made.covered = max(made.covered, row["covered"])
        made.oldest_s = max(made.oldest_s, row["oldest_s"])
        if row["metric"] in fields:
            setattr(made, fields[row["metric"]], Meanwhile(row["mean"], row["least"], row["most"]))
        elif row["metric"] == "gpu.throttle.active":
            seen = {row["reason"]: row["mean"] * row["devices"] * row["stage_s"]} if row["mean"] > 0 else {}
            made.throttled_s = (made.throttled_s or {}) | seen
        if row["metric"] == "hw.power" and row["covered"] >= figures.STEPS_NEEDED:
            made.energy_j = row["mean"] * row["stage_s"]
            made.energy_j_per_output_token = energy_per_token.get((row["stage"], row["target"]))
    for group, counted in _counted(ask).items():  # a counter knows better than looks at single moments
        if group in out:
            out[group].throttled_s = counted
    return out


def _counted(ask: Callable[[str], list[Row]]) -> dict[Group, dict[str, float]]:
    out: dict[Group, dict[str, float]] = {}
    for row in ask(figures.throttled()):
        of_group = out.setdefault((row["stage"], row["target"]), {})
        if row["seconds"] > 0:
            of_group[row["reason"]] = row["seconds"]
    return out


def plain(of_group: Devices | None) -> dict[str, Any] | None:
    """As it goes into summary.json."""
    return None if of_group is None else msgspec.to_builtins(of_group)
