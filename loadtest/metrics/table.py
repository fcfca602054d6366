"""The table itself, and the pieces of SQL that several of its metrics share."""

from collections.abc import Iterable

from loadtest.rounds import OF_SEQ
from loadtest.types import TOKEN_KINDS, Metric

BY = ("stage", "target")
BY_ROUND = f"{OF_SEQ} AS round"
STATS = ("p50", "p90", "p95", "p99", "p99.9", "mean")

OK = "fault = ''"
FAILED = "fault IN ('endpoint', 'network')"
_KINDS = f"({', '.join(str(int(kind)) for kind in TOKEN_KINDS)})"
_TOKEN_OFFSETS = f"arrayFilter((t, k) -> k IN {_KINDS}, chunk_offset_ns, chunk_kind)"
_GAPS = f"arrayMap(t -> t / 1e6, arrayPopFront(arrayDifference({_TOKEN_OFFSETS})))"
_CHUNK_TOKENS = "arrayResize(chunk_tokens, length(chunk_kind))"  # a lambda over arrays of two lengths fails
_TOKEN_COUNTS = f"arrayFilter((n, k) -> k IN {_KINDS}, {_CHUNK_TOKENS}, chunk_kind)"
_TOKEN_GAPS = (
    f"if(token_source = 'usage_matched', {_GAPS}, arrayFlatten(arrayMap((gap, n) -> arrayWithConstant(n, gap / n), "
    f"{_GAPS}, arrayPopFront({_TOKEN_COUNTS}))))"
)
_TOKEN_GAPS_COUNT = (
    "multiIf(NOT tokens_known OR token_chunks = 0, 0, token_source = 'usage_matched', toInt64(token_chunks) - 1, "
    f"toInt64(arraySum({_TOKEN_COUNTS})) - first_chunk_tokens)"
)
_TPOT = (
    "if(streamed_tokens > first_chunk_tokens, "
    "(last_token_ns - first_token_ns) / 1e6 / (streamed_tokens - first_chunk_tokens), NULL)"
)
_TTFT = "first_token_ns / 1e6"
_E2E = "(done_ns - sent_ns) / 1e6"
_PIECES = "if(streamed, greatest(token_chunks, 1), 1)"
_TOKEN_AMOUNTS = (
    "multiIf(streamed AND token_source = 'usage_matched', arrayWithConstant(token_chunks, 1.), "
    f"streamed AND tokens_known, arrayMap(n -> toFloat64(n), {_TOKEN_COUNTS}), "
    f"streamed_tokens IS NOT NULL, arrayWithConstant({_PIECES}, toFloat64(assumeNotNull(streamed_tokens)) / {_PIECES}), "
    f"{OK}, arrayWithConstant({_PIECES}, nan), [])"
)
_TOKEN_INSTANTS = (
    f"multiIf(streamed AND (tokens_known OR token_chunks > 0 AND (streamed_tokens IS NOT NULL OR {OK})), "
    f"arrayMap(t -> assumeNotNull(sent_ns) + t, {_TOKEN_OFFSETS}), "
    f"streamed_tokens IS NOT NULL OR {OK}, [done_ns], [])"
)

GOODPUT_LIMITS = ("ttft_ms", "ttfo_ms", "tpot_ms", "e2e_ms", "due_ttft_ms", "due_e2e_ms", "output_speed")
"""The metrics that a plan's `goodput:` may limit: those with one value a request that an endpoint answers for."""


def _goodput(metrics: Iterable[Metric]) -> str:
    """1 where a success met every limit, 0 where it or the request failed, NaN where a needed figure is unknown."""
    met = " AND ".join(f"(NOT mapContains(goodput_limits, '{m.name}') OR {_within(m)})" for m in metrics)
    return f"[multiIf(empty(goodput_limits), nan, NOT ({OK}), 0., ifNull(toFloat64({met}), nan))]"


def _within(metric: Metric) -> str:
    compared = "<=" if metric.better == "lower" else ">="
    within = f"{metric.sql} {compared} goodput_limits['{metric.name}']"
    if metric.name in ("tpot_ms", "output_speed"):  # one token or one chunk of them: there is no pace to be too slow
        return f"(streamed_tokens <= first_chunk_tokens OR {within})"
    return within


_REQUEST_METRICS = (
    Metric(
        name="ttft_ms",
        unit="ms",
        kind="request",
        better="lower",
        sql=_TTFT,
        applies="streamed",
        doc="Time to first token: from just before the first byte of the request is written to the arrival of the "
        "first token chunk. A token chunk carries reasoning, content, a tool call or media; role-only, empty, usage "
        "and keep-alive chunks are none. Reasoning counts. Null where the answer was not streamed.",
    ),
    Metric(
        name="ttfo_ms",
        unit="ms",
        kind="request",
        better="lower",
        sql="first_content_ns / 1e6",
        applies="streamed",
        doc="Time to first output: as ttft_ms, to the first chunk of content. Reasoning does not count. Null where "
        "an answer has no content.",
    ),
    Metric(
        name="icl_ms",
        unit="ms",
        kind="pooled",
        better="lower",
        sql=_GAPS,
        count="toInt64(greatest(token_chunks, 1)) - 1",
        applies="streamed",
        doc="Inter-chunk latency: the gaps between consecutive token chunks, pooled over requests.",
    ),
    Metric(
        name="itl_ms",
        unit="ms",
        kind="pooled",
        better="lower",
        sql=_TOKEN_GAPS,
        count=_TOKEN_GAPS_COUNT,
        applies="streamed",
        doc="Inter-token latency: each gap between token chunks divided by the tokens of the chunk that ended it, "
        "once for each of those tokens, pooled over requests. None where tokens per chunk are unknown: icl_ms stands "
        "then.",
    ),
    Metric(
        name="tpot_ms",
        unit="ms",
        kind="request",
        better="lower",
        sql=_TPOT,
        applies="streamed",
        doc="Time per output token: (last - first token chunk) / (n - k). n: output tokens, without reasoning "
        "tokens that were never streamed; k: tokens in the first token chunk where known, else 1, and the report "
        "marks it. Null where n <= k or n is unknown.",
    ),
    Metric(
        name="e2e_ms",
        unit="ms",
        kind="request",
        better="lower",
        sql=_E2E,
        doc="End to end: from just before the first byte of the request is written to the end of the answer.",
    ),
    Metric(
        name="due_ttft_ms",
        unit="ms",
        kind="request",
        better="lower",
        sql="(sent_ns + first_token_ns - due_ns) / 1e6",
        applies="streamed AND due_ns IS NOT NULL",
        doc="ttft_ms from the instant the request was due: what an arriving user would have felt. Null under closed "
        "load.",
    ),
    Metric(
        name="due_e2e_ms",
        unit="ms",
        kind="request",
        better="lower",
        sql="(done_ns - due_ns) / 1e6",
        applies="due_ns IS NOT NULL",
        doc="e2e_ms from the instant the request was due: what an arriving user would have felt. Null under closed "
        "load.",
    ),
    Metric(
        name="output_speed",
        unit="tokens/s",
        kind="request",
        better="higher",
        sql=f"1000 / nullIf({_TPOT}, 0)",
        applies="streamed",
        doc="1000 / tpot_ms, for each request. Null where tpot_ms is null or 0.",
    ),
)

_ALL = (
    *_REQUEST_METRICS,
    Metric(
        name="output_tokens_per_s",
        unit="tokens/s",
        kind="rate",
        better="higher",
        sql=_TOKEN_AMOUNTS,
        at=_TOKEN_INSTANTS,
        doc="Tokens whose chunk arrived within [stage start, end of arrivals], over that time. Where tokens per "
        "chunk are unknown and their total is known, the total is spread evenly over the token chunks; the tokens of "
        "an answer that was not streamed count at its end; reasoning tokens that were never streamed have no chunk "
        "and do not count. Tokens of failed requests count as far as they are known. Null where a success's tokens "
        "are unknown: a sum of the others would understate the endpoint.",
    ),
    Metric(
        name="requests_per_s",
        unit="1/s",
        kind="rate",
        better="higher",
        sql=f"if({OK}, [1.], [])",
        at=f"if({OK}, [done_ns], [])",
        doc="Requests that completed, without a fault, within [stage start, end of arrivals], over that time.",
    ),
    Metric(
        name="error_rate",
        unit="1",
        kind="share",
        better="lower",
        sql="if(fault IN ('client', 'generator'), NULL, fault != '')",
        doc="Requests that failed by the endpoint's or the network's fault, among all that ended by other than "
        "client and generator faults; those are listed apart.",
    ),
    Metric(
        name="success_rate",
        unit="1",
        kind="share",
        better="higher",
        sql=f"if(fault IN ('client', 'generator'), NULL, {OK})",
        doc="1 - error_rate. A load run never yields uptime: that word belongs to probes.",
    ),
    Metric(
        name="goodput",
        unit="1/s",
        kind="rate",
        better="higher",
        sql=_goodput(m for m in _REQUEST_METRICS if m.name in GOODPUT_LIMITS),
        at="[done_ns]",
        doc="Requests that met every limit of the plan's `goodput:` and completed within [stage start, end of "
        "arrivals], over that time. Failures miss. A limit on tpot_ms or output_speed is met where n <= k. Null where "
        "the plan sets no limits, or a needed figure of a success is unknown and no other limit was missed.",
    ),
    Metric(
        name="schedule_lag_ms",
        unit="ms",
        kind="request",
        better="lower",
        sql="(started_ns - due_ns) / 1e6",
        population="requests",
        doc="From the instant a request was due to the instant a worker took it up: the generator's fault alone, "
        "over all requests whatever became of them. Null under closed load.",
    ),
    Metric(
        name="connect_ms",
        unit="ms",
        kind="request",
        better="lower",
        sql="if(reused, NULL, (ifNull(dns_dur_ns, 0) + connect_dur_ns + ifNull(tls_dur_ns, 0)) / 1e6)",
        applies="NOT reused",
        doc="DNS, connect and TLS together. Null on a reused connection.",
    ),
    Metric(
        name="read_lag_ms",
        unit="ms",
        kind="request",
        better="lower",
        sql="if(clock = 'kernel', read_lag_ns / 1e6, NULL)",
        population="requests",
        doc="The longest time that a chunk of the request lay in the kernel before it was read, over all requests "
        "whatever became of them. Null where the kernel did not stamp the chunks.",
    ),
    Metric(
        name="gpu_utilization",
        unit="%",
        kind="request",
        better="higher",
        sql="100 * sampled",
        sampled="hw.gpu.utilization",
        population="requests",
        doc="What the GPUs behind the target did while the request was under way: the mean over the devices that the "
        "plan's `gpu:` maps to the target, and over the steps of its `every_s` that overlap [sent, done], over all "
        "requests whatever became of them. Replicas are context: which of them a request met is not known. Null where no "
        "sample was taken, or what a source showed was older than `stale_s` (docs/gpu.md).",
    ),
    Metric(
        name="energy_per_token",
        unit="J/token",
        kind="ratio",
        better="lower",
        sql=_TOKEN_AMOUNTS,
        at=_TOKEN_INSTANTS,
        sampled="hw.power",
        doc="The power that the GPUs behind the target drew together within [stage start, end of arrivals], on average over "
        "the steps of the plan's `gpu:`, over output_tokens_per_s: what a token cost if this load is all that they did. Null, "
        "and shown as not provided, where no source gave their power in 95% of the steps, or tokens are unknown or none.",
    ),
    Metric(
        name="uncertainty_ms",
        unit="ms",
        kind="request",
        better="lower",
        sql="if(first_byte_ns IS NULL AND uncertainty_ns = 0, NULL, uncertainty_ns / 1e6)",
        population="requests",
        doc="The largest uncertainty of a stamp of the request (0 where no read held two chunks), over all requests "
        "whatever became of them. Null where nothing was stamped.",
    ),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}


def needs_stat(metric: str) -> bool:
    """True for a metric that is asked for with a stat (p99, mean); False for a rate or a share, which is one number."""
    return METRICS[metric].kind in ("request", "pooled")
