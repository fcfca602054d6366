"""Alert rules on made data: each fires on what it is for, clears when that is over, and is quiet otherwise."""

import re
import time
from pathlib import Path
from typing import Any

import pytest

from dashboards.alerts import ALERTS, Alert
from dashboards.panels import PANELS
from loadtest import telemetry
from loadtest.spans import RESOURCE
from loadtest.store import Store
from loadtest.telemetry import Point
from tests.rows import CONTENT, START_NS, answer, failure, insert

BY_NAME = {alert.name: alert for alert in ALERTS}
RUNBOOK = Path(__file__).parents[1] / "docs" / "runbook.md"
MINUTE_S = 60


def firing(store: Store, name: str, later_s: int = 0) -> list[dict[str, Any]]:
    """The labels of what fires, and its value, so many seconds from now if nothing else happens."""
    sql = BY_NAME[name].sql.replace("now64(9)", f"(now64(9) + INTERVAL {later_s} SECOND)")
    return [row for row in store.query(sql) if row["value"] > BY_NAME[name].above]


def targets(store: Store, name: str, *among: str) -> set[str]:
    return {row["target"] for row in firing(store, name)} & set(among)


class Probes:
    """Probes of one target, told by how many seconds ago they were sent."""

    def __init__(self, store: Store, target: str, kind: str = "probe") -> None:
        self.store, self.target, self.kind, self.batch = store, target, kind, 0
        self.now_ms = (time.time_ns() - START_NS) / 1e6

    def add(self, *ago_s: float, fails: bool = False) -> None:
        self.batch += 1
        facts: dict[str, Any] = {"target": self.target, "kind": self.kind, "stage": "probe", "done_ms": 20}
        at = [self.now_ms - 1000 * ago for ago in ago_s]
        rows = [
            failure("http_5xx", at_ms=ms, **facts) if fails else answer((10, CONTENT), at_ms=ms, **facts) for ms in at
        ]
        insert(self.store, f"{self.target}-{self.batch}", rows, {})


def each(seconds: int, of_s: int, until_s: int = 10) -> list[float]:
    return [float(ago) for ago in range(until_s, of_s, seconds)]


@pytest.mark.parametrize("alert", ALERTS, ids=BY_NAME)
def test_a_rule_is_whole_and_its_query_yields_labels_and_one_number(alert: Alert, store: Store) -> None:
    assert "$" not in alert.sql, "no variables and no macros"
    columns = {row["name"]: row["type"] for row in store.query(f"DESCRIBE TABLE ({alert.sql})")}
    numbers = [name for name, kind in columns.items() if "Float" in kind]
    assert numbers == ["value"]
    assert all("String" in kind for name, kind in columns.items() if name != "value"), columns
    named = set(re.findall(r"\$labels\.(\w+)", alert.summary))
    assert named <= set(columns), f"{named} of the summary are no labels"
    assert any((panel.dashboard, panel.name) == alert.panel for panel in PANELS)
    assert f"### {alert.name}\n" in RUNBOOK.read_text()
    store.query(alert.sql)  # with whatever there is


def test_burn_rate_pages_on_probes_alone_and_only_while_it_goes_on(store: Store) -> None:
    fails, single, over, load = (Probes(store, f"burn-{name}") for name in ("fails", "single", "over", "load"))
    load.kind = "capacity"
    for probes in (fails, single, over, load):
        probes.add(*each(20, 3600))
    fails.add(*each(20, 240), fails=True)
    single.add(15, fails=True)  # one failure of 15 probes is a burn rate above 60, and no reason to wake anybody
    over.add(*each(10, 3000, until_s=400), fails=True)
    load.add(*each(10, 3600), fails=True)
    names = [probes.target for probes in (fails, single, over, load)]
    assert targets(store, "burn-fast", *names) == {"burn-fails"}
    assert targets(store, "burn-slow", *names) == {"burn-fails", "burn-over"}
    fails.add(*[float(ago) for ago in range(1, 300)] * 60)  # so many good ones that the short window is clear
    assert targets(store, "burn-fast", *names) == set()


def test_endpoint_down_needs_three_failures_in_a_row(store: Store) -> None:
    down, shaky = Probes(store, "down-down"), Probes(store, "down-shaky")
    down.add(500, 400)
    down.add(90, 60, 30, fails=True)
    shaky.add(90, 30, fails=True)
    shaky.add(60)
    assert targets(store, "endpoint-down", "down-down", "down-shaky") == {"down-down"}
    down.add(1)
    assert targets(store, "endpoint-down", "down-down") == set()


def test_prober_silent_is_measured_by_its_own_pauses(store: Store) -> None:
    regular, stopped, by_hand = (Probes(store, f"silent-{name}") for name in ("regular", "stopped", "by-hand"))
    regular.add(*each(60, 5000))
    stopped.add(*each(60, 9000, until_s=600))
    by_hand.add(4000, 4001, 4002)
    names = [probes.target for probes in (regular, stopped, by_hand)]
    assert targets(store, "prober-silent", *names) == {"silent-stopped"}
    stopped.add(5)
    assert targets(store, "prober-silent", *names) == set()


def sample(store: Store, points: list[Point]) -> None:
    telemetry.insert(store, points, RESOURCE, f"alerts-{time.time_ns()}")


def test_gpu_throttling_is_heat_and_not_the_limit_of_power(store: Store) -> None:
    now_ns = time.time_ns()

    def gpu(name: str, reason: str, share: float, metric: str = "gpu.throttle.time") -> None:
        about = {"hw.type": "gpu", "hw.id": name, "reason": reason}
        counts = metric == "gpu.throttle.time"
        sample(
            store,
            [
                Point(
                    metric, "s", share * ago if counts else share, now_ns - (299 - ago) * 10**9, about,
                    start_ns=now_ns - 10**13 if counts else None,
                )
                for ago in range(299)
            ],
        )  # fmt: skip

    gpu("hot", "hw_thermal", 0.5)
    gpu("hot-by-bits", "thermal", 0.5, "gpu.throttle.active")
    gpu("cool", "hw_thermal", 0.01)
    gpu("busy", "power", 0.9)
    found = {row["gpu"]: row["value"] for row in firing(store, "gpu-throttling")}
    assert found.keys() & {"hot", "hot-by-bits", "cool", "busy"} == {"hot", "hot-by-bits"}
    assert found["hot"] == pytest.approx(0.5, rel=0.02)
    assert not {row["gpu"] for row in firing(store, "gpu-throttling", later_s=400)} & {"hot", "hot-by-bits"}


def test_generator_unhealthy_by_delay_by_cpu_and_by_a_lost_worker(store: Store) -> None:
    now_ns = time.time_ns()
    now_ms = (now_ns - START_NS) / 1e6
    for run, late_ms in (("gen-late", 500.0), ("gen-fine", 0.1)):
        sent = [now_ms - 1000 * ago for ago in range(1, 60)]
        rows = [answer((5, CONTENT), at_ms=ms, due_ms=ms - late_ms, done_ms=10, stage="g", target="g") for ms in sent]
        insert(store, run, rows, {})
    for run, cores in (("gen-hot", 0.99), ("gen-fine", 0.2)):
        about = {"loadtest.run": run, "loadtest.worker": "0"}
        start_ns = now_ns - 600 * 10**9
        sample(
            store,
            [
                Point("loadtest.worker.cpu_s", "s", cores * ago, now_ns - (110 - ago) * 10**9, about, start_ns=start_ns)
                for ago in range(110)
            ],
        )
    store.insert("events", {"ts": [now_ns - 10**10], "run": ["gen-lost"], "event": ["worker_lost"], "kind": ["load"]})
    found = {(row["run"], row["what"]) for row in firing(store, "generator-unhealthy")}
    mine = {pair for pair in found if pair[0].startswith("gen-")}
    assert mine == {("gen-late", "schedule_lag"), ("gen-hot", "worker_cpu"), ("gen-lost", "worker_lost")}
    assert not [row for row in firing(store, "generator-unhealthy", later_s=400) if row["run"].startswith("gen-")]


def test_store_behind_counts_what_waits_even_at_the_best_moment(store: Store) -> None:
    now_ns = time.time_ns()
    for run, waiting in (("behind-slow", 3000.0), ("behind-fine", 20.0)):
        points = []
        for ago in range(55):
            at_ns, read = now_ns - ago * 10**9, 100_000 - 100.0 * ago
            about = {"loadtest.run": run, "loadtest.worker": "0"}
            points.append(Point("loadtest.worker.read", "", read, at_ns, about, start_ns=now_ns - 10**12))
            points.append(Point("loadtest.worker.stored", "", read - waiting, at_ns, about, start_ns=now_ns - 10**12))
        sample(store, points)
    found = {row["run"]: row["value"] for row in firing(store, "store-behind")}
    assert found.keys() & {"behind-slow", "behind-fine"} == {"behind-slow"}
    assert found["behind-slow"] == pytest.approx(30, rel=0.1)
    assert "behind-slow" not in {row["run"] for row in firing(store, "store-behind", later_s=400)}
    assert BY_NAME["store-behind"].on_error == "Alerting", "a store that does not answer is further behind than any"
