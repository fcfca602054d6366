"""The table of panels: each entry whole, and its query good on a store with real runs in it, as our page and Grafana ask."""

import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboards.grafana import build
from dashboards.panels import DASHBOARDS, PANELS, VARIABLES
from dashboards.types import Panel, Selection
from loadtest import metrics, telemetry
from loadtest.metrics import METRICS
from loadtest.spans import RESOURCE
from loadtest.store import Store, directory, open_store
from loadtest.telemetry import Point
from tests import panel_run
from tests.grafana_expand import ALL, expand
from tests.rows import CONTENT, START_NS, answer, insert

BY_NAME = {f"{panel.dashboard}.{panel.name}": panel for panel in PANELS}
SECOND_NS = 1_000_000_000
NUMBERS = ("Float64", "UInt64", "Int64", "UInt8", "UInt32", "UInt16")


def test_names_are_unique_and_dashboards_known() -> None:
    assert max(Counter((panel.dashboard, panel.name) for panel in PANELS).values()) == 1
    assert {panel.dashboard for panel in PANELS} == {dashboard.name for dashboard in DASHBOARDS}


@pytest.mark.parametrize("panel", BY_NAME.values(), ids=BY_NAME)
def test_a_panel_names_known_metrics_and_asks_a_question(panel: Panel) -> None:
    assert set(panel.metrics) <= set(METRICS)
    assert all(METRICS[metric].sql in panel.sql for metric in panel.metrics)
    assert panel.question.endswith("?")
    assert [t.at for t in panel.thresholds] == sorted(t.at for t in panel.thresholds)
    assert len(panel.states) == (len(panel.thresholds) if panel.view == "state timeline" else 0)


class Runs:
    """A store with a run of each kind, and the two ways to ask it."""

    def __init__(self, store: Store, from_ns: int, to_ns: int) -> None:
        self.store = store
        assert store.address.directory
        self.reader = Store.connect(directory.reader_of(store.address.directory))
        self.from_ns = from_ns // 1_000_000 * 1_000_000  # Grafana's times are milliseconds
        self.to_ns = (to_ns // 1_000_000 + 1) * 1_000_000
        self.load, self.probe = (row["run"] for row in store.query("SELECT run FROM runs ORDER BY started_ns"))
        [trace] = store.query("SELECT trace_id FROM requests WHERE target = 'a' AND kind = 'load' ORDER BY ts LIMIT 1")
        self.others = {"objective": "0.99", "metric": "ttft_ms", "error": "", "trace": trace["trace_id"]}

    def ask(self, panel: Panel, step_ns: int = SECOND_NS, **chosen: Any) -> list[dict[str, Any]]:
        others = self.others | {name: chosen.pop(name) for name in self.others if name in chosen}
        given = {name: (value,) for name, value in chosen.items()}
        asked = Selection(from_ns=self.from_ns, to_ns=self.to_ns, step_ns=step_ns, others=others, **given)
        return self.reader.query(panel.sql, asked.params())

    def expanded(self, panel: Panel, **chosen: str) -> str:
        [query] = _in_grafana(panel)["targets"]
        variables = {variable.name: ALL for variable in VARIABLES} | self.others | chosen
        return expand(query["rawSql"], variables, self.from_ns, self.to_ns)

    def types(self, panel: Panel) -> dict[str, str]:
        described = self.reader.query(f"DESCRIBE TABLE ({self.expanded(panel)})")
        return {row["name"]: re.sub(r"\b(Nullable|LowCardinality)\((.*)\)", r"\2", row["type"]) for row in described}


def _in_grafana(panel: Panel) -> dict[str, Any]:
    [made] = [p for p in build.dashboards()[panel.dashboard]["panels"] if p["title"] == panel.title]
    found: dict[str, Any] = made
    return found


@pytest.fixture
def runs(tmp_path: Path, simulator: str) -> Iterator[Runs]:
    with open_store(str(tmp_path / "store")) as store:
        store.migrate()
        yield Runs(store, *panel_run.made(store, simulator, tmp_path))


def test_every_panel_of_real_runs(runs: Runs) -> None:
    """One test of many steps, for the runs are made once."""
    for name, panel in BY_NAME.items():
        rows = runs.ask(panel)
        assert rows, f"{name} has no row"
        _has_its_columns(name, panel, rows, runs.types(panel))
        if panel.view != "heatmap":
            in_grafana = runs.reader.query(runs.expanded(panel))
            assert in_grafana == rows, name
    _narrowed_by_each_variable(runs)
    _hostile_values_select_nothing(runs)
    _figures_are_the_catalogues(runs)
    _heatmaps_hold_every_value(runs)


def _has_its_columns(name: str, panel: Panel, rows: list[dict[str, Any]], types: dict[str, str]) -> None:
    """What dashboards.types.Panel says of each view; `types` are those of Grafana's query."""
    needed = {
        "time series": {"time", *panel.labels},
        "state timeline": {"time", "state", *panel.labels},
        "heatmap": {"time", "low", "high", "count"},
        "scatter": {"x", "y", *panel.labels},
        "bar": set(panel.labels),
        "stat": set(panel.labels),
        "table": {*panel.units, *(column for link in panel.links for column in link.take.values())},
    }[panel.view]
    assert needed <= set(rows[0]), f"{name}: {sorted(needed)} are not all in {sorted(rows[0])}"
    if panel.view in ("time series", "state timeline", "heatmap"):
        assert types["time"] == "DateTime64(9)", name
        times = [row["time"] for row in rows]
        assert times == sorted(times), name
    if panel.view in ("time series", "state timeline", "bar", "scatter"):
        rest = {column: kind for column, kind in types.items() if column not in ("time", *panel.labels)}
        assert rest, name
        assert set(rest.values()) <= set(NUMBERS), f"{name}: {rest}"
        texts = {types[label] for label in panel.labels}
        assert texts <= {"String"}, f"{name}: {texts}"
    if panel.view == "heatmap":
        assert {kind for column, kind in types.items() if column != "time"} == {"UInt64"}, name


def _narrowed_by_each_variable(runs: Runs) -> None:
    ttft = BY_NAME["live.ttft"]
    everything = {(row["stage"], row["target"]) for row in runs.ask(ttft)}
    assert everything == {(stage, target) for stage in ("warm-up", "steady", "probe") for target in ("a", "b")}
    for variable, value, left in (
        ("run", runs.probe, {("probe", "a"), ("probe", "b")}),
        ("kind", "probe", {("probe", "a"), ("probe", "b")}),
        ("target", "a", {pair for pair in everything if pair[1] == "a"}),
        ("stage", "steady", {("steady", "a"), ("steady", "b")}),
        ("region", "north", {("warm-up", "a"), ("steady", "a")}),
        ("model", "m", everything),
        ("model", "another", set()),
    ):
        assert {(row["stage"], row["target"]) for row in runs.ask(ttft, **{variable: value})} == left, variable
        for given in (value, [value]):
            statement = runs.expanded(ttft, **{variable: given})
            assert {(row["stage"], row["target"]) for row in runs.reader.query(statement)} == left, variable


def _hostile_values_select_nothing(runs: Runs) -> None:
    for value in ("\\' OR 1=1 --", "x') OR 1=1 --", "\\", "'", "%27 OR 1=1", "${run}", "$__fromTime_ms"):
        assert runs.ask(BY_NAME["live.ttft"], target=value) == [], value
        assert runs.reader.query(runs.expanded(BY_NAME["live.ttft"], target=value)) == [], value
        assert runs.reader.query(runs.expanded(BY_NAME["request.chunks"], trace=value)) == [], value


def _figures_are_the_catalogues(runs: Runs) -> None:
    """With a bucket of time as long as the run, a panel's figures are those of `metrics.figures`."""
    year_ns = 365 * 86_400 * SECOND_NS
    where = "run = {run:String}"
    for name, metric, columns in (
        ("live.ttft", "ttft_ms", {"p50": "ttft_ms_p50", "p95": "ttft_ms_p95", "p99": "ttft_ms_p99"}),
        ("live.itl", "itl_ms", {"p50": "itl_ms_p50", "p95": "itl_ms_p95", "p99": "itl_ms_p99"}),
        ("live.e2e", "e2e_ms", {"p50": "e2e_ms_p50", "p95": "e2e_ms_p95", "p99": "e2e_ms_p99"}),
        ("live.error-rate", "error_rate", {"error_rate": "error_rate"}),
        ("providers.figures", "ttft_ms", {"ttft_ms_p50": "ttft_ms_p50", "ttft_ms_p99": "ttft_ms_p99"}),
    ):
        known = runs.store.query(metrics.figures([metric], where), {"run": runs.load})
        expected = {(row["stage"], row["target"]): {c: row[of] for c, of in columns.items()} for row in known}
        shown = runs.ask(BY_NAME[name], step_ns=year_ns, run=runs.load)
        got = {(row["stage"], row["target"]): {c: row[c] for c in columns} for row in shown}
        assert got == {key: row for key, row in expected.items() if key in got}, name
        assert ("steady", "a") in got, name
    counted = runs.store.query(
        "SELECT countIf(fault = '') AS n FROM requests WHERE run = {run:String}", {"run": runs.load}
    )
    rates = runs.ask(BY_NAME["live.rate"], run=runs.load)
    assert sum(row["achieved"] or 0 for row in rates) == counted[0]["n"]
    due = runs.store.query("SELECT count() AS n FROM requests WHERE run = {run:String}", {"run": runs.load})
    assert sum(row["offered"] or 0 for row in rates) == pytest.approx(due[0]["n"])
    per_s: Counter[tuple[Any, str]] = Counter()
    for row in runs.ask(BY_NAME["live.tokens"]):
        per_s[row["time"], row["target"]] += row["tokens"]
    energy = {(row["time"], row["target"]): row["energy"] for row in runs.ask(BY_NAME["gpu.energy"])}
    assert energy  # of 300 W, drawn in each second
    assert energy == {key: pytest.approx(300 / per_s[key]) for key in energy}
    [a] = [row for row in runs.ask(BY_NAME["providers.budget"]) if row["target"] == "b"]
    assert (a["uptime"], a["probes"], a["failed"]) == (0, 8, 8)
    assert a["budget_left"] == pytest.approx(1 - 1 / 0.01)


def _heatmaps_hold_every_value(runs: Runs) -> None:
    shown = runs.ask(BY_NAME["live.ttft-heat"], run=runs.load, target="a")
    values = runs.store.query(
        "SELECT first_token_ns / 1e6 AS ms FROM requests WHERE run = {run:String} AND target = 'a' AND fault = ''",
        {"run": runs.load},
    )
    assert sum(row["count"] for row in shown) == len(values)
    for low, high in {(row["low"], row["high"]) for row in shown}:
        inside = sum(low <= row["ms"] < high for row in values)
        assert inside == sum(row["count"] for row in shown if row["low"] == low)
    in_grafana = runs.reader.query(runs.expanded(BY_NAME["live.ttft-heat"], run=runs.load, target="a"))
    assert sum(sum(v for k, v in row.items() if k != "time") for row in in_grafana) == len(values)


def test_percentiles_stop_at_the_oldest_request_in_flight(store: Store) -> None:
    """Ten requests to each of two targets, a second apart. One of them reports that its oldest has waited for 6.5 s."""
    now_ns = time.time_ns()
    at_ms = [(now_ns - START_NS) / 1e6 - 10_000 + 1000 * number for number in range(10)]
    sent = [
        answer((20, CONTENT), (40, CONTENT), at_ms=ms, done_ms=50, target=target, stage="live")
        for target in ("quick", "hangs")
        for ms in at_ms
    ]
    insert(store, "in-flight", sent, {})
    about = {"loadtest.run": "in-flight", "loadtest.stage": "live", "loadtest.round": "0"}
    ages = {"quick": 0.0, "hangs": 6.5}
    points = [
        Point("loadtest.oldest_age_s", "s", age, now_ns, {**about, "loadtest.target": target})
        for target, age in ages.items()
    ]
    telemetry.insert(store, points, RESOURCE, "in-flight")
    asked = Selection(from_ns=now_ns - 60 * SECOND_NS, to_ns=now_ns + SECOND_NS, run=("in-flight",), others={})

    def shown() -> Counter[str]:
        return Counter(row["target"] for row in store.query(BY_NAME["live.ttft"].sql, asked.params()))

    assert shown() == {"quick": 10, "hangs": 4}
    ended = {"ts": [now_ns], "run": ["in-flight"], "event": ["run_ended"], "kind": ["load"]}
    store.insert("events", ended)
    assert shown() == {"quick": 10, "hangs": 10}


def test_a_share_of_time_is_never_more_than_all_of_it(store: Store) -> None:
    """A GPU whose clock was held down for 9 s of each 10, by a source that is looked at every ten seconds."""
    began_ns = START_NS
    about = {
        "loadtest.run": "throttled",
        "loadtest.target": "t",
        "hw.type": "gpu",
        "hw.id": "GPU-1",
        "reason": "thermal",
    }
    points = [
        Point("gpu.throttle.time", "s", 9.0 * number, began_ns + 10 * number * SECOND_NS, about, start_ns=0)
        for number in range(6)
    ]
    telemetry.insert(store, points, RESOURCE, "throttled")
    asked = Selection(
        from_ns=began_ns, to_ns=began_ns + 60 * SECOND_NS, step_ns=2 * SECOND_NS, run=("throttled",), others={}
    )
    shares = [row["throttled"] for row in store.query(BY_NAME["gpu.throttling"].sql, asked.params())]
    assert shares == [pytest.approx(0.9)] * 5
