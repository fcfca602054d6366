"""The embedded store answers the Go client that Grafana's plugin is built on: `make dashboards-go` builds it."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboards.alerts import ALERTS
from dashboards.grafana import build, sql
from dashboards.panels import EVENTS, VARIABLES
from loadtest.store import Address, Store, directory, open_store
from tests import sample_run
from tests.grafana_expand import ALL, expand

CLIENT = Path(__file__).parent / "grafana_go" / "client"
FROM_NS, TO_NS = sample_run.START_NS - 10 * 10**9, sample_run.START_NS + 60 * 10**9

pytestmark = pytest.mark.skipif(not CLIENT.exists(), reason="needs go and make dashboards-go")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with a run in it, open as the user who only reads."""
    with open_store(str(tmp_path_factory.mktemp("go"))) as store:
        store.migrate()
        sample_run.insert(store)
        assert store.address.directory
        with Store.connect(directory.reader_of(store.address.directory)) as opened:
            yield opened


def ask(address: Address, *queries: str, password: str | None = None) -> list[dict[str, Any]]:
    job = {
        "address": f"{address.host}:{address.port}",
        "user": address.user,
        "password": address.password if password is None else password,
        "database": address.database,
        "queries": queries,
    }
    done = subprocess.run([CLIENT], input=json.dumps(job), capture_output=True, text=True, check=True, timeout=200)
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results


def test_every_panel_variable_annotation_and_rule_is_answered(reader: Store) -> None:
    [trace] = reader.query("SELECT trace_id FROM requests WHERE fault = '' ORDER BY ts LIMIT 1")
    chosen = {variable.name: ALL for variable in VARIABLES}
    chosen |= {"objective": "0.99", "metric": "ttft_ms", "error": "", "trace": trace["trace_id"]}
    made = build.dashboards().values()
    statements = [panel["targets"][0]["rawSql"] for dashboard in made for panel in dashboard["panels"]]
    statements += [sql.render(each) for each in (*(variable.sql for variable in VARIABLES if variable.sql), EVENTS)]
    statements = [expand(each, chosen, FROM_NS, TO_NS) for each in statements]
    statements += [alert.sql for alert in ALERTS]
    results = ask(reader.address, *statements)
    assert len(results) == len(statements)
    for statement, result in zip(statements, results, strict=True):
        assert result["error"] == "", (statement[:300], result["error"])
        known = reader.query(statement)
        assert len(result["rows"] or []) == len(known), statement[:300]
        if known:
            assert result["columns"] == list(known[0]), statement[:300]
    assert sum(bool(result["rows"]) for result in results) > 20


def test_values_arrive_as_they_are(reader: Store) -> None:
    query = (
        "SELECT toDateTime64('2026-11-03 14:02:11.123456789', 9, 'UTC') AS time, toLowCardinality('a''b') AS label, "
        "CAST(NULL AS Nullable(Float64)) AS none, inf AS most, [1, 2] AS some, map('k', 'v') AS attributes"
    )
    [result] = ask(reader.address, query)
    assert result["error"] == ""
    assert result["types"] == [
        "DateTime64(9, 'UTC')",
        "LowCardinality(String)",
        "Nullable(Float64)",
        "Float64",
        "Array(UInt8)",
        "Map(String, String)",
    ]
    assert result["rows"] == [["2026-11-03 14:02:11.123456789 +0000 UTC", "a'b", "<nil>", "+Inf", "[1 2]", "map[k:v]"]]


def test_the_reader_only_reads_and_a_wrong_password_is_refused(reader: Store) -> None:
    refused = ask(reader.address, "INSERT INTO events (run) VALUES ('x')", "DROP TABLE events", "SELECT nonsense")
    assert all(result["error"] for result in refused), refused
    assert "reader may only read" in refused[1]["error"]
    assert "nonsense" in refused[2]["error"]
    [result] = ask(reader.address, "SELECT 1", password="wrong")
    assert "Authentication failed" in result["error"]
    assert reader.query("SELECT count() AS n FROM events WHERE run = 'x'") == [{"n": 0}]
