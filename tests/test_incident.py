"""examples/incident.py, squeezed into a quarter of a minute: load, probes, GPUs and engines through the whole path, and what
caused what found again in the store."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtest import metrics
from loadtest.store import Store, open_store

ROOT = Path(__file__).parent.parent
MINUTES = 0.25


@pytest.fixture(scope="module")
def incident(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, dict[str, Any], dict[str, Any]]]:
    """The store, what the example told, and summary.json of the load."""
    where = tmp_path_factory.mktemp("incident")
    command = [sys.executable, "examples/incident.py", "--minutes", str(MINUTES)]
    command += ["--store", str(where / "store"), "--out", str(where / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.strip().split("\n")[-1])
    [summary] = (where / "out").glob("*/load/summary.json")
    with open_store(str(where / "store")) as store:
        yield store, told, json.loads(summary.read_text())


@pytest.mark.timeout(600)
def test_cause_and_effect_stand_in_the_store(incident: tuple[Store, dict[str, Any], dict[str, Any]]) -> None:
    store, told, summary = incident
    stages = {name: target["stages"] for name, target in summary["targets"].items()}
    for name in ("acme", "budget"):
        normal, rising = stages[name]["normal"]["gpu"], stages[name]["rising"]["gpu"]
        assert rising["running"]["mean"] > 1.2 * normal["running"]["mean"]
        assert rising["power_w"]["mean"] > normal["power_w"]["mean"]
        assert rising["kv_cache_utilization"]["most"] > normal["kv_cache_utilization"]["mean"]
        assert rising["energy_j"] is None or rising["energy_j_per_output_token"] > 0  # None: a step was missed
    assert (stages["acme"]["normal"]["gpu"]["gpus"], stages["budget"]["normal"]["gpu"]["gpus"]) == (2, 1)
    hot_s = (told["when_ns"]["acme_hot"][1] - told["when_ns"]["acme_hot"][0]) / 1e9
    assert stages["acme"]["back"]["gpu"]["throttled_s"]["thermal"] == pytest.approx(hot_s, abs=2.5)
    assert stages["acme"]["back"]["gpu"]["clock_hz"]["least"] == 495e6
    assert stages["budget"]["back"]["gpu"]["throttled_s"] == {}
    assert stages["budget"]["back"]["errors"]["http_5xx"] > 0
    assert "http_5xx" not in stages["acme"]["back"]["errors"]
    [down] = store.query("SELECT min(sent_ns) AS first, max(sent_ns) AS last FROM requests WHERE error = 'http_5xx'")
    assert [down["first"], down["last"]] == pytest.approx(told["when_ns"]["budget_down"], abs=2e9)


def test_requests_find_the_samples_of_their_target(incident: tuple[Store, dict[str, Any], dict[str, Any]]) -> None:
    store, told, _ = incident
    rows = store.query(metrics.figures(["gpu_utilization"], "run = {run:String}"), {"run": told["runs"]["load"]})
    of_requests = store.query(
        "SELECT stage, target, count() AS n FROM requests WHERE run = {run:String} GROUP BY stage, target "
        "ORDER BY stage, target",
        {"run": told["runs"]["load"]},
    )
    assert [(row["stage"], row["target"]) for row in rows] == [(row["stage"], row["target"]) for row in of_requests]
    for row, counted in zip(rows, of_requests, strict=True):
        assert row["gpu_utilization_n"] >= 0.9 * counted["n"]
        assert 0 < row["gpu_utilization_p90"] <= 100.001
    probed = store.query("SELECT DISTINCT kind FROM requests WHERE run = {run:String}", {"run": told["runs"]["probe"]})
    assert probed == [{"kind": "probe"}]


def test_the_engines_count_the_tokens_that_the_requests_got(
    incident: tuple[Store, dict[str, Any], dict[str, Any]],
) -> None:
    """Of both runs together; the last second may be missing, and what was cut off was generated all the same."""
    store, told, _ = incident
    generated = store.query(
        "SELECT target, sum(most) AS n FROM (SELECT Attributes['loadtest.target'] AS target, max(Value) AS most "
        "FROM otel_metrics_sum WHERE MetricName = 'engine.tokens.generated' GROUP BY target, Attributes['engine.id']) "
        "GROUP BY target ORDER BY target"
    )
    got = store.query("SELECT target, sum(output_tokens) AS n FROM requests GROUP BY target ORDER BY target")
    assert [row["target"] for row in generated] == ["acme", "budget"]
    for engine, requests in zip(generated, got, strict=True):
        assert engine["n"] == pytest.approx(requests["n"], rel=0.2)
    assert told["scale"] == MINUTES / 10
