"""A small run of two providers in a store: results whose figures can be worked out in the head."""

from typing import Any

import msgspec

from loadtest import spans
from loadtest.store import Store
from loadtest.types import ChunkKind, Plan, Result, trace_id
from loadtest.validity import Account, Generator, Integrity

RUN = "20261103T140211Z-7k2m"
START_NS = 1_793_714_531_000_000_000
SECOND_NS = 1_000_000_000
MS_NS = 1_000_000

PLAN_YAML = """\
name: two-providers
seed: 7
nonce: 3f9c2ab8
targets:
  - name: acme
    url: https://inference.acme.example/v1
    dialect: openai-chat
    model: llama-3.1-70b
    price: {input_per_million: 0.6, output_per_million: 0.8}
  - {name: globex, url: https://api.globex.example/v1, dialect: openai-chat, model: llama-3.1-70b}
prompts: {kind: synthetic, input_tokens: {mean: 550}, output_tokens: {mean: 10}}
stages:
  - {name: warm-up, arrivals: {kind: constant, rate: 10}, duration_s: 1, warmup: true}
  - {name: steady, arrivals: {kind: constant, rate: 10}, duration_s: 20}
slos:
  - {metric: ttft_ms, stat: p50, limit: 500}
  - {metric: error_rate, limit: 0.05}
"""
REQUESTS = 200


def ttft_ms(target: str, seq: int) -> int:
    """acme: 101 to 300 ms, each once. globex: twice that."""
    return (1 if target == "acme" else 2) * (101 + seq * 77 % REQUESTS)


def result(target: str, seq: int, stage: str = "steady") -> Result:
    """Ten tokens, 20 ms apart. Each fourth request to globex fails at once: 429."""
    due_ns = START_NS + seq * SECOND_NS // 10 - (2 * SECOND_NS if stage == "warm-up" else 0)
    first_ns = due_ns + ttft_ms(target, seq) * MS_NS
    failed = target == "globex" and seq % 4 == 3
    chunk_ns = [] if failed else [first_ns + i * 20 * MS_NS for i in range(10)]
    return Result(
        run=RUN,
        stage=stage,
        seq=seq,
        target=target,
        worker=seq % 2,
        trace_id=trace_id(RUN, stage, seq, target, 0),
        warmup=stage == "warm-up",
        due_ns=due_ns,
        started_ns=due_ns,
        sent_ns=due_ns,
        done_ns=due_ns + 5 * MS_NS if failed else chunk_ns[-1],
        chunk_ns=chunk_ns,
        chunk_kind=[ChunkKind.CONTENT] * len(chunk_ns),
        chunk_bytes=[120] * len(chunk_ns),
        status=429 if failed else 200,
        error="rate_limited" if failed else None,
        error_detail="429 Too Many Requests: slow down </script><script>alert(1)</script>" if failed else "",
        input_tokens=None if failed else 550,
        output_tokens=None if failed else 10,
        token_source="unknown" if failed else "usage_matched",
        clock="kernel",
        read_lag_ns=20_000,
        uncertainty_ns=0,
    )


def insert(store: Store, plan_yaml: str = PLAN_YAML) -> None:
    """The run's rows and the spans of run, stages and workers."""
    plan = msgspec.yaml.decode(plan_yaml, type=Plan)
    results = [result(t.name, seq) for t in plan.targets for seq in range(REQUESTS)]
    results += [result(t.name, seq, "warm-up") for t in plan.targets for seq in range(10)]
    sent = len(results)
    account = Account(
        integrity=Integrity(scheduled=sent, sent=sent, stored=sent),
        generator=Generator(workers=2, cpu_s=1.5, host_cpu_s=0.5, start_spread_ms=0.25),
    )
    store.insert("otel_traces", spans.columns(results, spans.target_attributes(plan)), token="requests")
    store.insert("otel_traces", _spans(plan, plan_yaml, account), token="spans")


def _spans(plan: Plan, plan_yaml: str, account: Account) -> dict[str, list[Any]]:
    run = {
        "loadtest.plan.name": plan.name,
        "loadtest.nonce": plan.nonce,
        "loadtest.plan": plan_yaml,
        "loadtest.account": msgspec.json.encode(account).decode(),
    }
    warm_up = _stage("warm-up", 0, START_NS - SECOND_NS, "true")
    steady = _stage("steady", 1, START_NS + 20 * SECOND_NS, "false")
    worker = {
        "loadtest.worker": "0",
        "loadtest.restarts": "0",
        "loadtest.cpu_s": "1.5",
        "loadtest.peak_rss_bytes": "104857600",
    }
    attributes = [{"loadtest.run": RUN, **each} for each in (run, warm_up, steady, worker)]
    starts_ns = [START_NS - 2 * SECOND_NS, START_NS - 2 * SECOND_NS, START_NS, START_NS]
    return {
        "Timestamp": starts_ns,
        "TraceId": [f"{i:032x}" for i in range(4)],
        "SpanId": [f"{i:016x}" for i in range(4)],
        "SpanName": ["run", "stage", "stage", "worker"],
        "SpanKind": ["Internal"] * 4,
        "ServiceName": ["loadtest"] * 4,
        "ResourceAttributes": [spans.RESOURCE] * 4,
        "ScopeName": [spans.SCOPE] * 4,
        "ScopeVersion": [spans.RESOURCE["service.version"]] * 4,
        "SpanAttributes": attributes,
        "Duration": [23 * SECOND_NS, SECOND_NS, 21 * SECOND_NS, 23 * SECOND_NS],
    }


def _stage(name: str, index: int, end_ns: int, warmup: str) -> dict[str, str]:
    return {
        "loadtest.stage": name,
        "loadtest.stage.index": str(index),
        "loadtest.warmup": warmup,
        "loadtest.end_ns": str(end_ns),
        "loadtest.goodput": "{}",
    }
