"""What is sampled beside the requests: points -> rows of otel_metrics_gauge and otel_metrics_sum.

The tables are those of the OpenTelemetry Collector, so that its metrics and ours can be asked for in one query.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from loadtest import __version__
from loadtest.store import Store

SCOPE = "loadtest"
CUMULATIVE = 2
"""AggregationTemporality of OTLP: a value counts from `start_ns` on."""


class Point(Struct, frozen=True):
    """One value of one series at one instant."""

    name: str
    unit: str
    value: float
    at_ns: int
    attributes: Mapping[str, str]
    start_ns: int | None = None  # of a sum that only grows: since when it counts. None: a gauge


def insert(store: Store, points: Iterable[Point], resource: Mapping[str, str], token: str) -> None:
    """Store points; repeated with the same token they are stored once. Raises StoreError."""
    gauges: list[Point] = []
    sums: list[Point] = []
    for point in points:
        (gauges if point.start_ns is None else sums).append(point)
    for table, some in (("otel_metrics_gauge", gauges), ("otel_metrics_sum", sums)):
        if some:
            store.insert(table, columns(some, resource), token)


def columns(points: Sequence[Point], resource: Mapping[str, str]) -> dict[str, list[Any]]:
    """Of points that are all gauges, or all sums."""
    n = len(points)
    made: dict[str, list[Any]] = {
        "ResourceAttributes": [resource] * n,
        "ScopeName": [SCOPE] * n,
        "ScopeVersion": [__version__] * n,
        "ServiceName": [resource["service.name"]] * n,
        "MetricName": [p.name for p in points],
        "MetricUnit": [p.unit for p in points],
        "Attributes": [p.attributes for p in points],
        "StartTimeUnix": [p.at_ns if p.start_ns is None else p.start_ns for p in points],
        "TimeUnix": [p.at_ns for p in points],
        "Value": [float(p.value) for p in points],
    }
    if points and points[0].start_ns is not None:
        made |= {"AggregationTemporality": [CUMULATIVE] * n, "IsMonotonic": [True] * n}
    return made
