"""What a plan needs, worked out by hand; and what is said where its workers will not do."""

import json
from pathlib import Path

import pytest

from loadtest import plan as plans
from loadtest.capacity import Capacity, Need, busiest, warnings
from loadtest.types import Plan

ABLE = Capacity(request_us=200, chunk_us=20, measured_at="2026-11-25T02:30:00Z")
PLAN = """
name: p
targets: [{targets}]
prompts: {{kind: synthetic, input_tokens: 5{output}}}
stages: [{stages}]
fleet: {{workers: {workers}}}
"""
CHAT = '{name: a, url: "http://api.example", dialect: openai-chat, model: m}'
TLS = '{name: b, url: "https://api.example", dialect: openai-chat, model: m}'
WHOLE = '{name: c, url: "http://api.example", dialect: http}'


def plan(targets: str, *stages: str, workers: int = 1, output: str = ", output_tokens: 100") -> Plan:
    text = ", ".join(f"{{name: s{i}, {stage}}}" for i, stage in enumerate(stages))
    return plans.parse(PLAN.format(targets=targets, stages=text, workers=workers, output=output), "/")


@pytest.mark.parametrize(
    ("made", "requests_per_s", "chunks_per_s", "cores"),
    [
        # 100/s of 100 chunks: 20 ms and 200 ms of CPU a second
        (plan(CHAT, "arrivals: {kind: poisson, rate: 100}, duration_s: 1"), 100, 10_000, 0.02 + 0.2),
        (plan(TLS, "arrivals: {kind: poisson, rate: 100}, duration_s: 1"), 100, 10_000, 0.02 + 0.32),
        (plan(f"{CHAT}, {TLS}", "arrivals: {kind: constant, rate: 100}, duration_s: 1"), 200, 20_000, 0.56),
        (plan(WHOLE, "arrivals: {kind: gamma, rate: 100, burstiness: 2}, duration_s: 1"), 100, 0, 0.02),
        (plan(CHAT, "arrivals: {kind: ramp, from: 10, to: 50}, duration_s: 1"), 50, 5_000, 0.11),
        # 200 streams of 2 s each bring 50 chunks a second; 10 slots whose answers take 0.1 s
        (plan(CHAT, "arrivals: {kind: closed}, concurrency: 200, duration_s: 1"), 100, 10_000, 0.22),
        (plan(WHOLE, "arrivals: {kind: closed}, concurrency: 10, duration_s: 1"), 100, 0, 0.02),
        (plan(CHAT, "arrivals: {kind: constant, rate: 10}, duration_s: 1", output=""), 10, 2560, 0.0532),
    ],
)
def test_what_a_stage_needs(made: Plan, requests_per_s: float, chunks_per_s: float, cores: float) -> None:
    need = busiest(made, ABLE)
    assert (need.requests_per_s, need.chunks_per_s) == (requests_per_s, chunks_per_s)
    assert need.cores == pytest.approx(cores)


def test_the_busiest_stage_counts_and_overlapping_ones_add_up() -> None:
    stages = [f"arrivals: {{kind: constant, rate: {rate}}}, duration_s: 5" for rate in (10, 40, 30)]
    assert busiest(plan(CHAT, *stages), ABLE).stage == "s1"
    stages[1] += ", overlap: true"
    need = busiest(plan(CHAT, *stages), ABLE)
    assert (need.stage, need.requests_per_s) == ("s2 with s1", 70)


def test_too_few_workers_are_told_beforehand_and_how_many_would_do() -> None:
    """1,000/s of 100 chunks take 2.2 cores; a worker gives 0.7 of one."""
    busy = "arrivals: {kind: constant, rate: 1000}, duration_s: 5"
    assert list(warnings(plan(CHAT, busy, workers=4), ABLE)) == []
    [sentence] = warnings(plan(CHAT, busy, workers=3), ABLE, cores=16)
    assert sentence == (
        "stage s0 needs 4 workers (1,000 requests/s with 100,000 chunks/s; as calibrated on 2026-11-25), and 3 workers are "
        "planned: the run may turn out INVALID; write --workers 4"
    )
    [on_a_small_one] = warnings(plan(CHAT, busy), ABLE, cores=2)
    assert on_a_small_one.endswith(
        "this machine has 2 cores, too few for them: lower the load, or run it on a machine with 5 cores or on several with "
        "--on ray, and there write --workers 4"
    )


def test_turns_of_conversations_are_requests(tmp_path: Path) -> None:
    """Two lines with four turns: two requests for each that is due. A slot thinks after half of its requests."""
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * 3
    lines = [{"conversation": talk}, {"prompt": "a"}]
    (tmp_path / "talk.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def need(stage: str) -> Need:
        text = PLAN.format(targets=WHOLE, stages=f"{{name: s, {stage}}}", workers=1, output="")
        dataset = "{kind: dataset, path: talk.jsonl, think_s: 1.8}"
        return busiest(plans.parse(text.replace("{kind: synthetic, input_tokens: 5}", dataset), tmp_path), ABLE)

    assert need("arrivals: {kind: poisson, rate: 100}, duration_s: 1").requests_per_s == 200
    assert need("arrivals: {kind: closed}, concurrency: 10, duration_s: 1").requests_per_s == pytest.approx(10)


def test_what_was_assumed_and_guessed_is_said() -> None:
    closed = "arrivals: {kind: closed}, concurrency: 5000, duration_s: 5"
    [sentence] = warnings(plan(CHAT, closed, output=""), Capacity(400, 45))
    assert "taking answers for 256 tokens long, taking the endpoint to send streams of 50 chunks/s" in sentence
    assert "by a cautious guess; `loadtest calibrate` measures this machine" in sentence
