"""What a report is made of: the summary as structs, series and distributions for charts, errors with an example.

`summary.json` is the machine's form and a plain dict; here it is converted once, so that each section reads fields and
a summary of the wrong shape fails at the door, not in the middle of a page.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from loadtest.provenance import Provenance
from loadtest.report.compare import Comparison
from loadtest.report.others import Said
from loadtest.report.telemetry import Devices, Source
from loadtest.steady import WarmUp
from loadtest.types import FAULT_OF, Metric, Plan
from loadtest.validity import Judged, Stop

PERCENTILES = ("p50", "p95", "p99")
LANDMARKS = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999)
"""The shares that a distribution's table has; its curve has many more."""


class Integrity(Struct, kw_only=True):
    scheduled: int = 0
    sent: int = 0
    missed: int = 0
    unknown: int = 0
    stored: int = 0
    lost: int = 0
    missed_by: dict[str, int] = {}

    @property
    def adds_up(self) -> bool:
        return self.scheduled == self.sent + self.missed + self.unknown and self.sent == self.stored + self.lost


class Validity(Struct):
    valid: bool
    reasons: list[str] = []  # each `rule: what was found; what to do`
    rules: list[Judged] = []


class SloRow(Struct, kw_only=True):
    metric: str
    limit: float
    target: str
    stage: str
    stat: str | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    outcome: Literal["met", "breached", "undecided"] = "undecided"
    more_requests: int | None = None
    advice: str = ""
    rule: Literal["interval", "mlperf"] = "interval"


class Spread(Struct):
    """Percentiles of something the generator measures of itself."""

    p50: float | None = None
    p99: float | None = None
    max: float | None = None
    over_1_ms: float | None = None  # share of them


class Generator(Struct, kw_only=True):
    clock: str | None = None
    workers: int = 0
    workers_lost: int = 0
    workers_restarted: int = 0
    chunks: int = 0
    cpu_s: float | None = None
    host_cpu_s: float | None = None
    start_spread_ms: float | None = None
    read_lag_ms: Spread = msgspec.field(default_factory=Spread)
    schedule_lag_ms: Spread = msgspec.field(default_factory=Spread)
    uncertainty_ms: Spread = msgspec.field(default_factory=Spread)


class Stat(Struct):
    """A latency's percentiles, over the n values of the successes; `with_failures`: each failure as +infinity."""

    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    p999: float | None = None
    mean: float | None = None
    n: int = 0
    with_failures: "Stat | None" = None


class Cost(Struct, kw_only=True):
    """What the provider charges for a stage's requests, by the plan's prices."""

    currency: str
    input: float
    output: float
    total: float
    per_1000_successes: float | None = None


class AfterRetries(Struct, kw_only=True):
    """What became of requests in the end, where some were sent again."""

    retried: int
    success_rate: float | None = None
    due_e2e_ms: Stat = msgspec.field(default_factory=Stat)


class StageFigures(Struct, kw_only=True):
    warm_up: WarmUp = WarmUp(found="unknown")
    requests: int = 0
    ok: int = 0
    errors: dict[str, int] = {}
    error_examples: dict[str, str] = {}  # by word, one `error_detail`
    uncertainty_p99_ms: float | None = None
    error_rate: float | None = None
    saturated: bool = False
    reconnects: int = 0  # requests sent again on a fresh connection
    proxies: list[str] = []
    addresses: list[str] = []  # that answers came from
    models: list[str] = []  # by the name that the answers gave
    tokens_counted_by: list[str] = []  # of output tokens: usage, usage_matched, tokenizer
    requests_per_s: float | None = None
    output_tokens_per_s: float | None = None
    goodput_per_s: float | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None  # of these, what the server took from its cache; None: it does not say
    output_tokens: int | None = None
    unknown_tokens: int = 0  # successes that did not say how many they have
    cost: Cost | None = None
    after_retries: AfterRetries | None = None
    gpu: Devices | None = None
    ttft_ms: Stat = msgspec.field(default_factory=Stat)
    itl_ms: Stat = msgspec.field(default_factory=Stat)
    icl_ms: Stat = msgspec.field(default_factory=Stat)
    tpot_ms: Stat = msgspec.field(default_factory=Stat)
    e2e_ms: Stat = msgspec.field(default_factory=Stat)
    due_e2e_ms: Stat = msgspec.field(default_factory=Stat)

    @property
    def faults(self) -> int:
        """Failures of the endpoint or the network: those that count as infinitely slow."""
        return sum(n for word, n in self.errors.items() if FAULT_OF.get(word) in ("endpoint", "network"))

    def blurred(self, value: float | None) -> bool:
        """Is the value smaller than what its stamps are exact to?"""
        return value is not None and self.uncertainty_p99_ms is not None and 0 < value < self.uncertainty_p99_ms


class TargetFigures(Struct, kw_only=True):
    requests: int = 0
    ok: int = 0
    errors: dict[str, int] = {}
    input_tokens: int | None = None
    output_tokens: int | None = None
    stages: dict[str, StageFigures] = {}


class Gpu(Struct):
    """How the sources of what GPUs and engines did answered."""

    sources: dict[str, Source] = {}


class StageFacts(Struct, kw_only=True):
    """Of one stage over all targets, warm-up or not."""

    warmup: bool = False
    stops: list[Stop] = []


class Vantage(Struct, kw_only=True):
    """What the workers of one region saw of a stage and target."""

    stage: str
    target: str
    vantage: str
    requests: int
    ok: int
    error_rate: float | None = None
    connect_ms: Stat = msgspec.field(default_factory=Stat)
    ttft_ms: Stat = msgspec.field(default_factory=Stat)
    e2e_ms: Stat = msgspec.field(default_factory=Stat)


class Made(Provenance, kw_only=True):
    """With what the plan says of it."""

    measured_by: str | None = None
    announced: dict[str, str | None] = msgspec.field(default_factory=dict)  # target -> how the provider was told
    plan_sha256: str = ""


class Summary(Struct, kw_only=True):
    run: str
    locustfile: dict[str, Any] | None = None  # what was run in place of a plan, and how
    plan: str
    nonce: str
    started_at: str
    ended_at: str
    provenance: Made = msgspec.field(default_factory=Made)
    integrity: Integrity
    validity: Validity
    slos: list[SloRow]
    generator: Generator
    targets: dict[str, TargetFigures]
    stages: dict[str, StageFacts] = {}
    compare: list[Comparison] = []
    vantages: list[Vantage] = []
    interrupted: bool = False
    gpu: Gpu | None = None


def summary_of(plain: Mapping[str, Any]) -> Summary:
    """From the form of summary.json, where an infinity is null and named in `infinite` beside it."""
    return msgspec.convert(_with_infinities(plain), Summary)


def _with_infinities(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_infinities(item) for item in value]
    if isinstance(value, Mapping):
        restored = {key: _with_infinities(item) for key, item in value.items() if key != "infinite"}
        return restored | dict.fromkeys(value.get("infinite", ()), math.inf)
    return value


Values = list[float | None]


class TargetSeries(Struct, kw_only=True):
    """One target in one stage, one value a bucket; None where nothing happened that could be measured."""

    target: str
    offered_per_s: Values
    achieved_per_s: Values
    in_flight: Values
    ttft_ms: dict[str, Values]
    itl_ms: dict[str, Values]
    errors: dict[str, list[int]]
    devices: dict[str, Values] = {}  # of DRAWN, what a source gave


class Curve(Struct, kw_only=True):
    """A latency of one target at each of `StageCharts.shares`. None is infinite: beyond the last success."""

    target: str
    value_ms: Values  # over the successes
    with_failures_ms: Values


DRAWN = {
    "utilization": "hw.gpu.utilization",
    "kv_cache_utilization": "engine.kv_cache_utilization",
    "queue_length": "engine.queue_length",
}
"""What of the GPUs and engines is drawn beside the load: keys of TargetSeries.devices -> the sampled gauges."""


class StageCharts(Struct, kw_only=True):
    stage: str
    start_ns: int
    end_ns: int
    bucket_s: float
    offsets_s: list[float]  # start of each bucket, from the stage's start
    series: list[TargetSeries]
    shares: list[float]  # 0.5 is the median
    ttft: list[Curve]
    e2e: list[Curve]
    gap_metric: Literal["itl_ms", "icl_ms"] = "itl_ms"


class ErrorRow(Struct, kw_only=True):
    target: str
    stage: str
    error: str
    fault: str
    requests: int
    detail: str = ""
    trace_id: str = ""


class WorkerRow(Struct, kw_only=True):
    worker: int
    restarts: int = 0
    cpu_s: float = 0
    peak_rss_bytes: int = 0
    problems: list[str] = []


class Report(Struct, kw_only=True):
    summary: Summary
    plan: Plan | None
    plan_yaml: str
    stages: list[StageCharts]
    errors: list[ErrorRow]
    metrics: list[Metric]
    workers: list[WorkerRow]
    environment: dict[str, str]  # what the run's own span says of where it ran
    others: list[Said] = []  # by the definitions of other tools, of the stages and targets that are drawn
    stages_left_out: int = 0  # of the charts, not of the tables
    targets_left_out: int = 0
