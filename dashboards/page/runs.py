"""The runs of a store, newest first: which go on, how the others ended, two of them to compare."""

from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct

from dashboards.page.shell import empty, link
from loadtest.report.headline import State
from loadtest.report.marks import outcome
from loadtest.report.markup import Html, h
from loadtest.report.words import count, percent, plural, seconds, utc
from loadtest.store import Store
from loadtest.validity import Account

A_PAGE = 50
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
COUNTS = """
    SELECT toString(run) AS run, count() AS requests, countIf(fault IN ('endpoint', 'network')) AS failed,
        countIf(fault NOT IN ('client', 'generator')) AS judged
    FROM requests WHERE run IN {runs:Array(String)} AND NOT warmup GROUP BY run"""
HEADS = (
    ("", None),
    ("Run", "left"),
    ("Plan", "left"),
    ("Targets", "left"),
    ("Started, UTC", "left"),
    ("Took", None),
    ("Requests", None),
    ("Failed", None),
    ("Ended", "left"),
)
FOREVER_NS = 2**63 - 1
STATES: dict[str, State] = {"met": "met", "breached": "breached", "undecided": "undecided", "INVALID": "invalid"}


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


class Counted(Struct):
    """Measured requests of a run, those of them that say anything of the endpoint, and those that it or the network failed."""

    requests: int = 0
    failed: int = 0
    judged: int = 0


class _Named(Struct):
    name: str


class _Plan(Struct):
    """What is read of a plan, whatever version wrote it."""

    targets: list[_Named] = []


def listed(store: Store, before_ns: int = FOREVER_NS, most: int = A_PAGE, only: str = "") -> list[Listed]:
    """At most so many runs, from the newest that began before `before_ns`; or the one of that id."""
    return [_listed(row) for row in store.query(KNOWN, {"before_ns": before_ns, "most": most, "only": only})]


def counted(store: Store, runs: list[Listed]) -> dict[str, Counted]:
    rows = store.query(COUNTS, {"runs": [run.run for run in runs]}) if runs else []
    return {row["run"]: Counted(row["requests"], row["failed"], row["judged"]) for row in rows}


def _listed(row: dict[str, Any]) -> Listed:
    going_on = bool(row["going_on"]) and not row["account"]
    result, told = row["result"], ""
    if row["account"]:
        booked = msgspec.json.decode(row["account"], type=Account)
        result = "interrupted" if booked.interrupted else result
        lost = booked.generator.workers_lost + booked.generator.workers_restarted
        told = f"{plural(lost, 'worker')} lost" if lost else ""
    elif not going_on:
        result, told = "failed", row["failure"].partition("\n")[0] or "its driver was lost"
    return Listed(
        run=row["run"],
        started_ns=row["started_ns"],
        ended_ns=row["ended_ns"],
        plan_name=row["plan_name"],
        kind=row["kind"] or "load",
        targets=list(_targets(row["plan"])),
        going_on=going_on,
        result=result,
        told=told,
    )


@lru_cache(maxsize=512)
def _targets(plan: str) -> tuple[str, ...]:
    try:
        return tuple(target.name for target in msgspec.yaml.decode(plan or "{}", type=_Plan).targets)
    except msgspec.MsgspecError:
        return ()


def table(runs: list[Listed], counts: dict[str, Counted], more: bool) -> Html:
    """A form: two runs are chosen in it and compared."""
    if not runs:
        example = h("p", "loadtest run PLAN makes one: ", h("code", "loadtest run examples/simulated.yaml"))
        return empty("No run is in this store yet.", example)
    head = [h("th", word or h("span", "Compare", class_="unseen"), scope="col", class_=side) for word, side in HEADS]
    body = [_row(run, counts.get(run.run, Counted())) for run in runs]
    older = h("p", h("a", "Older runs", href=link("/", before=runs[-1].started_ns)), class_="note") if more else None
    return h(
        "form",
        h("div", h("table", h("thead", h("tr", head)), h("tbody", body), class_="full runs"), class_="scroll"),
        h("div", h("button", "Compare the two chosen", id="compare"), class_="below"),
        older,
        action="/compare",
        method="get",
    )


def _row(run: Listed, counts: Counted) -> Html:
    choose = h("input", type="checkbox", name="run", value=run.run, aria_label=f"Compare {run.run}")
    share = percent(counts.failed / counts.judged) if counts.judged else "–"
    return h(
        "tr",
        h("td", choose),
        h("th", h("a", run.run, href=link("/live", run=run.run)), scope="row"),
        h(
            "td",
            run.plan_name,
            h("span", f" {run.kind}", class_="small") if run.kind != "load" else None,
            class_="left name",
        ),
        h("td", ", ".join(run.targets), class_="left name"),
        h("td", utc(run.started_ns).removesuffix(" UTC"), class_="left"),
        h("td", seconds((run.ended_ns - run.started_ns) / 1e9)),
        h("td", count(counts.requests)),
        h("td", share),
        h("td", ended(run), class_="left wrap"),
        class_="going-on" if run.going_on else None,
    )


def ended(run: Listed) -> Html:
    """How a run ended, in shape, colour and word."""
    if run.going_on:
        return h("span", h("span", class_="pulse", aria_hidden="true"), "goes on", class_="outcome running")
    state = STATES.get(run.result, "none")
    words = {"": "in order", "done": "no objective", "interrupted": "interrupted", "failed": "failed"}.get(run.result)
    return h("span", outcome(state, words or ""), h("span", f" {run.told}", class_="small") if run.told else None)
