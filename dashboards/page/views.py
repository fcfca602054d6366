"""One dashboard as an address asks for it: which runs, which targets, which time range. What the address leaves open is
filled in by what the store holds: the run that goes on, or the newest; its whole time, or its last minutes."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from dashboards.page.links import SEVERAL
from dashboards.panels import DASHBOARDS, PANELS
from dashboards.types import Dashboard, Panel, Selection, Variable
from loadtest import history
from loadtest.errors import UserError
from loadtest.report.figures import Mark
from loadtest.report.gather import step_for
from loadtest.store import Store

NS = 1_000_000_000
POINTS = 120
FEWEST_S = 2  # what is sampled once a second, and not to the millisecond, has a value in each bucket of two
RANGES_S = {
    "1m": 60, "5m": 300, "15m": 900, "1h": 3600, "6h": 21_600, "24h": 86_400, "7d": 604_800, "30d": 2_592_000,
}  # fmt: skip
MARGIN_NS = NS // 2
LAST_YEAR = 2262  # in it nanoseconds since 1970 no longer fit the store's DateTime64(9)
EVENTS = """
    SELECT toUnixTimestamp64Nano(ts) AS at_ns, toString(run) AS run, toString(event) AS event, toString(stage) AS stage,
        toString(target) AS target, worker, text, data
    FROM events WHERE run IN {run:Array(String)} ORDER BY ts LIMIT 2000"""


class WrongAddress(UserError):
    """What stands in the query cannot be read."""


class NoDashboard(UserError):
    pass


class Asked(Struct, frozen=True):
    """What the address says, checked, and nothing else."""

    dashboard: Dashboard
    chosen: dict[str, tuple[str, ...]]
    last: str = ""  # a key of RANGES_S, or "run"
    from_ns: int | None = None
    to_ns: int | None = None

    @property
    def runs(self) -> tuple[str, ...]:
        return self.chosen.get("run", ())

    @property
    def panels(self) -> list[Panel]:
        return [panel for panel in PANELS if panel.dashboard == self.dashboard.name]


class Happened(Struct):
    """One row of the table `events`."""

    at_ns: int
    run: str
    event: str
    stage: str
    target: str
    worker: int | None
    text: str
    data: str


class View(Struct):
    """The dashboard at one moment. `live`: a run that is shown goes on, or the range ends now. `busy`: some run goes on, this
    one or another, so that whoever asks the store disturbs it."""

    asked: Asked
    selection: Selection
    live: bool
    busy: bool
    runs: list[history.Listed]  # those chosen
    happened: list[Happened]
    order: list[str]  # of targets, as the plan has them

    @property
    def objectives(self) -> list[history.Objective]:
        """Of the plans of all the runs that are shown."""
        return list(dict.fromkeys(objective for run in self.runs for objective in run.objectives))

    @property
    def marks(self) -> list[Mark]:
        return [Mark(each.at_ns / 1e9, words) for each in self.happened if (words := _mark_of(each))]


def asked(name: str, query: Sequence[tuple[str, str]]) -> Asked:
    """Raises WrongAddress; NoDashboard where there is none of that name."""
    dashboard = next((each for each in DASHBOARDS if each.name == name), None)
    if dashboard is None:
        raise NoDashboard(f"there is no dashboard {name}; there are {', '.join(each.name for each in DASHBOARDS)}")
    known = {variable.name: variable for variable in dashboard.variables}
    chosen: dict[str, list[str]] = {}
    for key, value in query:
        if key in known and value:
            chosen.setdefault(key, []).append(value)
    given = dict(query)
    last = given.get("last", "")
    if last and last not in RANGES_S and last != "run":
        raise WrongAddress(f"last={last} is no time range; write one of {', '.join(RANGES_S)}, or run")
    bounds = {key: _moment(key, given[key]) if given.get(key) else None for key in ("from", "to")}
    if bounds["from"] and bounds["to"] and bounds["from"] >= bounds["to"]:
        raise WrongAddress(f"from={given['from']} is not before to={given['to']}")
    return Asked(dashboard, {k: tuple(v) for k, v in chosen.items()}, last, bounds["from"], bounds["to"])


def _moment(key: str, text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise WrongAddress(f"{key}={text} is no moment; write it as 2026-11-25T02:30:00Z") from None
    if not 1970 < at.year < LAST_YEAR:
        raise WrongAddress(f"{key}={text} is no moment between 1971 and {LAST_YEAR - 1}")
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    seconds, _, fraction = re.sub(r"[^0-9.].*$", "", f"{at.timestamp():.6f}").partition(".")
    return int(seconds) * NS + int(fraction) * 1000


def view(store: Store, asked: Asked, now_ns: int) -> View:
    """What the address means right now."""
    found = [run for name in asked.runs for run in history.listed(store, only=name)]
    happened = (
        [msgspec.convert(row, Happened) for row in store.query(EVENTS, {"run": list(asked.runs)})] if found else []
    )
    going_on = any(run.going_on for run in found)
    from_ns, to_ns = _range(asked, found, going_on, now_ns)
    live = asked.to_ns is None and (going_on or (not found and asked.dashboard.refresh_s is not None))
    step_ns = max(FEWEST_S, step_for((to_ns - from_ns) / 1e9, POINTS)) * NS
    several = {name: asked.chosen.get(name, ()) for name in SEVERAL}
    selection = Selection(
        from_ns=from_ns,
        to_ns=to_ns,
        step_ns=step_ns,
        **several,
        others=_others(asked.dashboard.variables, asked.chosen),
    )
    busy = going_on or history.is_written_to(store)
    return View(asked, selection, live, busy, found, happened, _order(store, found))


def _range(asked: Asked, found: Sequence[history.Listed], going_on: bool, now_ns: int) -> tuple[int, int]:
    began = min((run.started_ns for run in found), default=None)
    ended = now_ns if going_on or began is None else max(run.ended_ns for run in found) + MARGIN_NS
    to_ns = asked.to_ns or ended
    if asked.from_ns:
        return asked.from_ns, max(to_ns, asked.from_ns + NS)
    if asked.last in RANGES_S:
        return to_ns - RANGES_S[asked.last] * NS, to_ns
    if began is None:
        return to_ns - asked.dashboard.range_s * NS, to_ns
    whole = asked.last == "run" or not going_on
    earliest = began - MARGIN_NS
    return min(earliest if whole else max(earliest, to_ns - asked.dashboard.range_s * NS), to_ns - NS), to_ns


def _others(variables: Sequence[Variable], chosen: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    return {v.name: chosen.get(v.name, (v.default,))[0] for v in variables if v.name not in SEVERAL}


def _order(store: Store, found: Sequence[history.Listed]) -> list[str]:
    """The plan's order, as in the report; where several runs are shown, or none, that of the newest comes first."""
    newest = list(found) or history.listed(store, most=20)
    return list(dict.fromkeys(target for run in newest for target in run.targets))


def _mark_of(event: Happened) -> str:
    match event.event:
        case "stage_started":
            return event.stage
        case "worker_lost" | "worker_restarted":
            return f"worker {event.worker} {event.event.removeprefix('worker_')}"
        case "interrupted":
            return "interrupted"
        case "target_refused":
            return f"{event.target} refused all"
        case _:
            return ""


def options(store: Store, view: View) -> dict[str, list[str]]:
    """What else each variable could be."""
    out: dict[str, list[str]] = {}
    params: dict[str, Any] = view.selection.params()
    for variable in view.asked.dashboard.variables:
        if variable.options:
            out[variable.name] = list(variable.options)
        elif variable.name == "run":
            out["run"] = [run.run for run in history.listed(store)]
        elif variable.sql:
            out[variable.name] = [str(row["value"]) for row in store.query(variable.sql, params) if row["value"] != ""]
    return out
