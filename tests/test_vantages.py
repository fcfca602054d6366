"""Latency by vantage: the region of a worker goes with each of its rows, and the report has a row a region."""

from pathlib import Path

import msgspec
from rows import answer

from loadtest import plan as plans
from loadtest import spans
from loadtest.report.model import Vantage
from loadtest.report.vantages import vantages
from loadtest.store import Store
from loadtest.types import ChunkKind

PLAN = """
name: regions
targets: [{name: t, url: "http://127.0.0.1:9/v1", dialect: openai-chat, model: m}]
prompts: {kind: synthetic, input_tokens: 20, output_tokens: 5}
stages: [{name: s, arrivals: {kind: constant, rate: 10}, duration_s: 10}]
fleet: {workers: 2, regions: [{name: eu, labels: {where: eu}}, {name: us, labels: {where: us}}]}
"""


def insert(store: Store, run: str, **milliseconds_by_vantage: list[float]) -> None:
    """One answer each: its only chunk comes after so many milliseconds; below 0 it fails."""
    plan = plans.parse(PLAN, Path.cwd())
    for worker, (vantage, answers) in enumerate(milliseconds_by_vantage.items()):
        results = [
            answer((ms, ChunkKind.CONTENT), run=run, seq=seq, worker=worker, done_ms=ms, at_ms=seq)
            if ms > 0
            else answer(run=run, seq=seq, worker=worker, error="http_5xx", done_ms=1, at_ms=seq)
            for seq, ms in enumerate(answers)
        ]
        store.insert("otel_traces", spans.columns(results, spans.target_attributes(plan, vantage)))


def test_figures_by_vantage(store: Store) -> None:
    insert(store, "vantages", eu=[10, 20, 30], us=[110, 120, -1, 130])
    found = vantages(lambda sql: store.query(sql, {"run": "vantages"}))
    eu, us = msgspec.convert(found, list[Vantage])
    assert (eu.vantage, eu.requests, eu.ok, eu.error_rate) == ("eu", 3, 3, 0)
    assert (us.vantage, us.requests, us.ok, us.error_rate) == ("us", 4, 3, 0.25)
    assert (eu.ttft_ms.p50, eu.ttft_ms.p99, us.ttft_ms.p50, us.ttft_ms.n) == (20, 30, 120, 3)
    assert (us.stage, us.target) == ("s", "t")


def test_a_run_without_regions_has_none(store: Store) -> None:
    insert(store, "nowhere", **{"": [10, 20]})
    assert vantages(lambda sql: store.query(sql, {"run": "nowhere"})) == []
    rows = store.query("SELECT DISTINCT vantage, region FROM requests WHERE run = 'nowhere'")
    assert rows == [{"vantage": "", "region": ""}]
