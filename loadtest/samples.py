"""SQL over what is sampled beside the requests: the tables otel_metrics_gauge and otel_metrics_sum (docs/store.md).

PREWHERE: names and times are read first, the attributes, which cost most, only of what is left.

As metrics/ is for requests: whoever shows a sampled value asks here for its query. A sample is a fact of its instant:
nothing is interpolated, and a bucket of time without a sample has no row.
"""

from collections.abc import Sequence
from typing import Literal

from loadtest.metrics import Window, bucket

AT_NS = "toUnixTimestamp64Nano(TimeUnix)"


def within(window: Window) -> str:
    return (
        f"TimeUnix >= fromUnixTimestamp64Nano({window.from_ns}) AND TimeUnix < fromUnixTimestamp64Nano({window.to_ns})"
    )


def labels(names: Sequence[str]) -> tuple[str, ...]:
    """Attributes as columns: loadtest.target as `target`, gpu.uuid as `gpu_uuid`."""
    return tuple(f"Attributes['{name}'] AS {name.removeprefix('loadtest.').replace('.', '_')}" for name in names)


def gauge(
    name: str,
    where: str,
    step_ns: int | str,
    *,
    by: Sequence[str],
    window: Window,
    within_bucket: Literal["avg", "min", "max"] = "max",
    over_series: Literal["avg", "min", "max", "sum"] = "max",
) -> str:
    """A gauge over time: `t_ns`, `by`, `value`.

    Each series has one value a bucket, its samples' `within_bucket`; those of the series of one group of `by` are then
    put together by `over_series`. `where` and `by` are SQL over the table's columns.
    """
    keys = ["t_ns", *(key.rpartition(" AS ")[2] for key in by)]
    each = (
        f"SELECT {bucket(AT_NS, step_ns)}, {', '.join(by)}, Attributes, {within_bucket}(Value) AS of_series "
        f"FROM otel_metrics_gauge PREWHERE MetricName = '{name}' AND {within(window)} WHERE {where} "
        f"GROUP BY {', '.join(keys)}, Attributes"
    )
    return f"SELECT {', '.join(keys)}, {over_series}(of_series) AS value FROM ({each}) GROUP BY {', '.join(keys)} ORDER BY t_ns"


def rate(
    name: str,
    where: str,
    step_ns: int | str,
    *,
    by: Sequence[str],
    window: Window,
    per: Literal["bucket", "sample"] = "bucket",
) -> str:
    """A count that only grows, as its growth a second: `t_ns`, `by`, `value`.

    Growth is between two samples of a series and is booked at the later one; before a series' first sample there is its
    start, if that lies in the window. A count that fell was begun anew, and grew by what it is. Per bucket, all growth of
    a bucket counts, over the bucket; per sample, over the time between the samples: of a count of seconds that is a share
    of time, which no bucket can have more than all of, however seldom it is sampled.
    """
    keys = ["t_ns", *(key.rpartition(" AS ")[2] for key in by)]
    series = "PARTITION BY Attributes ORDER BY TimeUnix ROWS BETWEEN 1 PRECEDING AND CURRENT ROW"
    begun = f"toUnixTimestamp64Nano(StartTimeUnix) >= {window.from_ns}"
    before = f"if(first, if({begun}, 0, Value), last)"
    since_ns = (
        f"toUnixTimestamp64Nano(if(first, if({begun}, StartTimeUnix, TimeUnix), first_value(TimeUnix) OVER ({series})))"
    )
    each = (
        f"SELECT TimeUnix, StartTimeUnix, {', '.join(by)}, Value, count() OVER ({series}) = 1 AS first, "
        f"first_value(Value) OVER ({series}) AS last, if({before} > Value, Value, Value - {before}) AS grown, "
        f"({AT_NS} - {since_ns}) / 1e9 AS within_s "
        f"FROM otel_metrics_sum PREWHERE MetricName = '{name}' AND {within(window)} WHERE {where}"
    )
    over_s = f"({step_ns} / 1e9)" if per == "bucket" else "sum(within_s)"
    known = "" if per == "bucket" else " HAVING sum(within_s) > 0"
    return (
        f"SELECT {bucket(AT_NS, step_ns)}, {', '.join(keys[1:])}, sum(grown) / {over_s} AS value "
        f"FROM ({each}) GROUP BY {', '.join(keys)}{known} ORDER BY t_ns"
    )


def latest(
    names: Sequence[str], where: str, *, table: Literal["gauge", "sum"], by: Sequence[str], window: Window
) -> str:
    """The newest value of each series in the window, added up over those of one name and group of `by`: `name`, `by`,
    `value`, `at_ns`."""
    keys = ["name", *(key.rpartition(" AS ")[2] for key in by)]
    named = ", ".join(f"'{name}'" for name in names)
    each = (
        f"SELECT MetricName AS name, {', '.join(by)}, argMax(Value, TimeUnix) AS newest, max({AT_NS}) AS newest_ns "
        f"FROM otel_metrics_{table} PREWHERE MetricName IN ({named}) AND {within(window)} WHERE {where} "
        f"GROUP BY {', '.join(keys)}, Attributes"
    )
    return f"SELECT {', '.join(keys)}, sum(newest) AS value, max(newest_ns) AS at_ns FROM ({each}) GROUP BY {', '.join(keys)}"
