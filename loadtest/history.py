"""The runs of a store: which go on, how the others ended, what was measured in each. The terminal and the page show this.

How a run was judged stands in its events: it was worked out once, at its end, and nobody works it out again for a list.
"""

from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct

from loadtest.metrics import OK
from loadtest.report.words import plural
from loadtest.store import Store
from loadtest.validity import Account

A_PAGE = 50
FOREVER_NS = 2**63 - 1
ALL = 2**32 - 1
KNOWN = """
    SELECT run, started_ns, ended_ns, plan_name, kind, plan, account, failure, result, going_on FROM (
        SELECT run, started_ns, ended_ns, plan_name, plan, account FROM runs
        UNION ALL
        SELECT toString(run), toUnixTimestamp64Nano(min(ts)), toUnixTimestamp64Nano(max(ts)),
            JSONExtractString(argMin(data, ts), 'plan_name'), JSONExtractString(argMin(data, ts), 'plan'), ''
        FROM events WHERE run NOT IN (SELECT run FROM runs) GROUP BY run
    ) AS known
    LEFT JOIN (
        SELECT toString(run) AS run, any(kind) AS kind, anyIf(text, event = 'run_failed') AS failure,
            anyIf(JSONExtractString(data, 'outcome'), event = 'run_ended') AS result,
            run IN (
                SELECT Attributes['loadtest.run'] FROM otel_metrics_gauge
                WHERE MetricName = 'loadtest.worker.rss_bytes' AND TimeUnix > now64() - INTERVAL 15 SECOND
            ) AS going_on
        FROM events GROUP BY run
    ) AS told USING run
    WHERE started_ns < {before_ns:Int64} AND ({only:String} = '' OR run = {only:String})
    ORDER BY started_ns DESC, run LIMIT {most:UInt32}"""
"""A run that goes on, or whose driver was killed, is known from its events alone."""
WRITTEN_TO = """
    SELECT count() AS n FROM otel_metrics_gauge
    WHERE MetricName = 'loadtest.worker.rss_bytes' AND TimeUnix > now64() - INTERVAL 15 SECOND"""
COUNTS = f"""
    SELECT toString(run) AS run, count() AS requests, countIf(NOT ({OK})) AS failed
    FROM requests WHERE run IN {{runs:Array(String)}} AND NOT warmup GROUP BY run"""


class Objective(Struct, frozen=True):
    """An SLO, as far as a chart draws it."""

    metric: str
    limit: float
    stat: str | None = None
    target: str | None = None


class Listed(Struct, kw_only=True):
    """One run, as the list shows it."""

    run: str
    started_ns: int
    ended_ns: int
    plan_name: str
    kind: str
    targets: list[str]  # in the plan's order
    going_on: bool
    result: str  # met, breached, undecided, INVALID, done, interrupted, failed; empty: not known
    told: str  # what else there is to say of its end
    objectives: list[Objective] = []  # of its plan

    @property
    def ended(self) -> str:
        """In a word or two, that a list has room for."""
        if self.going_on:
            return "goes on"
        return {"": "in order", "done": "no objective"}.get(self.result, self.result)


class Counted(Struct):
    """Measured requests of a run, and those of them that did not succeed, whoever is to blame: a list of runs is where a
    wrong key shows first. `error_rate`, which judges an endpoint, leaves out what is not its fault."""

    requests: int = 0
    failed: int = 0

    @property
    def failed_share(self) -> float | None:
        return self.failed / self.requests if self.requests else None


class _Named(Struct):
    name: str


class _Plan(Struct):
    """What is read of a plan, whatever version wrote it."""

    targets: list[_Named] = []
    slos: list[Objective] = []


def listed(store: Store, before_ns: int = FOREVER_NS, most: int = A_PAGE, only: str = "") -> list[Listed]:
    """At most so many runs, from the newest that began before `before_ns`; or the one of that id."""
    return [_listed(row) for row in store.query(KNOWN, {"before_ns": before_ns, "most": most, "only": only})]


def is_written_to(store: Store) -> bool:
    """Whether some run goes on."""
    return bool(store.query(WRITTEN_TO)[0]["n"])


def counted(store: Store, runs: list[Listed]) -> dict[str, Counted]:
    rows = store.query(COUNTS, {"runs": [run.run for run in runs]}) if runs else []
    return {row["run"]: Counted(row["requests"], row["failed"]) for row in rows}


def _listed(row: dict[str, Any]) -> Listed:
    going_on = bool(row["going_on"]) and not row["account"]
    result, told = row["result"], ""
    if row["account"]:
        booked = msgspec.json.decode(row["account"], type=Account)
        result = "interrupted" if booked.interrupted else result
        lost = booked.generator.workers_lost + booked.generator.workers_restarted
        parts = [
            f"{plural(lost, 'worker')} lost" if lost else "",
            f"{plural(booked.integrity.unknown, 'request')} unknown" if booked.integrity.unknown else "",
            f"{plural(booked.integrity.lost, 'result')} lost" if booked.integrity.lost > 0 else "",
        ]
        told = ", ".join(filter(None, parts))
    elif not going_on:
        result, told = "failed", row["failure"].partition("\n")[0] or "its driver was lost"
    return Listed(
        run=row["run"],
        started_ns=row["started_ns"],
        ended_ns=row["ended_ns"],
        plan_name=row["plan_name"],
        kind=row["kind"] or "load",
        targets=[target.name for target in _plan(row["plan"]).targets],
        objectives=_plan(row["plan"]).slos,
        going_on=going_on,
        result=result,
        told=told,
    )


@lru_cache(maxsize=512)
def _plan(text: str) -> _Plan:
    try:
        return msgspec.yaml.decode(text or "{}", type=_Plan)
    except msgspec.MsgspecError:
        return _Plan()
