"""summary.json of a small stored run, worked out by hand; the exit statuses; the table for spreadsheets."""

import csv
import io
import json
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadtest.provenance import Provenance
from loadtest.report import export
from loadtest.report.compare import Difference
from loadtest.report.model import Vantage, summary_of
from loadtest.report.stops import sentences
from loadtest.report.summary import DISTRIBUTIONS, NoSuchRun, exit_status, summary
from loadtest.report.telemetry import MEASURES
from loadtest.store import Store
from loadtest.types import Result
from loadtest.validity import Account, Generator, Integrity, Interval, Stop
from tests.rows import CONTENT, START_NS, Sample, answer, failure, insert, matched, sample, usage

PLAN = """
name: chat-peak
seed: 7
prompts: {kind: synthetic, input_tokens: {mean: 5}}
targets:
  - name: acme
    url: "https://acme.example/v1"
    dialect: openai-chat
    price: {input_per_million: 1, cached_input_per_million: 0.5, output_per_million: 2, currency: EUR}
  - {name: globex, url: "https://globex.example/v1", dialect: openai-chat}
stages:
  - {name: warm-up, arrivals: {kind: constant, rate: 1}, duration_s: 1, warmup: true}
  - {name: peak, arrivals: {kind: poisson, rate: 20}, duration_s: 10}
  - {name: closed, arrivals: {kind: closed}, concurrency: 2, duration_s: 10}
a_key_of_another_version: 1
slos: """
SLOS = [
    {"metric": "ttft_ms", "stat": "p50", "limit": 250},
    {"metric": "ttft_ms", "stat": "p99", "limit": 2000, "target": "acme", "stage": "peak"},
    {"metric": "error_rate", "limit": 0.5, "stage": "peak"},
]


def peak() -> list[Result]:
    """acme: 100 requests whose first token comes after 101, 102 ... 200 ms. globex: the same, each second refused."""
    out = []
    for i in range(100):
        at_ms = i * 90.0
        # two tokens 20 ms apart, done 5 ms later; due 1 ms before
        times = ((101 + i, CONTENT), (121 + i, CONTENT))
        shot = {
            "stage": "peak",
            "at_ms": at_ms,
            "due_ms": at_ms - 1,
            "started_ns": START_NS + int(at_ms * 1e6) - 500_000,
        }
        facts = {**shot, "output_tokens": 2, "input_tokens": 7, "done_ms": 126 + i}
        own = {"read_lag_ns": 20_000, "uncertainty_ns": i * 1000, "cached_tokens": 3, "proxy": "10.0.0.1:3128"}
        out.append(matched(*times, target="acme", reconnects=int(i < 2), **own, **facts))
        refused = failure("rate_limited", target="globex", **shot)
        out.append(refused if i % 2 else matched(*times, target="globex", **facts))
    return out


def rest() -> list[Result]:
    warm_up = [
        answer((9000, CONTENT), stage="warm-up", target=name, warmup=True, due_ms=0) for name in ("acme", "globex")
    ]
    closed = [
        usage((10, CONTENT), (30, CONTENT), stage="closed", target="acme", output_tokens=5, done_ms=40),
        answer((10, CONTENT), (30, CONTENT), stage="closed", target="acme", done_ms=60),
        failure("http_4xx", stage="closed", target="acme", error_detail="HTTP 401: no such key"),
        failure("cancelled", stage="closed", target="acme", clock="user", first_byte_ns=None),
    ]
    return [*warm_up, *closed]


def store_run(
    store: Store,
    run: str,
    slos: list[dict[str, Any]],
    account: Account,
    goodput: dict[str, float],
    rows: list[Result] | None = None,
) -> None:
    insert(store, run, rows or [*peak(), *rest()], goodput)
    store.insert(
        "runs",
        {
            "run": [run],
            "started_ns": [START_NS],
            "ended_ns": [START_NS + 25_000_000_000],
            "plan_name": ["chat-peak"],
            "nonce": ["abc"],
            "plan": [PLAN + json.dumps(slos)],
            "account": [msgspec.json.encode(account).decode()],
        },
    )


ACCOUNT = Account(
    Integrity(scheduled=211, sent=206, missed=5, missed_by={"cap": 5}),
    Generator(workers=2, cpu_s=1.5, host_cpu_s=0.5, start_spread_ms=0.25),
    capped={"peak": {"globex": 5}},
    provenance=Provenance(host="vm-7", version="0.0.9", keys={"acme": "sha256:0123456789abcdef"}),
    stops=[
        Stop(
            stage="closed",
            metric="ttft_ms",
            stat="p99",
            relative_width=0.5,
            looks=2,
            reached=True,
            intervals=[Interval(target="acme", value=200, low=150, high=230, requests=225)],
        )
    ],
)


@pytest.fixture(scope="module")
def figures(store: Store) -> dict[str, Any]:
    store_run(store, "summary", SLOS, ACCOUNT, {"ttft_ms": 150})
    gauges = [*MEASURES.values(), "scrape_duration_seconds"]
    samples = [Sample(500, 1, name=name, targets="acme") for name in gauges]
    held = [Sample(500 + ms, ms, name="gpu.throttle.time", targets="acme", reason="thermal") for ms in (0, 1)]
    sample(store, "summary", [*samples, *held, Sample(500, 0, name="up", targets="acme", error="timeout")])
    return summary(store, "summary")


def test_it_is_json_without_infinities(figures: dict[str, Any]) -> None:
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def documented(path: str) -> str:
    """`targets.acme.stages.peak.ttft_ms.p50` as docs/summary.md writes it."""
    path = re.sub(r"^(targets|stages|provenance\.keys|provenance\.announced)\.[^.]+", r"\1.NAME", path)
    path = re.sub(r"^(targets\.NAME\.stages|gpu\.sources)\.[^.]+", r"\1.NAME", path)
    path = re.sub(rf"(NAME\.gpu)\.({'|'.join(MEASURES)})(?=\.|$)", r"\1.MEASURE", path)
    path = re.sub(rf"^(targets\.NAME\.stages\.NAME)\.({'|'.join(DISTRIBUTIONS)})", r"\1.FIGURE", path)
    path = re.sub(r"(with_failures)\.(?!infinite)\w+$", r"\1.p50", path)
    return re.sub(r"(missed_by|errors|error_examples|throttled_s)\.[^.]+$", r"\1.WORD", path)


def paths(value: object, path: str = "") -> Iterator[str]:
    match value:
        case dict():
            for key, inner in value.items():
                yield f"{path}.{key}".removeprefix(".")
                yield from paths(inner, f"{path}.{key}".removeprefix("."))
        case list():
            for inner in value:
                yield from paths(inner, f"{path}[]")


def test_every_key_is_documented_and_every_documented_key_is_there(figures: dict[str, Any]) -> None:
    page = (Path(__file__).parent.parent / "docs/summary.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `([^`]+)` \|", page, re.M)) - {"key"}
    there = {documented(path) for path in paths(figures)} - {"targets.NAME", "stages.NAME", "targets.NAME.stages.NAME"}
    there |= {f"compare[].differences[].{name}" for name in Difference.__struct_fields__}  # of five rounds or more
    there |= {f"vantages[].{name}" for name in Vantage.__struct_fields__}  # of a plan with regions
    assert there - told == set(), "write these into docs/summary.md"
    assert told - there == set(), "docs/summary.md tells of these, which are not there"
    assert all(f"`{name}`" in page for name in DISTRIBUTIONS)


def test_the_outcome_in_a_word_and_when_stages_were(store: Store, figures: dict[str, Any]) -> None:
    assert (figures["exit_status"], figures["outcome"], figures["seed"]) == (3, "INVALID", 7)
    assert figures["stages"]["warm-up"]["warmup"] is True
    assert figures["stages"]["peak"]["started_at"] == "2025-10-09T08:53:20.000Z"
    interrupted = msgspec.structs.replace(ACCOUNT, interrupted=True)
    store_run(store, "stopped", [], interrupted, {})
    assert summary(store, "stopped")["outcome"] == "interrupted"
    fine = [result for result in peak() if result.target == "acme"]
    store_run(store, "fine", [], Account(Integrity(scheduled=100, sent=100), Generator()), {}, fine)
    judged = summary(store, "fine")
    assert (judged["validity"]["reasons"], judged["exit_status"], judged["outcome"]) == ([], 0, "done")


def test_who_measured_is_what_the_run_and_its_plan_said(store: Store, figures: dict[str, Any]) -> None:
    text = store.query("SELECT plan FROM runs WHERE run = 'summary'")[0]["plan"]
    made = figures["provenance"]
    assert (made["host"], made["version"]) == ("vm-7", "0.0.9"), "of the loadtest that measured, not of this one"
    assert made["keys"] == {"acme": "sha256:0123456789abcdef"}
    assert (made["measured_by"], made["announced"]) == (None, {"acme": None, "globex": None}), "the plan does not say"
    assert made["plan_sha256"] == sha256(text.encode()).hexdigest()
    peak = figures["targets"]["acme"]["stages"]["peak"]
    assert (peak["addresses"], peak["models"], peak["tokens_counted_by"]) == ([], [], ["usage_matched"])


def test_each_kind_of_error_has_an_example_where_it_happened(figures: dict[str, Any]) -> None:
    stages = figures["targets"]["acme"]["stages"]
    assert stages["closed"]["error_examples"] == {"cancelled": "", "http_4xx": "HTTP 401: no such key"}
    assert stages["peak"]["error_examples"] == {}


def test_stamps_are_as_exact_as_the_stage_and_target_say(figures: dict[str, Any]) -> None:
    """Of 0, 1, 2 ... 99 us the one at the 99th place."""
    assert figures["targets"]["acme"]["stages"]["peak"]["uncertainty_p99_ms"] == 0.099


def test_the_head(figures: dict[str, Any]) -> None:
    head = {key: figures[key] for key in ("run", "plan", "nonce", "started_at", "ended_at", "interrupted")}
    assert head == {
        "run": "summary",
        "plan": "chat-peak",
        "nonce": "abc",
        "started_at": "2025-10-09T08:53:20.000Z",
        "ended_at": "2025-10-09T08:53:45.000Z",
        "interrupted": False,
    }


def test_the_account_adds_up_with_what_is_stored(figures: dict[str, Any]) -> None:
    assert figures["integrity"] == {
        "scheduled": 211,
        "sent": 206,
        "missed": 5,
        "unknown": 0,
        "stored": 206,  # 200 + 6, counted in the store
        "lost": 0,
        "retried": 0,
        "retries_lost": 0,
        "missed_by": {"cap": 5},
    }


def test_the_generator(figures: dict[str, Any]) -> None:
    assert figures["generator"] == {
        "clock": "kernel",  # of all that were answered
        "chunks": 100 * 2 + 50 * 2 + 4,
        "workers": 2,
        "workers_lost": 0,
        "workers_restarted": 0,
        "losses": [],
        "cpu_s": 1.5,
        "host_cpu_s": 0.5,
        "start_spread_ms": 0.25,
        "start_spread_error_ms": 0,
        "clock_offset_ms": 0,
        "dropped_frames": 0,
        "clock_step_ms": 0,
        "clock_slew_ppm": 0,
        "busiest": 0,
        "busiest_waited": 0,
        "throttled": 0,
        "stolen": 0,
        "read_lag_ms": {"p50": 0, "p99": 0.02},  # 100 of 203 kernel-stamped requests lay 0.02 ms; index 101 of 203
        "schedule_lag_ms": {"p50": 0.5, "p99": 0.5},
        "uncertainty_ms": {"p99": pytest.approx(0.097), "max": pytest.approx(0.099), "over_1_ms": 0},
    }


def test_validity_is_judged_for_each_stage_and_target(figures: dict[str, Any]) -> None:
    """closed, acme: of four requests one was cancelled, and one ended by the client's fault; nothing was due there."""
    rules = {rule["rule"]: rule for rule in figures["validity"]["rules"]}
    assert (rules["cancelled"]["value"], rules["cancelled"]["where"]) == (0.25, "stage closed, target acme")
    assert (rules["faults"]["value"], rules["faults"]["limit"]) == (0.25, 0.01)
    assert (rules["schedule_lag"]["value"], rules["shortfall"]["value"]) == (0.5, 0)
    assert rules["uncertainty"]["value"] == pytest.approx(0.099)  # of acme's hundred in peak, the largest
    assert [reason.partition(":")[0] for reason in figures["validity"]["reasons"]] == ["faults", "cancelled"]


def test_what_leaves_after_the_stage_has_ended_is_a_shortfall(store: Store) -> None:
    """Two of a hundred requests leave more than 25 ms after the 10 s of arrivals; another was never sent."""
    on_time = [matched((i * 90 + 5, CONTENT), stage="peak", target="acme", due_ms=i * 90) for i in range(98)]
    late_ns = [START_NS + 10_024_000_000, START_NS + 10_026_000_000, START_NS + 10_900_000_000]
    late = [matched((10_950, CONTENT), stage="peak", target="acme", due_ms=9000, started_ns=ns) for ns in late_ns]
    account = Account(Integrity(scheduled=102, sent=101, unknown=1), unsent={"peak": {"acme": 1}})
    store_run(store, "late", [], account, {}, [*on_time, *late])
    rules = {rule["rule"]: rule for rule in summary(store, "late")["validity"]["rules"]}
    assert rules["shortfall"]["value"] == pytest.approx(3 / 102)
    assert rules["shortfall"]["where"] == "stage peak, target acme"


def test_a_target_and_stage_worked_out_by_hand(figures: dict[str, Any]) -> None:
    acme = figures["targets"]["acme"]["stages"]["peak"]
    spread = {"p50": 151, "p90": 191, "p95": 196, "p99": 200, "p999": 200, "mean": 150.5, "n": 100}
    assert acme["ttft_ms"] == spread | {"with_failures": spread}
    assert acme["e2e_ms"]["p50"] == 151 + 25
    assert acme["due_e2e_ms"]["p50"] == 151 + 26
    assert (acme["itl_ms"]["p99"], acme["icl_ms"]["p99"], acme["tpot_ms"]["p99"]) == (20, 20, 20)
    assert acme["tpot_ms"]["k_assumed"] == 0
    assert (acme["requests"], acme["ok"], acme["errors"], acme["error_rate"]) == (100, 100, {}, 0)
    assert (acme["requests_per_s"], acme["output_tokens_per_s"]) == (10, 20)  # all done and read within 10 s
    assert acme["goodput_per_s"] == 5  # 101 to 150 ms: 50 of them
    assert (acme["input_tokens"], acme["output_tokens"], acme["unknown_tokens"]) == (700, 200, 0)
    assert acme["saturated"] is False


def test_cost_cached_tokens_and_the_way_requests_took(figures: dict[str, Any]) -> None:
    acme, globex = (figures["targets"][name]["stages"]["peak"] for name in ("acme", "globex"))
    assert (acme["cached_tokens"], globex["cached_tokens"]) == (300, None)
    assert acme["cost"] == {  # 400 tokens at 1, 300 at 0.50 and 200 at 2 EUR a million
        "currency": "EUR",
        "input": pytest.approx(550e-6),
        "output": pytest.approx(400e-6),
        "total": pytest.approx(950e-6),
        "per_1000_successes": pytest.approx(9.5e-3),
    }
    assert globex["cost"] is None
    assert figures["targets"]["acme"]["stages"]["closed"]["cost"] is None, "no input tokens are known there"
    assert (acme["proxies"], acme["reconnects"]) == (["10.0.0.1:3128"], 2)
    assert (globex["proxies"], globex["reconnects"]) == ([], 0)


def test_what_became_of_a_stop_rule(figures: dict[str, Any]) -> None:
    assert figures["stages"]["peak"]["stops"] == []
    [stop] = figures["stages"]["closed"]["stops"]
    assert (stop["metric"], stop["reached"], stop["intervals"][0]["relative_width"]) == ("ttft_ms", True, 0.4)
    assert list(sentences(summary_of(figures), "closed")) == [
        "Ended once the Time to first token p99 was known to 50% of it, after 2 looks: acme 200 ms (150 ms to 230 ms, "
        "225 requests). In spite of the looks that holds in 95% of such stages, if requests are independent."
    ]


def test_failures_count_as_infinite_beside_the_successes(figures: dict[str, Any]) -> None:
    globex = figures["targets"]["globex"]["stages"]["peak"]
    assert (globex["requests"], globex["ok"], globex["errors"]) == (100, 50, {"rate_limited": 50})
    assert globex["error_rate"] == 0.5
    assert globex["saturated"] is True
    own = {key: globex["ttft_ms"][key] for key in ("p50", "p99", "mean", "n")}
    assert own == {"p50": 151, "p99": 199, "mean": 150, "n": 50}  # 101, 103 ... 199
    assert globex["ttft_ms"]["with_failures"] == {
        "p50": None,  # the 51st of 100 is the first failure
        "p90": None,
        "p95": None,
        "p99": None,
        "p999": None,
        "mean": None,
        "n": 100,
        "infinite": ["p50", "p90", "p95", "p99", "p999", "mean"],
    }


def test_closed_load_and_unknown_tokens(figures: dict[str, Any]) -> None:
    closed = figures["targets"]["acme"]["stages"]["closed"]
    assert (closed["requests"], closed["ok"]) == (4, 2)
    assert closed["errors"] == {"cancelled": 1, "http_4xx": 1}
    assert closed["error_rate"] == 0  # neither is the endpoint's
    assert closed["due_e2e_ms"] == dict.fromkeys(("p50", "p90", "p95", "p99", "p999", "mean")) | {
        "n": 0,
        "with_failures": dict.fromkeys(("p50", "p90", "p95", "p99", "p999", "mean")) | {"n": 0},
    }
    assert closed["tpot_ms"]["p50"] == 5  # 20 ms for 5 - 1 tokens, of which it is assumed that one came first
    assert (closed["tpot_ms"]["n"], closed["tpot_ms"]["k_assumed"]) == (1, 1)
    assert (closed["itl_ms"]["n"], closed["icl_ms"]["n"]) == (0, 2)
    assert (closed["output_tokens_per_s"], closed["output_tokens"], closed["unknown_tokens"]) == (None, 5, 1)


def test_a_stage_in_which_nothing_ended_is_there(figures: dict[str, Any]) -> None:
    nothing = figures["targets"]["globex"]["stages"]["closed"]
    assert (nothing["requests"], nothing["error_rate"], nothing["requests_per_s"]) == (0, None, None)
    assert nothing["ttft_ms"]["n"] == 0


def test_totals_leave_warm_up_out(figures: dict[str, Any]) -> None:
    totals = {name: {k: v for k, v in target.items() if k != "stages"} for name, target in figures["targets"].items()}
    assert totals == {
        "acme": {
            "requests": 104,
            "ok": 102,
            "errors": {"cancelled": 1, "http_4xx": 1},
            "input_tokens": 700,
            "output_tokens": 205,
        },
        "globex": {
            "requests": 100,
            "ok": 50,
            "errors": {"rate_limited": 50},
            "input_tokens": 350,
            "output_tokens": 100,
        },
    }
    assert figures["targets"]["acme"]["stages"].keys() == {"peak", "closed"}


def test_slos_are_judged_for_each_target_and_measured_stage(figures: dict[str, Any]) -> None:
    judged = [(s["metric"], s["stat"], s["target"], s["stage"], s["outcome"]) for s in figures["slos"]]
    assert judged == [
        ("ttft_ms", "p50", "acme", "peak", "met"),
        ("ttft_ms", "p50", "globex", "peak", "undecided"),  # just half of them failed
        ("ttft_ms", "p50", "acme", "closed", "undecided"),  # two requests
        ("ttft_ms", "p50", "globex", "closed", "undecided"),  # none
        ("ttft_ms", "p99", "acme", "peak", "undecided"),  # needs 368
        ("error_rate", None, "acme", "peak", "met"),
        ("error_rate", None, "globex", "peak", "undecided"),
    ]
    p50 = figures["slos"][0]
    assert (p50["value"], p50["low"], p50["high"]) == (151, 140, 161)  # the 40th to the 61st of 100
    assert (p50["limit"], p50["more_requests"], p50["advice"]) == (250, 0, "")
    infinite = figures["slos"][1]
    assert (infinite["value"], infinite["high"], infinite["infinite"]) == (None, None, ["value", "high"])
    assert infinite["low"] == 179  # the 40th of 50 successes
    p99 = figures["slos"][4]
    assert (p99["value"], p99["high"], p99["more_requests"]) == (200, None, 268)


def test_what_the_driver_believes_is_checked_against_the_store(store: Store) -> None:
    believed = Account(Integrity(scheduled=210, sent=210, stored=210), Generator(workers=1))
    store_run(store, "lossy", [], believed, {})
    found = summary(store, "lossy")
    assert (found["integrity"]["stored"], found["integrity"]["lost"]) == (206, 4)
    assert found["validity"]["valid"] is False
    assert found["validity"]["reasons"][0].startswith("spans_lost: 4 request(s)")
    assert exit_status(found) == 3


def test_an_unknown_run_is_named(store: Store) -> None:
    with pytest.raises(NoSuchRun, match="there is no run nowhere in the store"):
        summary(store, "nowhere")


EVERY_KIND = [
    {"metric": "itl_ms", "stat": "p90", "limit": 25},
    {"metric": "icl_ms", "stat": "mean", "limit": 19},
    {"metric": "e2e_ms", "stat": "mean", "limit": 190},
    {"metric": "requests_per_s", "limit": 5},
    {"metric": "output_tokens_per_s", "limit": 10},
    {"metric": "goodput", "limit": 9},
    {"metric": "success_rate", "limit": 0.5},
    {"metric": "output_speed", "stat": "p5", "limit": 51},
    {"metric": "due_ttft_ms", "stat": "p50", "limit": 1000},
]
MLPERF = [{"metric": "ttft_ms", "stat": "p90", "limit": limit, "rule": "mlperf"} for limit in (195, 200)]


def test_every_kind_of_metric_can_be_an_slo(store: Store) -> None:
    slos = [slo | {"stage": "peak", "target": "acme"} for slo in EVERY_KIND]
    store_run(store, "kinds", slos, ACCOUNT, {"ttft_ms": 150})
    found = {slo["metric"]: slo for slo in summary(store, "kinds")["slos"]}
    assert {name: slo["outcome"] for name, slo in found.items()} == {
        "itl_ms": "met",
        "icl_ms": "breached",
        "e2e_ms": "met",  # 175.5, give or take 1.984 * 29.01 / 10
        "requests_per_s": "met",
        "output_tokens_per_s": "met",
        "goodput": "breached",  # 50 in 10 s, at most 66
        "success_rate": "met",
        "output_speed": "breached",  # 50 tokens/s each
        "due_ttft_ms": "met",
    }
    assert (found["itl_ms"]["value"], found["itl_ms"]["low"], found["itl_ms"]["high"]) == (20, 20, 20)
    assert (found["e2e_ms"]["value"], found["e2e_ms"]["high"]) == (175.5, pytest.approx(175.5 + 5.756, abs=1e-3))
    assert found["goodput"]["high"] == pytest.approx(6.592, abs=1e-3)  # Garwood: 50 is at most 65.92


def test_mlperfs_rule_is_wider_than_the_interval(store: Store) -> None:
    """Of 101 ... 200 ms the p90 is 191. At most 3 of 100 may lie beyond it at 99%: P(X <= 3) = 0.008, P(X <= 4) = 0.024.

    So 197 ms is the high end, where 95% gives 196.
    """
    slos = [
        slo | {"stage": "peak", "target": "acme"}
        for slo in [*MLPERF, {"metric": "ttft_ms", "stat": "p90", "limit": 196}]
    ]
    store_run(store, "mlperf", slos, ACCOUNT, {})
    too_low, met, interval = summary(store, "mlperf")["slos"]
    assert [(slo["rule"], slo["outcome"], slo["value"], slo["high"]) for slo in (too_low, met, interval)] == [
        ("mlperf", "undecided", 191, 197),
        ("mlperf", "met", 191, 197),
        ("interval", "met", 191, 196),
    ]
    assert too_low["more_requests"] == 27  # five beyond the limit take 127: 0.01067 of 126, 0.00997 of 127
    assert too_low["advice"].startswith("By MLPerf's early-stopping rule, at 99%.")


def test_gaps_of_few_requests_decide_nothing(store: Store) -> None:
    slos = [{"metric": "icl_ms", "stat": "p90", "limit": 1000, "stage": "closed", "target": "acme"}]
    store_run(store, "few", slos, ACCOUNT, {})
    [slo] = summary(store, "few")["slos"]
    assert (slo["outcome"], slo["low"], slo["high"], slo["more_requests"]) == ("undecided", None, None, 28)
    assert "2 requests, 2 of them in the tail, are too few" in slo["advice"]


@pytest.mark.parametrize(
    ("outcomes", "valid", "interrupted", "status"),
    [
        ([], True, False, 0),
        (["met", "met"], True, False, 0),
        (["met", "undecided"], True, False, 5),
        (["undecided", "breached"], True, False, 1),
        (["breached"], False, False, 3),
        (["breached"], False, True, 130),
    ],
)
def test_exit_status(outcomes: list[str], valid: bool, interrupted: bool, status: int) -> None:
    told = {"validity": {"valid": valid}, "slos": [{"outcome": outcome} for outcome in outcomes]}
    assert exit_status(told, interrupted) == status


def test_csv_has_a_row_for_each_target_and_stage(figures: dict[str, Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(export.csv_of(figures))))
    assert [(row["run"], row["target"], row["stage"]) for row in rows] == [
        ("summary", "acme", "peak"),
        ("summary", "acme", "closed"),
        ("summary", "globex", "peak"),
        ("summary", "globex", "closed"),
    ]
    acme, closed, globex, nothing = rows
    assert float(acme["ttft_ms.p99"]) == float(acme["ttft_ms.with_failures.p99"]) == 200
    assert (float(globex["ttft_ms.p99"]), globex["ttft_ms.with_failures.p99"]) == (199, "inf")
    assert (globex["errors.rate_limited"], closed["errors.cancelled"], acme["errors.cancelled"]) == ("50", "1", "")
    assert (nothing["requests"], nothing["ttft_ms.p50"], nothing["ttft_ms.n"]) == ("0", "", "0")
    assert (closed["tpot_ms.k_assumed"], closed["output_tokens_per_s"]) == ("1", "")
