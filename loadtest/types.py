"""Every noun of the data plane, on one page.

Facts are stored, figures are derived: a `Result` holds what happened to one request and no statistic; TTFT is SQL over
it (metrics/). `_ns` is an instant: integer nanoseconds of the real-time clock of the worker's host. `_dur_ns` is a
duration, `_s` is a plan's seconds, `_ms` is shown to people. Plan structs carry their own defaults and limits; plan.py
checks what types cannot.
"""

from collections.abc import Mapping
from enum import IntEnum
from hashlib import blake2b
from random import Random
from typing import Annotated, Any, Literal, get_args

from msgspec import Meta, Struct, field

from loadtest.arrivals import Arrivals
from loadtest.prompts import Prompt, Prompts

Name = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$",
        description="1 to 64 letters, digits, dots, dashes or underscores, not beginning with a dot or a dash",
    ),
]
Text = Annotated[str, Meta(max_length=1024)]
Seconds = Annotated[float, Meta(gt=0, le=2_592_000)]  # 30 days
SecondsOrNone = Annotated[float, Meta(ge=0, le=2_592_000)]
Money = Annotated[float, Meta(ge=0, le=1_000_000_000)]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
KeyReference = Annotated[
    str,
    Meta(
        pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$",
        description="env:NAME or file:PATH, where the key is to be found, never the key itself",
    ),
]
TokenizerReference = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=1024,
        description="the path of a tokenizer.json or of its directory, or a name on the Hugging Face hub",
    ),
]


class PlanStruct(Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a plan file: immutable, and an unknown key is an error."""


class Timeouts(PlanStruct, frozen=True, kw_only=True):
    """Seconds until a request is given up."""

    connect_s: Seconds = 5  # DNS, connect and TLS together
    first_byte_s: Seconds = 60  # sent -> first byte of the answer
    idle_s: Seconds = 30  # between two reads of an answer
    total_s: Seconds = 600  # sent -> done


class Price(PlanStruct, frozen=True, kw_only=True):
    """What the provider charges, per million tokens, in `currency`."""

    input_per_million: Money
    cached_input_per_million: Money | None = None  # of what it took from its cache; None: as any input
    output_per_million: Money
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$", description="three capital letters such as USD")] = "USD"


EndpointError = Literal[
    "rate_limited", "overloaded", "http_5xx", "truncated", "malformed", "error_event", "empty",
    "timeout_first_byte", "timeout_idle", "timeout_total",
]  # fmt: skip
LocustfileError = Literal["failed"]  # a locustfile says so: its own check of the answer, or an exception of its client
NetworkError = Literal["dns", "connect", "timeout_connect", "tls", "write", "reset"]
ClientError = Literal["http_4xx", "redirect"]
GeneratorError = Literal["generator", "cancelled"]
ErrorWord = EndpointError | LocustfileError | NetworkError | ClientError | GeneratorError
Retryable = Literal[EndpointError, NetworkError]
Kind = Literal["load", "capacity", "probe"]
"""Of a run and its rows: of what is expected of the endpoint, in search of its limit, or a look at whether it is there."""


class Retries(PlanStruct, frozen=True, kw_only=True):
    """What is sent again when it failed. Figures are of first attempts, whatever became of the others."""

    max: Annotated[int, Meta(ge=1, le=10)]  # further attempts of one request
    on: Annotated[list[Retryable], Meta(min_length=1)] = field(default_factory=lambda: ["rate_limited", "overloaded"])
    honour_retry_after: bool = True


class Target(PlanStruct, frozen=True, kw_only=True):
    """An endpoint to send to."""

    name: Name
    url: Text
    dialect: Text
    model: Text = ""
    key: KeyReference | None = None
    headers: dict[str, str] = {}
    body: dict[str, Any] = {}  # merged into each request's JSON body
    method: Annotated[str, Meta(pattern="^[A-Z]{1,20}$", description="an HTTP method in capitals such as POST")] = (
        "POST"  # dialect http only, as is expect_status
    )
    expect_status: Annotated[int, Meta(ge=200, le=599)] = 200
    stream: bool = True
    continuous_usage: bool = False  # ask for the usage so far in every chunk (vLLM, SGLang), for tokens per chunk
    tokenizer: TokenizerReference | None = None  # as the plan's, for what this target's server does not count
    connections: Literal["reuse", "fresh", "conversation"] = "reuse"  # or a new one for each request or conversation
    proxy: Text | None = None  # http://host:port, or `environment`: the one that HTTP_PROXY and its like name
    proxy_key: KeyReference | None = None  # user:password for the proxy
    ca_file: Text | None = None  # certificates to trust besides the system's
    client_cert: Text | None = None  # certificate (PEM) to show, and the key to it where the file does not hold it
    client_key: Text | None = None
    server_name: Text | None = None  # the name that TLS asks for and checks, in place of the url's host
    http2: bool = False
    retries: Retries | None = None
    timeouts: Timeouts = Timeouts()
    max_in_flight: Count | None = None  # a cap over all workers: what exceeds it is `missed`, not late
    price: Price | None = None
    region: Text = ""
    announced: Text = ""  # how and when the provider was told of this test, for the report


class StopWhen(PlanStruct, frozen=True, kw_only=True):
    """Enough is known: the interval of a figure is at most this wide, as a share of it, for each target."""

    metric: Text
    stat: Text | None = None
    relative_width: Annotated[float, Meta(gt=0, le=2)]


class Stage(PlanStruct, frozen=True, kw_only=True):
    """One after the other, load of one kind."""

    name: Name
    arrivals: Arrivals
    duration_s: Seconds | None = None
    requests: Count | None = None  # per target
    concurrency: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None  # per target, closed load only
    ramp_up_s: SecondsOrNone | None = None  # closed load; default: the smaller of 2 s and a tenth of the duration
    warmup: bool = False
    overlap: bool = False  # the next stage does not wait for this one's drain
    drain_s: SecondsOrNone = 60
    stop_when: StopWhen | None = None  # before its planned end, see stopping.py
    rounds: Annotated[int, Meta(ge=1, le=1000)] = 1  # as often, each drained before the next: see rounds.py


class Slo(PlanStruct, frozen=True, kw_only=True):
    """A limit to judge by. `stat` is p50, p99.9, mean ... for a latency; left out for a rate or a share."""

    metric: Text
    limit: float
    stat: Text | None = None
    target: Text | None = None  # None: each target
    stage: Text | None = None  # None: each measured stage
    rule: Literal["interval", "mlperf"] = "interval"  # what decides: see verdict.py


class Region(PlanStruct, frozen=True, kw_only=True):
    """A vantage point: a Ray cluster, or those of its nodes that have all these labels."""

    name: Name
    labels: dict[str, str] = {}
    address: Text = ""  # of a cluster of its own; empty: the one at RAY_ADDRESS
    token_file: Text | None = None  # that cluster's token, where it asks for one and it is not the user's own


class Fleet(PlanStruct, frozen=True, kw_only=True):
    """The worker processes. All but the first two is about Ray, and is not looked at elsewhere."""

    workers: Annotated[int, Meta(ge=1, le=10_000)] = 1
    listeners: Text | None = None  # a Python file that each worker imports; its Locust listeners hear the run
    cpus: Annotated[float, Meta(gt=0, le=1024)] = 1  # what each worker asks Ray for
    resources: dict[str, float] = {}  # and beside these: `memory` in bytes, or any custom resource
    placement: Literal["spread", "pack"] = "spread"
    per_node: Count | None = None  # so many workers on a node, no two groups of them on one
    wait_s: Seconds = 60  # for nodes that are still to come
    regions: Annotated[list[Region], Meta(max_length=64)] = []  # the workers take turns in them


class GpuSource(PlanStruct, frozen=True, kw_only=True):
    """An exporter to ask, or the GPUs of this machine."""

    name: Name
    kind: Literal["auto", "dcgm", "amd", "vllm", "sglang", "tgi", "triton", "trtllm", "prometheus", "nvml"] = "auto"
    url: Text = ""  # of what it shows; nvml has none
    targets: dict[str, list[Text]] = {}  # target -> the devices here that serve it, by index or id; "*": all
    metrics: dict[str, str] = {}  # its metric -> our name, beside those that are known
    key: KeyReference | None = None  # sent as a Bearer token
    ca_file: Text | None = None


class Gpu(PlanStruct, frozen=True, kw_only=True):
    """What to sample beside the requests."""

    sources: Annotated[list[GpuSource], Meta(min_length=1, max_length=64)]
    every_s: Annotated[float, Meta(ge=0.1, le=60)] = 1
    stale_s: Annotated[float, Meta(gt=0, le=600)] = 5  # a value known to be older stands for nothing


class Plan(PlanStruct, frozen=True, kw_only=True):
    """What to send where, when, and what is good enough."""

    name: Name
    targets: Annotated[list[Target], Meta(min_length=1, max_length=64)]
    prompts: Prompts
    stages: Annotated[list[Stage], Meta(min_length=1, max_length=1000)]
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    nonce: Annotated[
        str,
        Meta(pattern="^[A-Za-z0-9._-]{0,64}$", description="up to 64 letters, digits, dots, dashes and underscores"),
    ] = ""  # empty: a fresh one for each run
    tokenizer: TokenizerReference | None = None  # tokens.py: a path or a name on the Hugging Face hub
    slos: list[Slo] = []
    goodput: dict[str, float] = {}  # metric -> limit, for one request
    validity: dict[str, float] = {}  # rule of validity.RULES -> limit in place of its default
    gpu: Gpu | None = None
    fleet: Fleet = Fleet()
    kind: Kind = "load"
    measured_by: Text = ""  # who answers for the run, for the report
    store: Text | None = None
    trace: Literal["off", "unsampled", "sampled"] = "unsampled"

    def rng(self, dimension: str) -> Random:
        """A generator of its own for each dimension: drawing more of one does not move another."""
        return Random(int.from_bytes(blake2b(f"{self.seed}\0{dimension}".encode(), digest_size=16).digest()))


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

FAULT_OF: Mapping[str, str] = {
    word: fault
    for fault, words in (
        ("endpoint", EndpointError),
        ("endpoint", LocustfileError),
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
    kind: Kind = "load"
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
    token_source: Literal["usage", "usage_matched", "tokenizer", "unknown"] = "unknown"  # of output_tokens
    # evidence
    request_id: str = ""  # the provider's
    response_id: str = ""
    response_model: str = ""
    remote_address: str = ""
    reused: bool = False
    reconnects: int = 0  # sent again on a fresh connection: the kept one was closed before a byte of the answer
    proxy: str = ""  # host:port of the one that it went through
    retry_after_s: float | None = None
    request_bytes: int = 0
    response_bytes: int = 0
    tcp_rtt_us: int | None = None
    tcp_retransmits: int | None = None
    # certainty
    clock: Literal["kernel", "user"] = "user"
    read_lag_ns: int = 0  # longest time that a chunk lay in the kernel before it was read
    uncertainty_ns: int = 0  # largest uncertainty of a chunk's stamp
    # what no plan says of the target
    attributes: dict[str, str] = field(default_factory=dict)  # further ones of the span: of a locustfile's request


class Metric(Struct, frozen=True, kw_only=True):
    """`sql` is an expression over one row of `requests`; metrics/ says what each kind yields and how it is used."""

    name: str
    unit: str
    kind: Literal["request", "pooled", "rate", "share", "ratio"]
    better: Literal["lower", "higher"]
    sql: str
    doc: str
    at: str = ""  # rate, ratio: the instants of the amounts that `sql` yields
    count: str = ""  # pooled: how many values `sql` yields
    population: Literal["successes", "requests"] = "successes"
    applies: str = ""  # SQL condition for a row to have such a figure at all; a failed request counts only there
    sampled: str = ""  # a gauge that is joined to the row as the column `sampled`; ratio: to the stage (gpu/figures.py)


class Verdict(Struct, frozen=True):
    """An SLO judged for one target and stage. `low` and `high` bound `value`, at 95% or, by MLPerf's rule, each at 99%;
    None: it cannot be known."""

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
    rule: Literal["interval", "mlperf"] = "interval"


def trace_id(run: str, stage: str, seq: int, target: str, attempt: int) -> str:
    """The 128-bit BLAKE2b of a request's identity, as 32 hex digits."""
    return blake2b(f"{run}\0{stage}\0{seq}\0{target}\0{attempt}".encode(), digest_size=16).hexdigest()
