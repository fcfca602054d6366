"""Retries: when, how often, and that figures of first attempts stay what they were."""

from pathlib import Path
from typing import Any

import pytest

from loadtest import plan as plans
from loadtest import spans
from loadtest.errors import PlanError
from loadtest.report.summary import summary
from loadtest.retries import wait_s
from loadtest.store import Store
from loadtest.types import Plan, Result, Retries, trace_id
from tests.conformance.server import Step, serving
from tests.conformance.voices import CHAT, document
from tests.rows import CONTENT, SPAN_OF_TARGET, answer, failure
from tests.test_run import drive

PLAN = """
name: retries
nonce: fixed
targets:
  - {{name: a, url: "{url}/v1", dialect: openai-chat, stream: false, retries: {retries}}}
prompts: {{kind: synthetic, input_tokens: 5}}
stages:
  - {{name: s, {stage}}}
"""
CLOSED = "arrivals: {kind: closed}, concurrency: 1, requests: 3, drain_s: 5"
OPEN = "arrivals: {kind: constant, rate: 10}, requests: 3, drain_s: 5"
OK = document(CHAT.whole("Hi"))
BUSY = document(b"{}", "Retry-After: 0", status="503 Service Unavailable")


def refused(
    error: Any = "overloaded", attempt: int = 0, retry_after_s: float | None = None, trace: str = "0" * 32
) -> Result:
    return Result(
        run="r", stage="s", seq=0, target="t", worker=0, trace_id=trace, started_ns=1, done_ns=2, error=error,
        attempt=attempt, retry_after_s=retry_after_s,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("retries", "result", "seconds"),
    [
        (None, refused(), None),
        (Retries(max=1), refused(None), None),
        (Retries(max=1), refused("rate_limited"), 0.5),
        (Retries(max=1), refused("http_5xx"), None),
        (Retries(max=1, on=["http_5xx"]), refused("http_5xx"), 0.5),
        (Retries(max=1), refused(attempt=1), None),
        (Retries(max=10), refused(attempt=1), 1.0),
        (Retries(max=10), refused(attempt=3), 4.0),
        (Retries(max=10), refused(attempt=9), 8.0),
        (Retries(max=1), refused(trace="8" + "0" * 31), 0.4375),  # half of the spread of a quarter
        (Retries(max=1), refused(retry_after_s=0.0), 0.0),
        (Retries(max=1), refused(retry_after_s=7.0), 7.0),
        (Retries(max=1), refused(retry_after_s=61.0), None),  # longer than anyone here waits
        (Retries(max=1, honour_retry_after=False), refused(retry_after_s=7.0), 0.5),
    ],
)
def test_how_long_to_wait(retries: Retries | None, result: Result, seconds: float | None) -> None:
    assert wait_s(retries, result, 60) == seconds


def test_what_may_be_retried_is_the_endpoints_or_the_networks_fault() -> None:
    with pytest.raises(PlanError, match=r"targets\[0\].retries.on\[0\] is 'http_4xx'; it must be"):
        plan("http://127.0.0.1:1", "{max: 1, on: [http_4xx]}", CLOSED)
    with pytest.raises(PlanError, match=r"targets\[0\].retries.max is 0; it must be at least 1"):
        plan("http://127.0.0.1:1", "{max: 0}", CLOSED)


def plan(url: str, retries: str, stage: str) -> Plan:
    return plans.parse(PLAN.format(url=url, retries=retries, stage=stage), Path("/"))


@pytest.mark.parametrize("stage", [CLOSED, OPEN], ids=["closed", "open"])
def test_each_attempt_is_a_row_and_a_request_is_counted_once(store: Store, tmp_path: Path, stage: str) -> None:
    """Of three requests two are refused: one succeeds at its second attempt, one is given up after the third."""
    answers = [BUSY, OK, OK, BUSY, BUSY, BUSY]
    script: list[Step] = [step for sent in answers for step in ("read request", sent)]  # type: ignore[misc]
    with serving(script) as server:
        done = drive(plan(f"http://127.0.0.1:{server.port}", "{max: 2}", stage), store, tmp_path)
    snapshot, account = done
    rows = store.query(
        "SELECT seq, attempt, error, trace_id, due_ns FROM attempts WHERE run = {run:String} ORDER BY seq, attempt",
        {"run": snapshot.run},
    )
    assert [(row["seq"], row["attempt"], row["error"]) for row in rows] == [
        (0, 0, "overloaded"), (0, 1, ""), (1, 0, ""), (2, 0, "overloaded"), (2, 1, "overloaded"), (2, 2, "overloaded"),
    ]  # fmt: skip
    assert [row["trace_id"] for row in rows] == [
        trace_id(snapshot.run, "s", row["seq"], "a", row["attempt"]) for row in rows
    ]
    assert len({(row["seq"], row["due_ns"]) for row in rows}) == 3  # a retry is still due when its request was
    integrity = account.integrity
    assert (integrity.scheduled, integrity.sent, integrity.stored, integrity.retried) == (3, 3, 3, 3)
    count = snapshot.hosts[0].stages[0].targets[0]
    assert (count.done, count.failed, count.in_flight) == (3, 2, 0)


def test_a_wait_ends_with_the_stages_drain(store: Store, tmp_path: Path) -> None:
    """Each refusal asks for two seconds. The drain ends 3 s after the start: time for one retry, not for two."""
    later = document(b"{}", "Retry-After: 2", status="429 Too Many Requests")
    stage = "arrivals: {kind: closed}, concurrency: 1, duration_s: 0.2, drain_s: 2.8"
    script: list[Step] = ["read request", later] * 4
    with serving(script) as server:
        snapshot, account = drive(plan(f"http://127.0.0.1:{server.port}", "{max: 5}", stage), store, tmp_path)
    integrity = account.integrity
    assert (integrity.sent, integrity.stored, integrity.retried, len(server.requests)) == (1, 1, 1, 2)
    (count,) = snapshot.hosts[0].stages
    assert (count.drained_ns - count.start_ns) / 1e9 < 4, "when the second retry would have been due"


def test_the_summary_keeps_first_attempts_and_outcomes_apart(store: Store) -> None:
    """Four requests, due at 0, 1, 2 and 3 s, of which two were refused: one succeeded 500 ms later, one never."""
    attempts = [
        (0, 0, answer((10, CONTENT), at_ms=0, due_ms=0, done_ms=100)),
        (1, 0, failure("overloaded", at_ms=1000, due_ms=1000)),
        (1, 1, answer((10, CONTENT), at_ms=1300, due_ms=1000, done_ms=200)),
        (2, 0, failure("rate_limited", at_ms=2000, due_ms=2000)),
        (2, 1, failure("rate_limited", at_ms=2500, due_ms=2000)),
        (3, 0, answer((10, CONTENT), at_ms=3000, due_ms=3000, done_ms=300)),
    ]
    for seq, attempt, row in attempts:
        row.run, row.stage, row.target, row.seq, row.attempt = "retried", "s", "a", seq, attempt
        row.trace_id = trace_id("retried", "s", seq, "a", attempt)
    store.insert("otel_traces", spans.columns([row for *_, row in attempts], {"a": SPAN_OF_TARGET}))
    text = PLAN.format(url="http://127.0.0.1:1", retries="{max: 1}", stage=OPEN)
    account = '{"integrity": {"scheduled": 4, "sent": 4, "retried": 3}}'
    store.insert("runs", {"run": ["retried"], "started_ns": [1], "ended_ns": [2], "plan_name": ["p"], "nonce": [""],
                          "plan": [text], "account": [account]})  # fmt: skip
    found = summary(store, "retried")
    stage = found["targets"]["a"]["stages"]["s"]
    assert (stage["requests"], stage["ok"], stage["error_rate"]) == (4, 2, 0.5)
    assert stage["errors"] == {"overloaded": 1, "rate_limited": 1}
    assert (stage["due_e2e_ms"]["n"], stage["due_e2e_ms"]["mean"]) == (2, 200)
    after = stage["after_retries"]
    assert (after["retried"], after["success_rate"]) == (2, 0.75)
    assert (after["due_e2e_ms"]["n"], after["due_e2e_ms"]["p50"], after["due_e2e_ms"]["mean"]) == (3, 300, 300)
    assert (after["due_e2e_ms"]["with_failures"]["n"], after["due_e2e_ms"]["with_failures"]["p50"]) == (4, 500)
    integrity = found["integrity"]
    assert (integrity["stored"], integrity["lost"], integrity["retried"], integrity["retries_lost"]) == (4, 0, 3, 1)
    assert not found["validity"]["valid"]
