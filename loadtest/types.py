"""Every noun of the data plane, on one page.

Facts are stored, figures are derived: a `Result` holds what happened to one request and no statistic; TTFT is SQL over it
(metrics.py). `_ns` is an instant: integer nanoseconds of the real-time clock of the worker's host. `_dur_ns` is a duration,
`_s` is a plan's seconds, `_ms` is shown to people. Plan structs carry their own defaults; plan.py checks what types cannot.
"""

from collections.abc import Mapping
from enum import IntEnum
from hashlib import blake2b
from typing import Any, Literal, get_args

from msgspec import Struct, field

from loadtest.arrivals import Arrivals
from loadtest.prompts import Prompt, Prompts


class PlanStruct(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of a plan file: immutable, and an unknown key is an error."""


class Timeouts(PlanStruct):
    connect_s: float = 5  # DNS, connect and TLS together
    first_byte_s: float = 60  # sent -> first byte of the answer
    idle_s: float = 30  # between two reads of an answer
    total_s: float = 600  # sent -> done


class Price(PlanStruct):
    """What the provider charges, per million tokens, in `currency`."""

    input_per_million: float
    output_per_million: float
    currency: str = "USD"


class Target(PlanStruct):
    name: str
    url: str
    dialect: str
    model: str = ""
    key: str | None = None  # env:NAME or file:PATH; never the secret itself
    headers: dict[str, str] = {}
    body: dict[str, Any] = {}  # merged into each request's JSON body
    method: str = "POST"  # dialect http only, as is expect_status
    expect_status: int = 200
    stream: bool = True
    ca_file: str | None = None  # certificates to trust besides the system's
    timeouts: Timeouts = Timeouts()
    max_in_flight: int | None = None  # a cap over all workers: what exceeds it is `missed`, not late
    price: Price | None = None
    region: str = ""


class Stage(PlanStruct):
    name: str
    arrivals: Arrivals
    duration_s: float | None = None
    requests: int | None = None  # per target
    concurrency: int | None = None  # per target, closed load only
    ramp_up_s: float | None = None  # closed load; default: the smaller of 2 s and a tenth of the duration
    warmup: bool = False
    overlap: bool = False  # the next stage does not wait for this one's drain
    drain_s: float = 60


class Slo(PlanStruct):
    """`stat` is p50, p99.9, mean ... for a latency; left out for a rate or a share."""

    metric: str
    limit: float
    stat: str | None = None
    target: str | None = None  # None: each target
    stage: str | None = None  # None: each measured stage


class Fleet(PlanStruct):
    workers: int = 1
    listeners: str | None = None  # a Python file that each worker imports; its Locust listeners hear the run


class Plan(PlanStruct):
    name: str
    targets: list[Target]
    prompts: Prompts
    stages: list[Stage]
    seed: int = 0
    nonce: str = ""  # empty: a fresh one for each run
    slos: list[Slo] = []
    goodput: dict[str, float] = {}  # metric -> limit, for one request
    fleet: Fleet = Fleet()
    store: str | None = None
    trace: Literal["off", "unsampled", "sampled"] = "unsampled"


class Shot(Struct, frozen=True):
    """One request that should happen."""

    stage: int  # index in plan.stages
    seq: int
    target: int  # index in plan.targets
    due_ns: int | None  # None under closed load
    prompt: Prompt


class ChunkKind(IntEnum):
    """What a chunk carried. TOKEN_KINDS are token chunks; the others never end a TTFT."""

    EMPTY = 0  # role-only, empty delta, keep-alive
    REASONING = 1
    CONTENT = 2
    TOOL_CALL = 3
    MEDIA = 4
    USAGE = 5


TOKEN_KINDS = (ChunkKind.REASONING, ChunkKind.CONTENT, ChunkKind.TOOL_CALL, ChunkKind.MEDIA)

EndpointError = Literal[
    "rate_limited", "overloaded", "http_5xx", "truncated", "malformed", "error_event", "empty",
    "timeout_first_byte", "timeout_idle", "timeout_total",
]  # fmt: skip
NetworkError = Literal["dns", "connect", "timeout_connect", "tls", "write", "reset"]
ClientError = Literal["http_4xx", "redirect"]
GeneratorError = Literal["generator", "cancelled"]
ErrorWord = EndpointError | NetworkError | ClientError | GeneratorError
FAULT_OF: Mapping[str, str] = {
    word: fault
    for fault, words in (
        ("endpoint", EndpointError),
        ("network", NetworkError),
        ("client", ClientError),
        ("generator", GeneratorError),
    )
    for word in get_args(words)
}
"""Whose fault each error word is: endpoint, network, client (the plan is wrong) or generator (ours)."""


class Result(Struct, kw_only=True, omit_defaults=True, tag="result"):
    """The raw timeline of one request: facts only. An instant that was not reached is None."""

    # identity
    run: str
    stage: str
    seq: int
    target: str
    worker: int
    trace_id: str  # 32 hex digits
    kind: Literal["load", "capacity", "probe"] = "load"
    warmup: bool = False
    attempt: int = 0
    max_tokens: int | None = None
    streamed: bool = True
    # times
    due_ns: int | None = None
    started_ns: int
    sent_ns: int | None = None
    done_ns: int
    dns_dur_ns: int | None = None  # these three: None on a reused connection
    connect_dur_ns: int | None = None
    tls_dur_ns: int | None = None
    first_byte_ns: int | None = None
    # chunks, three arrays of one length; chunk_tokens is empty where tokens per chunk are unknown
    chunk_ns: list[int] = field(default_factory=list)
    chunk_kind: list[int] = field(default_factory=list)
    chunk_bytes: list[int] = field(default_factory=list)
    chunk_tokens: list[int] = field(default_factory=list)
    # outcome
    status: int | None = None
    error: ErrorWord | None = None
    error_detail: str = ""  # one scrubbed line
    finish_reason: str = ""
    # tokens
    input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    token_source: Literal["usage", "usage_matched", "tokenizer", "unknown"] = "unknown"
    # evidence
    request_id: str = ""  # the provider's
    response_id: str = ""
    response_model: str = ""
    remote_address: str = ""
    reused: bool = False
    retry_after_s: float | None = None
    request_bytes: int = 0
    response_bytes: int = 0
    tcp_rtt_us: int | None = None
    tcp_retransmits: int | None = None
    # certainty
    clock: Literal["kernel", "user"] = "user"
    read_lag_ns: int = 0  # longest time that a chunk lay in the kernel before it was read
    uncertainty_ns: int = 0  # largest uncertainty of a chunk's stamp


class Metric(Struct, frozen=True):
    name: str
    unit: str
    kind: Literal["request", "pooled", "rate", "share"]
    sql: str
    better: Literal["lower", "higher"]
    doc: str


class Verdict(Struct, frozen=True):
    """An SLO judged for one target and stage. `low` and `high` bound `value` at 95%; None: it cannot be known."""

    metric: str
    stat: str | None
    limit: float
    target: str
    stage: str
    value: float | None
    low: float | None
    high: float | None
    outcome: Literal["met", "breached", "undecided"]
    more_requests: int | None = None
    advice: str = ""


def trace_id(run: str, stage: str, seq: int, target: str, attempt: int) -> str:
    """The 128-bit BLAKE2b of a request's identity, as 32 hex digits."""
    return blake2b(f"{run}\0{stage}\0{seq}\0{target}\0{attempt}".encode(), digest_size=16).hexdigest()
