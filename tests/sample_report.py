"""A report made of formulas: two providers, one fast and one that struggles, without a store or a run."""

import math
from random import Random

from loadtest.arrivals import Poisson
from loadtest.metrics import METRICS
from loadtest.prompts import Synthetic, Tokens
from loadtest.report.compare import Comparison, difference
from loadtest.report.gather import shares_for
from loadtest.report.model import (
    Cost,
    Curve,
    ErrorRow,
    Generator,
    Integrity,
    Report,
    SloRow,
    Spread,
    StageCharts,
    StageFigures,
    Stat,
    Summary,
    TargetFigures,
    TargetSeries,
    Validity,
    Values,
    WorkerRow,
)
from loadtest.types import Plan, Price, Stage, Target
from loadtest.validity import Judged

STARTED_NS = 1_793_714_531_000_000_000
SHARES = shares_for(1200)


def stat(median_ms: float, spread: float, n: int) -> Stat:
    at = {"p50": 0.0, "p90": 1.2816, "p95": 1.6449, "p99": 2.3263, "p999": 3.0902}
    return Stat(**{name: median_ms * math.exp(spread * z) for name, z in at.items()}, mean=median_ms * 1.1, n=n)


def judged(median_ms: float, spread: float, n: int, failed: int, per_request: int = 1) -> Stat:
    made = stat(median_ms, spread, n * per_request)
    made.with_failures = Stat(n=(n + failed) * per_request)
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999)):
        within = share * (n + failed) / n
        value = median_ms * math.exp(spread * _normal(within)) if within < 1 else math.inf
        setattr(made.with_failures, name, getattr(made, name) if not failed else value)
    return made


def curve(target: str, median_ms: float, spread: float, ok_share: float) -> Curve:
    values: Values = [median_ms * math.exp(spread * _normal(p)) for p in SHARES]
    whole: Values = [median_ms * math.exp(spread * _normal(p / ok_share)) if p < ok_share else None for p in SHARES]
    return Curve(target=target, value_ms=values, with_failures_ms=whole)


def _normal(p: float) -> float:
    p = min(max(p, 0.001), 0.9999)
    t = math.sqrt(-2 * math.log(min(p, 1 - p)))
    z = t - (2.30753 + 0.27061 * t) / (1 + 0.99229 * t + 0.04481 * t * t)
    return z if p > 0.5 else -z


def figures(rate: float, median_ms: float, spread: float, errors: dict[str, int]) -> StageFigures:
    n = round(rate * 120)
    ok = n - sum(errors.values())
    price, output_price = (0.6, 0.8) if not errors else (0.45, 0.55)
    parts = n * 551 * price / 1e6, ok * 148 * output_price / 1e6
    return StageFigures(
        requests=n,
        ok=ok,
        errors=errors,
        error_rate=sum(errors.values()) / n,
        requests_per_s=ok / 120,
        output_tokens_per_s=ok / 120 * 148,
        goodput_per_s=ok / 120 * 0.93,
        input_tokens=n * 551,
        output_tokens=ok * 148,
        cost=Cost(
            currency="USD", input=parts[0], output=parts[1], total=sum(parts), per_1000_successes=sum(parts) / ok * 1000
        ),
        ttft_ms=judged(median_ms, spread, ok, n - ok),
        itl_ms=judged(median_ms / 9, spread / 2, ok, n - ok, 147),
        e2e_ms=judged(median_ms + 147 * median_ms / 9, spread / 2, ok, n - ok),
    )


def target_series(
    rng: Random, target: str, rate: float, median_ms: float, spread: float, errors: dict[str, int], n: int
) -> TargetSeries:
    def noisy(value: float, width: float) -> Values:
        return [value * (1 + 0.25 * math.sin(i / 13)) * math.exp(rng.gauss(0, width)) for i in range(n)]

    scattered = {word: [0] * n for word in errors}
    for word, count in errors.items():
        for _ in range(count):
            scattered[word][min(n - 1, int(rng.gauss(n * 0.6, n / 10)) % n)] += 1
    return TargetSeries(
        target=target,
        offered_per_s=[rate * math.exp(rng.gauss(0, 0.15)) for _ in range(n)],
        achieved_per_s=noisy(rate * (0.99 if not errors else 0.93), 0.1),
        in_flight=[round(v or 0) for v in noisy(rate * median_ms / 60, 0.1)],
        ttft_ms={
            p: noisy(median_ms * math.exp(spread * z), 0.06) for p, z in (("p50", 0), ("p95", 1.64), ("p99", 2.33))
        },
        itl_ms={
            p: noisy(median_ms / 9 * math.exp(spread / 2 * z), 0.03)
            for p, z in (("p50", 0), ("p95", 1.64), ("p99", 2.33))
        },
        errors=scattered,
    )


TROUBLE = {"rate_limited": 96, "timeout_first_byte": 31, "truncated": 12, "reset": 5}


def stage_charts(name: str, at: int, rate: float, fast: str, slow: str) -> StageCharts:
    rng = Random(at)
    n = 120
    return StageCharts(
        stage=name,
        start_ns=STARTED_NS + at * 150_000_000_000,
        end_ns=STARTED_NS + (at * 150 + 120) * 1_000_000_000,
        bucket_s=1,
        offsets_s=[float(i) for i in range(n)],
        series=[
            target_series(rng, fast, rate, 212 + 4 * rate, 0.35, {}, n),
            target_series(rng, slow, rate, 396 + 15 * rate, 0.55, TROUBLE, n),
        ],
        shares=SHARES,
        ttft=[curve(fast, 212 + 4 * rate, 0.35, 1.0), curve(slow, 396 + 15 * rate, 0.55, 1 - 144 / (rate * 120))],
        e2e=[curve(fast, 3700 + 40 * rate, 0.2, 1.0), curve(slow, 6900 + 190 * rate, 0.3, 1 - 144 / (rate * 120))],
    )


def plan(fast: str = "acme", slow: str = "globex") -> Plan:
    rates = {"calm": 10.0, "busy": 20.0, "peak": 40.0}
    return Plan(
        name="chat-peak",
        seed=7,
        nonce="3f9c2ab8",
        targets=[
            Target(
                name=fast,
                url="https://inference.acme.example/v1",
                dialect="openai-chat",
                model="llama-3.1-70b",
                price=Price(input_per_million=0.6, output_per_million=0.8),
            ),
            Target(
                name=slow,
                url="https://api.globex.example/v1",
                dialect="openai-chat",
                model="llama-3.1-70b",
                price=Price(input_per_million=0.45, output_per_million=0.55),
            ),
        ],
        prompts=Synthetic(input_tokens=Tokens(mean=550, stdev=150), output_tokens=Tokens(mean=150, stdev=20)),
        stages=[Stage(name=name, arrivals=Poisson(rate=rate), duration_s=120) for name, rate in rates.items()],
    )


def report(fast: str = "acme", slow: str = "globex", valid: bool = True) -> Report:
    made = plan(fast, slow)
    rates = {"calm": 10.0, "busy": 20.0, "peak": 40.0}
    targets = {
        fast: {name: figures(rate, 212 + 4 * rate, 0.35, {}) for name, rate in rates.items()},
        slow: {name: figures(rate, 396 + 15 * rate, 0.55, TROUBLE) for name, rate in rates.items()},
    }
    sent = sum(s.requests for t in targets.values() for s in t.values())
    summary = Summary(
        run="20261103-140211-7k2m",
        plan="chat-peak",
        nonce="3f9c2ab8",
        started_at="2026-11-03T14:02:11Z",
        ended_at="2026-11-03T14:09:44Z",
        integrity=Integrity(
            scheduled=sent + (0 if valid else 18),
            sent=sent,
            missed=0 if valid else 18,
            stored=sent,
            missed_by={} if valid else {"worker_lost": 18},
        ),
        validity=Validity(
            valid,
            []
            if valid
            else [
                "worker_lost: 1 worker process(es) were lost or had to be restarted; look into the worker's log beside "
                "the frame file; give the workers more memory or fewer streams each",
                "missed: 18 request(s) were due and not sent, for no cap of the plan; repeat the run; with more "
                "workers if these were too busy",
            ],
            [
                Judged(rule="worker_lost", value=0 if valid else 1, limit=0, default=0),
                Judged(rule="schedule_lag", value=0.93, limit=100, default=25, where="stage steady, target globex"),
            ],
        ),
        slos=[slo for name in rates for slo in slos(fast, slow, name)],
        generator=Generator(
            clock="kernel",
            workers=2,
            chunks=1_243_771,
            cpu_s=71.4,
            host_cpu_s=9.2,
            start_spread_ms=0.412,
            read_lag_ms=Spread(0.021, 0.38),
            schedule_lag_ms=Spread(0.11, 0.93),
            uncertainty_ms=Spread(p99=0.21, max=1.4, over_1_ms=0.0004),
        ),
        targets={name: total(stages) for name, stages in targets.items()},
        compare=[
            Comparison(
                stage="steady",
                rounds=10,
                note="",
                differences=[
                    difference("ttft_ms", "p50", ("acme", "globex"), [(210.0 + i, 900.0 - i) for i in range(10)]),
                    difference("error_rate", None, ("acme", "globex"), [(0.01, i % 2 / 50) for i in range(10)]),
                ],
            ),
            Comparison(stage="peak", rounds=1, note="The stage had one round.", differences=[]),
        ],
    )
    return Report(
        summary=summary,
        plan=made,
        plan_yaml="name: chat-peak\nseed: 7\n",
        stages=[stage_charts(name, at, rate, fast, slow) for at, (name, rate) in enumerate(rates.items())],
        errors=[
            ErrorRow(
                target=slow,
                stage="peak",
                error="rate_limited",
                fault="endpoint",
                requests=96,
                detail='429 Too Many Requests: {"error":{"message":"Rate limit reached for tokens per minute"}}',
                trace_id="5f1c" * 8,
            ),
            ErrorRow(
                target=slow,
                stage="peak",
                error="timeout_first_byte",
                fault="endpoint",
                requests=31,
                detail="no byte for 30 s",
                trace_id="a1b2" * 8,
            ),
            ErrorRow(
                target=slow,
                stage="busy",
                error="truncated",
                fault="endpoint",
                requests=12,
                detail="stream ended after 61 chunks without [DONE] and without finish_reason",
                trace_id="0d9e" * 8,
            ),
            ErrorRow(
                target=slow,
                stage="busy",
                error="reset",
                fault="network",
                requests=5,
                detail="connection reset by peer after 18 chunks",
                trace_id="77aa" * 8,
            ),
        ],
        metrics=list(METRICS.values()),
        workers=[
            WorkerRow(worker=0, cpu_s=36.1, peak_rss_bytes=143 * 2**20),
            WorkerRow(worker=1, cpu_s=35.3, peak_rss_bytes=139 * 2**20),
        ],
        environment={"loadtest": "0.1.0", "host": "load-7"},
    )


def total(stages: dict[str, StageFigures]) -> TargetFigures:
    errors: dict[str, int] = {}
    for stage in stages.values():
        for word, n in stage.errors.items():
            errors[word] = errors.get(word, 0) + n
    return TargetFigures(
        requests=sum(s.requests for s in stages.values()),
        ok=sum(s.ok for s in stages.values()),
        errors=errors,
        stages=stages,
    )


def slos(fast: str, slow: str, stage: str) -> list[SloRow]:
    return [
        SloRow(
            metric="ttft_ms",
            stat="p99",
            limit=1500,
            target=fast,
            stage=stage,
            value=812,
            low=741,
            high=962,
            outcome="met",
        ),
        SloRow(
            metric="ttft_ms",
            stat="p99",
            limit=1500,
            target=slow,
            stage=stage,
            value=math.inf,
            low=3120,
            high=math.inf,
            outcome="breached",
        ),
        SloRow(
            metric="error_rate", limit=0.01, target=fast, stage=stage, value=0.0004, low=0, high=0.0031, outcome="met"
        ),
        SloRow(
            metric="error_rate",
            limit=0.03,
            target=slow,
            stage=stage,
            value=0.027,
            low=0.021,
            high=0.034,
            outcome="undecided",
            more_requests=4210,
        ),
    ]
