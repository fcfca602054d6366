"""DEFINITIONS: what other tools mean by the same words, over the same stored rows.

"TTFT" of two tools differs though both are right: they start the clock at different moments, stop it at different
chunks, divide by different counts of tokens, leave different requests out and read percentiles off differently. So a
dispute about a figure is settled by having both: `vllm.ttft_ms` is what vLLM's benchmark would have printed had it seen
the very answers of a stored run. Each definition was read from the tool's source at the version its `Tool` names, and
compared with the tool itself where that can be installed (docs/definitions.md).

They stand apart from METRICS: nothing of ours is judged by them, and a figure is only quoted under the name of its
tool. What cannot be reproduced for lack of a fact in the rows is null, and `doc` says why.

`Definition.sql` is an expression over one row of `requests`, of the rows that meet `among`; its kind says of what form:

    request    a nullable number, one value a request
    pooled     an array of numbers, many values a request, pooled over requests
    weighted   a nullable number that counts `weight` times (GuideLLM weighs a request's latency by its tokens)

What the rows cannot tell, and no definition has:

- How long the tool itself would have taken to send and to read. Kernel stamps leave that out; under load it is most of
  the difference (docs/definitions.md).
- Whether a chunk without payload had `choices`: taken as yes, unless it carried usage. vLLM from 0.33 counts one with
  empty content and without a role as a token, and reasoning under the name `reasoning` alone.
- Whether a stream that broke off ended its body properly: a failure here, while most tools take it for a success then.
"""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from loadtest import metrics
from loadtest.metrics import BY, FAILED, OK
from loadtest.types import ChunkKind

Method = Literal["linear", "nearest", "lower", "floor"]

METHODS: dict[Method, str] = {
    "linear": "interpolated linearly between two values, as numpy does",
    "nearest": "nearest rank: the value at rank ceil(p n)",
    "lower": "the value at index floor(p (n - 1)), numpy's `lower`",
    "floor": "the value at index floor(p n), as here",
}
"""How a percentile is read off n sorted values."""


class Tool(Struct, frozen=True, kw_only=True):
    """Whose definitions, at which version, and how its figures are made of the values."""

    name: str  # before the dot of a definition's name, and what --as takes
    title: str
    version: str
    source: str
    method: Method
    stats: tuple[str, ...]  # that it prints, in its order
    differs: str  # the short answer to why its figures are not ours
    after: str = ""  # the tool of an earlier version, whose definitions these replaced


class Definition(Struct, frozen=True, kw_only=True):
    """One figure of one tool."""

    name: str
    calls: str  # what the tool itself calls it
    of: Literal["first", "token", "end"]  # the question it answers: the first token, each token, the whole answer
    kind: Literal["request", "pooled", "weighted"] = "request"
    sql: str
    weight: str = ""
    among: str
    doc: str
    unit: str = "ms"

    @property
    def tool(self) -> str:
        return self.name.partition(".")[0]


TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            name="aiperf",
            title="AIPerf",
            version="0.13.0",
            source="PyPI aiperf: metrics/types/*.py, metrics/metric_dicts.py, endpoints/openai_chat.py",
            method="linear",
            stats=("mean", "p50", "p90", "p99"),
            differs="Starts before connecting; ends at the last token chunk; ITL is one average a request.",
        ),
        Tool(
            name="guidellm",
            title="GuideLLM",
            version="0.8.1",
            source="PyPI guidellm: schemas/base/request_stats.py, schemas/base/statistics.py, backends/openai/http.py",
            method="nearest",
            stats=("mean", "p50", "p95", "p99"),
            differs="ITL and TPOT are averages of requests, weighted by their tokens; its TPOT includes the TTFT.",
        ),
        Tool(
            name="genai_bench",
            title="genai-bench",
            version="0.0.5",
            source="PyPI genai-bench: user/openai_user.py, metrics/*.py",
            method="linear",
            stats=("mean", "p25", "p50", "p75", "p90", "p95", "p99"),
            differs="Starts before connecting, for which it gives each request a new connection; TPOT lasts until the "
            "usage chunk, not the last token.",
        ),
        Tool(
            name="inference_perf",
            title="inference-perf",
            version="0.7.0",
            source="PyPI inference-perf: reportgen/base.py, apis/chat.py, apis/streaming_parser.py",
            method="linear",
            stats=("mean", "p0.1", "p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "p99.9"),
            differs="Starts before connecting; reasoning does not count; tokens that share a chunk are 0 ms apart.",
        ),
        Tool(
            name="vllm",
            title="vLLM bench serve, up to 0.32",
            version="0.32.0",
            source="PyPI vllm: benchmarks/lib/endpoint_request_func.py, benchmarks/serve.py",
            method="linear",
            stats=("mean", "p50", "p99"),
            differs="Starts before connecting; the role-only first chunk ends the TTFT; gaps to chunks without a token "
            "count as ITL.",
        ),
        Tool(
            name="vllm_033",
            title="vLLM bench serve, from 0.33",
            version="0.33.0",
            after="vllm",
            source="PyPI vllm: benchmarks/lib/endpoint_request_func.py, benchmarks/serve.py",
            method="linear",
            stats=("mean", "p50", "p99"),
            differs="Starts before connecting; several tokens in a chunk are one gap of ITL.",
        ),
        Tool(
            name="evalscope",
            title="EvalScope, up to 1.11",
            version="1.11.0",
            source="PyPI evalscope: perf/plugin/api/default_api.py, perf/utils/{benchmark_util,db_util}.py",
            method="floor",
            stats=("mean", "p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99"),
            differs="Starts before connecting; the role-only first chunk ends the TTFT; TPOT lasts until the usage "
            "chunk; an error inside a 200 stream is a success.",
        ),
        Tool(
            name="evalscope_112",
            title="EvalScope, from 1.12",
            version="1.14.1",
            after="evalscope",
            source="PyPI evalscope: perf/plugin/api/default_api.py, perf/utils/{benchmark_util,db_util}.py",
            method="nearest",
            stats=("mean", "p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99"),
            differs="Starts before connecting; TPOT lasts until the usage chunk; an answer without a token is a "
            "success with a TTFT of 0.",
        ),
        Tool(
            name="mlcommons",
            title="MLCommons endpoints",
            version="ea33275",
            source="github.com/mlcommons/endpoints: openai/accumulator.py, load_generator/session.py, "
            "async_utils/services/metrics_aggregator/{metrics_table,registry}.py",
            method="lower",
            stats=("mean", "p50", "p75", "p80", "p90", "p95", "p97", "p99", "p99.9"),
            differs="Starts before connecting; TPOT lasts until the end of the answer; failures count in the latency "
            "with the time they took.",
        ),
        Tool(
            name="llmperf",
            title="LLMPerf",
            version="f1d6bed",
            source="github.com/ray-project/llmperf: ray_clients/openai_chat_completions_client.py, "
            "token_benchmark_ray.py",
            method="linear",
            stats=("mean", "p25", "p50", "p75", "p90", "p95", "p99"),
            differs="Starts before connecting; reasoning does not count; ITL includes the TTFT and divides by chunks.",
        ),
        Tool(
            name="mlperf_loadgen",
            title="MLPerf LoadGen",
            version="6.0.17",
            source="github.com/mlcommons/inference: loadgen/{loadgen,logging,results,issue_query_controller}.cc",
            method="floor",
            stats=("mean", "p50", "p90", "p95", "p97", "p99", "p99.9"),
            differs="Starts when the request was due (server scenario); TPOT lasts until the end of the answer.",
        ),
        Tool(
            name="artificial_analysis",
            title="Artificial Analysis",
            version="methodology 2.2.0",
            source="artificialanalysis.ai/methodology/performance-benchmarking, 2 March 2026",
            method="linear",
            stats=("p50",),
            differs="The median of probes over 72 hours, not of a load; one tokenizer counts the tokens of all models.",
        ),
    )
}
"""By name, in the order of METRICS' table of others."""


# What the expressions are made of. Offsets are from `sent_ns`, in ns.

_EMPTY, _REASONING, _CONTENT, _TOOL_CALL, _MEDIA, _USAGE = map(int, ChunkKind)
_OUTPUT = (_REASONING, _CONTENT, _TOOL_CALL)
_TEXT = (_REASONING, _CONTENT)
_ANSWER = (_CONTENT, _TOOL_CALL)
_WITH_CHOICES = (_EMPTY, _REASONING, _CONTENT, _TOOL_CALL, _MEDIA)
_ANY = (*_WITH_CHOICES, _USAGE)

_CONNECTING = "(ifNull(dns_dur_ns, 0) + ifNull(connect_dur_ns, 0) + ifNull(tls_dur_ns, 0))"
_DONE = "(done_ns - sent_ns)"
_STREAMED = f"{OK} AND streamed"
_COUNTS = "arrayResize(chunk_tokens, length(chunk_kind))"
_FROM_CONNECTING = "From before DNS, connect and TLS, where the request opened a connection"


def _among(*words: str) -> str:
    """Successes, and failures of these words, which the tool does not notice."""
    return f"(fault = '' OR error IN ({', '.join(map(repr, words))}))"


def _listed(kinds: Sequence[int]) -> str:
    return f"({', '.join(map(str, kinds))})"


def _offsets(kinds: Sequence[int]) -> str:
    return f"arrayFilter((t, k) -> k IN {_listed(kinds)}, chunk_offset_ns, chunk_kind)"


def _first(kinds: Sequence[int]) -> str:
    return f"arrayFirstOrNull((t, k) -> k IN {_listed(kinds)}, chunk_offset_ns, chunk_kind)"


def _last(kinds: Sequence[int]) -> str:
    return f"arrayLastOrNull((t, k) -> k IN {_listed(kinds)}, chunk_offset_ns, chunk_kind)"


def _gaps(offsets: str) -> str:
    return f"arrayMap(t -> t / 1e6, arrayPopFront(arrayDifference({offsets})))"


def _ms(ns: str) -> str:
    return f"({ns}) / 1e6"


def _connected_ms(ns: str) -> str:
    """Of an offset from `sent_ns`, with what connecting took before."""
    return _ms(f"{ns} + {_CONNECTING}")


def _per_token(first: str, last: str, n: str) -> str:
    """The average over the n - 1 tokens after the first one."""
    return f"if({n} > 1, ({last} - {first}) / 1e6 / ({n} - 1), NULL)"


_AIPERF_END = f"if(streamed, {_last(_OUTPUT)}, {_DONE})"
_AIPERF = (
    Definition(
        name="aiperf.ttft_ms",
        calls="Time to First Token",
        of="first",
        sql=_connected_ms(_first(_OUTPUT)),
        among=_STREAMED,
        doc=f"{_FROM_CONNECTING}, to the first chunk of reasoning, content or tool call.",
    ),
    Definition(
        name="aiperf.ttfo_ms",
        calls="Time to First Output Token",
        of="first",
        sql=_connected_ms(_first(_ANSWER)),
        among=_STREAMED,
        doc="As aiperf.ttft_ms, to the first chunk of content or tool call.",
    ),
    Definition(
        name="aiperf.itl_ms",
        calls="Inter Token Latency",
        of="token",
        sql=_per_token(_first(_OUTPUT), _last(_OUTPUT), "streamed_tokens"),
        among=_STREAMED,
        doc="(request latency - TTFT) / (n - 1), one value a request. n: AIPerf counts the text with its own tokenizer "
        "unless --use-server-token-count is set; here it is the tokens that were streamed, by the run's own count.",
    ),
    Definition(
        name="aiperf.itl_per_chunk_usage_ms",
        calls="Inter Token Latency, with --per-chunk-usage",
        of="token",
        sql=f"if(tokens_known AND output_tokens > 1, ({_last(_OUTPUT)} - {_first(_OUTPUT)}) / 1e6 / "
        "if(first_chunk_tokens BETWEEN 1 AND output_tokens - 1, toInt64(output_tokens) - first_chunk_tokens, "
        "toInt64(output_tokens) - 1), NULL)",
        among=_STREAMED,
        doc="As aiperf.itl_ms, divided by n - k, where k is the tokens in the first chunk and n the server's count. "
        "Null where the tokens per chunk are not known.",
    ),
    Definition(
        name="aiperf.icl_ms",
        calls="Inter Chunk Latency",
        of="token",
        kind="pooled",
        sql=_gaps(_offsets(_OUTPUT)),
        among=_STREAMED,
        doc="The gaps between chunks of reasoning, content or tool call, pooled over requests.",
    ),
    Definition(
        name="aiperf.e2e_ms",
        calls="Request Latency",
        of="end",
        sql=_connected_ms(_AIPERF_END),
        among=OK,
        doc=f"{_FROM_CONNECTING}, to the last chunk of reasoning, content or tool call: finish reason, usage and "
        "terminal marker do not count.",
    ),
)

_GUIDELLM_N = (
    "if(token_source IN ('usage', 'usage_matched'), toInt64(output_tokens), "
    f"nullIf(toInt64(length({_offsets(_OUTPUT)})), 0))"
)
_GUIDELLM = (
    Definition(
        name="guidellm.ttft_ms",
        calls="TTFT",
        of="first",
        sql=_ms(_first(_OUTPUT)),
        among=_STREAMED,
        doc="From the first byte of the request, the connection being open, to the first chunk of reasoning, content "
        "or tool call.",
    ),
    Definition(
        name="guidellm.ttfot_ms",
        calls="time_to_first_output_token_ms",
        of="first",
        sql=_ms(_first(_ANSWER)),
        among=_STREAMED,
        doc="As guidellm.ttft_ms, to the first chunk of content or tool call.",
    ),
    Definition(
        name="guidellm.itl_ms",
        calls="ITL",
        of="token",
        kind="weighted",
        sql=_per_token(_first(_OUTPUT), _last(_OUTPUT), _GUIDELLM_N),
        weight=f"greatest(ifNull({_GUIDELLM_N}, 0) - 1, 0)",
        among=_STREAMED,
        doc="(last - first chunk) / (n - 1), one average a request, which counts n - 1 times in mean and percentiles. "
        "n: the server's usage, else the number of chunks.",
    ),
    Definition(
        name="guidellm.tpot_ms",
        calls="TPOT",
        of="token",
        kind="weighted",
        sql=f"if({_GUIDELLM_N} > 0, {_last(_OUTPUT)} / 1e6 / {_GUIDELLM_N}, NULL)",
        weight=f"ifNull({_GUIDELLM_N}, 0)",
        among=_STREAMED,
        doc="(last chunk - start) / n, the TTFT included; counts n times in mean and percentiles.",
    ),
    Definition(
        name="guidellm.e2e_ms",
        calls="Request latency",
        of="end",
        sql=_ms(_DONE),
        among=OK,
        doc="From the first byte of the request to the terminal marker.",
    ),
)

_GENAI_END = f"ifNull({_last((_USAGE,))}, {_DONE})"
_GENAI_BENCH = (
    Definition(
        name="genai_bench.ttft_ms",
        calls="ttft",
        of="first",
        sql=_connected_ms(_first(_TEXT)),
        among=_STREAMED,
        doc=f"{_FROM_CONNECTING} (genai-bench opens one for every request), to the first chunk of reasoning or "
        "content. Tool calls do not count.",
    ),
    Definition(
        name="genai_bench.tpot_ms",
        calls="tpot",
        of="token",
        sql=f"if(output_tokens > 1 AND {_GENAI_END} - {_first(_TEXT)} >= 1e6, "
        f"({_GENAI_END} - {_first(_TEXT)}) / 1e6 / (toInt64(output_tokens) - 1), NULL)",
        among=_STREAMED,
        doc="(e2e_latency - ttft) / (n - 1). n: the server's usage, else its tokenizer's count. An answer whose tokens "
        "all came within a millisecond is left out.",
    ),
    Definition(
        name="genai_bench.e2e_ms",
        calls="e2e_latency",
        of="end",
        sql=f"if({_first(_TEXT)} IS NULL, NULL, {_connected_ms(_GENAI_END)})",
        among=_STREAMED,
        doc=f"{_FROM_CONNECTING}, to the usage chunk, where it stops reading, else to the end of the answer.",
    ),
)

_SAW_ALL = _among("error_event", "empty")
_PERF_COUNTS = (
    f"if(token_source = 'usage_matched', arrayMap(k -> 1, arrayFilter(k -> k = {_CONTENT}, chunk_kind)), "
    f"arrayFilter((n, k) -> k = {_CONTENT}, {_COUNTS}, chunk_kind))"
)
_PERF_TIMES = (
    "if(tokens_known, arrayFlatten(arrayMap((t, n) -> arrayWithConstant(n, t), "
    f"{_offsets((_CONTENT,))}, {_PERF_COUNTS})), "
    f"{_offsets((_CONTENT,))})"
)
_PERF_N = (
    f"multiIf(tokens_known, toNullable(toInt64(length({_PERF_TIMES}))), "
    f"hasAny(chunk_kind, [{_TOOL_CALL}, {_MEDIA}]) OR has(chunk_kind, {_REASONING}) AND reasoning_tokens IS NULL, "
    "NULL, "
    "toInt64(output_tokens) - ifNull(reasoning_tokens, 0))"
)
_INFERENCE_PERF = (
    Definition(
        name="inference_perf.ttft_ms",
        calls="time_to_first_token",
        of="first",
        sql=f"if(length({_PERF_TIMES}) > 1, {_connected_ms(f'{_PERF_TIMES}[1]')}, NULL)",
        among=f"{_SAW_ALL} AND streamed",
        doc=f"{_FROM_CONNECTING}, to the first chunk of content; reasoning does not count. Null for an answer of one "
        "token. An error inside a 200 stream goes unnoticed and counts as a success.",
    ),
    Definition(
        name="inference_perf.tpot_ms",
        calls="time_per_output_token",
        of="token",
        sql=f"if(length({_PERF_TIMES}) > 1 AND {_PERF_N} > 1, "
        f"({_PERF_TIMES}[-1] - {_PERF_TIMES}[1]) / 1e6 / ({_PERF_N} - 1), NULL)",
        among=f"{_SAW_ALL} AND streamed",
        doc="(last - first chunk of content) / (n - 1). n: its tokenizer's count of the content; here the run's own "
        "count without reasoning, null where reasoning or tool calls cannot be told apart.",
    ),
    Definition(
        name="inference_perf.itl_ms",
        calls="inter_token_latency",
        of="token",
        kind="pooled",
        sql=f"if(tokens_known, {_gaps(_PERF_TIMES)}, [])",
        among=f"{_SAW_ALL} AND streamed",
        doc="The gaps between tokens of content, pooled: all tokens of a chunk arrive with it, 0 ms apart, and the "
        "first of them takes the whole gap. None where tokens per chunk are not known.",
    ),
    Definition(
        name="inference_perf.ntpot_ms",
        calls="normalized_time_per_output_token",
        of="token",
        sql=f"if({_PERF_N} > 0, ({_DONE} + {_CONNECTING}) / 1e6 / {_PERF_N}, if({_PERF_N} = 0, 0, NULL))",
        among=_SAW_ALL,
        doc="Request latency / n, the TTFT included; 0 for an answer without a token.",
    ),
    Definition(
        name="inference_perf.e2e_ms",
        calls="request_latency",
        of="end",
        sql=_connected_ms(_DONE),
        among=_SAW_ALL,
        doc=f"{_FROM_CONNECTING}, to the end of the answer.",
    ),
)


def _vllm(prefix: str, kinds: Sequence[int], among: str, ends_at: str) -> tuple[Definition, ...]:
    first, last = _first(kinds), _last(kinds)
    return (
        Definition(
            name=f"{prefix}.ttft_ms",
            calls="TTFT",
            of="first",
            sql=_connected_ms(first),
            among=among,
            doc=f"{_FROM_CONNECTING}, to the first chunk {ends_at}.",
        ),
        Definition(
            name=f"{prefix}.tpot_ms",
            calls="TPOT",
            of="token",
            sql=_per_token(first, last, "toInt64(output_tokens)"),
            among=among,
            doc="(E2EL - TTFT) / (n - 1). n: the server's usage, else its tokenizer's count. Null where n <= 1.",
        ),
        Definition(
            name=f"{prefix}.itl_ms",
            calls="ITL",
            of="token",
            kind="pooled",
            sql=_gaps(_offsets(kinds)),
            among=among,
            doc=f"The gaps between chunks {ends_at}, pooled, whatever number of tokens a chunk has.",
        ),
        Definition(
            name=f"{prefix}.e2e_ms",
            calls="E2EL",
            of="end",
            sql=_connected_ms(last),
            among=among,
            doc=f"{_FROM_CONNECTING}, to the last chunk {ends_at}. Printed where --percentile-metrics asks for it.",
        ),
    )


_VLLM = (
    *_vllm(
        "vllm",
        _WITH_CHOICES,
        f"{_among('empty')} AND streamed",
        "with `choices`, be it role-only, empty or the finish reason",
    ),
    *_vllm(
        "vllm_033",
        _OUTPUT,
        _STREAMED,
        "of content, reasoning or tool call",
    ),
)


def _evalscope(prefix: str, kinds: Sequence[int], words: Sequence[str], ends_at: str) -> tuple[Definition, ...]:
    among = _among(*words)
    streamed = f"{among} AND streamed"
    first = f"ifNull({_first(kinds)} + {_CONNECTING}, 0)"
    end = f"ifNull({_last(_ANY)} + {_CONNECTING}, 0)"
    return (
        Definition(
            name=f"{prefix}.ttft_ms",
            calls="TTFT",
            of="first",
            sql=_ms(first),
            among=streamed,
            doc=f"{_FROM_CONNECTING}, to the first chunk {ends_at}; 0 for an answer without one.",
        ),
        Definition(
            name=f"{prefix}.tpot_ms",
            calls="TPOT",
            of="token",
            sql=_per_token(first, end, "toInt64(output_tokens)"),
            among=streamed,
            doc="(latency - TTFT) / (n - 1), and so until the usage chunk. n: the server's usage, else its tokenizer's "
            "count. Null where n <= 1.",
        ),
        Definition(
            name=f"{prefix}.itl_ms",
            calls="ITL",
            of="token",
            kind="pooled",
            sql=_gaps(_offsets(kinds)),
            among=streamed,
            doc=f"The gaps between chunks {ends_at}, pooled, whatever number of tokens a chunk has.",
        ),
        Definition(
            name=f"{prefix}.e2e_ms",
            calls="Latency",
            of="end",
            sql=_ms(f"if(streamed, {end}, {_DONE} + {_CONNECTING})"),
            among=among,
            doc=f"{_FROM_CONNECTING}, to the last chunk of any kind, usage included; the terminal marker does not "
            "count.",
        ),
    )


_EVALSCOPE = (
    *_evalscope("evalscope", _WITH_CHOICES, ("error_event", "empty"), "with `choices`, be it role-only or empty"),
    *_evalscope("evalscope_112", _OUTPUT, ("empty",), "of reasoning, content or tool call"),
)

_SETTLED = f"({OK} OR {FAILED})"
_AFTER_FIRST = (
    "if(token_source = 'usage_matched', toInt64(token_chunks) - 1, "
    f"toInt64(arraySum(arrayFilter((n, k) -> k IN {_listed((*_OUTPUT, _MEDIA))}, {_COUNTS}, chunk_kind))) "
    "- first_chunk_tokens)"
)
_MLCOMMONS = (
    Definition(
        name="mlcommons.ttft_ms",
        calls="TTFT",
        of="first",
        sql=_connected_ms(_first(_OUTPUT)),
        among=f"{_SETTLED} AND streamed",
        doc=f"{_FROM_CONNECTING}, to the first chunk of reasoning, content or tool call. Answers that failed later "
        "count as well.",
    ),
    Definition(
        name="mlcommons.tpot_ms",
        calls="TPOT",
        of="token",
        sql=f"if(tokens_known AND {_AFTER_FIRST} > 0, ({_DONE} - {_first(_OUTPUT)}) / 1e6 / {_AFTER_FIRST}, NULL)",
        among=_STREAMED,
        doc="(end of the answer - first chunk) / tokens after the first chunk, by the model's tokenizer. Null where "
        "tokens per chunk are not known.",
    ),
    Definition(
        name="mlcommons.e2e_ms",
        calls="Latency",
        of="end",
        sql=_ms(f"done_ns - ifNull(sent_ns - {_CONNECTING}, started_ns)"),
        among=_SETTLED,
        doc=f"{_FROM_CONNECTING}, to the end of the answer or the instant of its failure: a 429 after 5 ms is a "
        "latency of 5 ms.",
    ),
)

_LLMPERF_AMONG = f"{_among('empty')} AND streamed"
_LLMPERF = (
    Definition(
        name="llmperf.ttft_ms",
        calls="ttft_s",
        of="first",
        sql=_ms(f"ifNull({_first((_CONTENT,))} + {_CONNECTING}, 0)"),
        among=_LLMPERF_AMONG,
        doc=f"{_FROM_CONNECTING} (LLMPerf opens one for every request), to the first chunk of content; 0 where an "
        "answer has none.",
    ),
    Definition(
        name="llmperf.itl_ms",
        calls="inter_token_latency_s",
        of="token",
        sql=f"ifNull(({_last((_CONTENT,))} + {_CONNECTING}) / 1e6 / "
        f"arrayCount(k -> k IN {_listed(_WITH_CHOICES)}, chunk_kind), 0)",
        among=_LLMPERF_AMONG,
        doc="(last chunk of content - start) / number of chunks, the TTFT included, role-only and finishing chunks "
        "counted; not the usage chunk, which LLMPerf does not ask for. 0 where an answer has no content.",
    ),
    Definition(
        name="llmperf.e2e_ms",
        calls="end_to_end_latency_s",
        of="end",
        sql=_connected_ms(_DONE),
        among=_LLMPERF_AMONG,
        doc=f"{_FROM_CONNECTING}, to the end of the answer.",
    ),
)

_LOADGEN_START = "ifNull(due_ns, started_ns)"
_MLPERF_LOADGEN = (
    Definition(
        name="mlperf_loadgen.ttft_ms",
        calls="First token latency",
        of="first",
        sql=_ms(f"sent_ns + first_token_ns - {_LOADGEN_START}"),
        among=_STREAMED,
        doc="From the instant the request was due (closed load: was begun) to the first token as the system under test "
        "reports it; here that is the first token chunk.",
    ),
    Definition(
        name="mlperf_loadgen.tpot_ms",
        calls="Time per output token",
        of="token",
        sql=_per_token("first_token_ns", _DONE, "toInt64(output_tokens)"),
        among=_STREAMED,
        doc="(latency - first token latency) / (n - 1), n as the system under test reports it; here the run's own "
        "count.",
    ),
    Definition(
        name="mlperf_loadgen.e2e_ms",
        calls="Latency",
        of="end",
        sql=_ms(f"done_ns - {_LOADGEN_START}"),
        among=OK,
        doc="From the instant the request was due (closed load: was begun) to the end of the answer.",
    ),
)

_NOT_STORED = "CAST(NULL, 'Nullable(Float64)')"
_ARTIFICIAL_ANALYSIS = (
    Definition(
        name="artificial_analysis.ttft_ms",
        calls="Time to First Token",
        of="first",
        sql=_ms("first_token_ns"),
        among=_STREAMED,
        doc="From the request to the first token; reasoning counts.",
    ),
    Definition(
        name="artificial_analysis.script_ttft_ms",
        calls="TTFT of its old benchmark script",
        of="first",
        sql=_ms(_first(_ANY)),
        among=_STREAMED,
        doc="From the request to the first chunk of any kind.",
    ),
    Definition(
        name="artificial_analysis.output_speed",
        calls="Output Speed",
        of="token",
        sql=_NOT_STORED,
        among=_STREAMED,
        unit="tokens/s",
        doc="(n - k) / (last - first token chunk) in tokens of OpenAI's o200k_base, whatever the model. Null: the rows "
        "hold the model's own tokens and not the text; output_speed is the same quotient in those.",
    ),
)

DEFINITIONS = {
    definition.name: definition
    for definition in (
        *_AIPERF,
        *_GUIDELLM,
        *_GENAI_BENCH,
        *_INFERENCE_PERF,
        *_VLLM,
        *_EVALSCOPE,
        *_MLCOMMONS,
        *_LLMPERF,
        *_MLPERF_LOADGEN,
        *_ARTIFICIAL_ANALYSIS,
    )
}
"""By name, in the order of TOOLS."""


def of_tool(name: str) -> list[Definition]:
    """The definitions of one tool, in its order."""
    return [definition for definition in DEFINITIONS.values() if definition.tool == name]


def versions_of(name: str) -> list[Tool]:
    """The tool of that name and the later versions that mean something else; none where there is no such tool."""
    return [tool for tool in TOOLS.values() if name in (tool.name, tool.after)]


# The query

_JUST_BELOW = 1e-12
"""quantileExact takes index floor(p n). Of a p that is smaller by this, that is ceil(p n) - 1 for any n in reach."""


def figures(definitions: Sequence[Definition], where: str, levels: Sequence[float], by: Sequence[str] = BY) -> str:
    """A query of one tool's figures for each group of `by`, over the rows of `requests` that meet `where`.

    Columns, for each definition its name with `_` for the dot, and then: `_n`, the number of values; `_mean`; `_q`, the
    values at `levels` as the tool reads them off. Where n is 0, the others say nothing.
    """
    values = [f"{sql} AS {alias}" for d in definitions for alias, sql in _values(d).items()]
    columns = [f"{sql} AS {alias}" for d in definitions for alias, sql in _aggregates(d, levels).items()]
    keys = ", ".join(by)
    inner = f"SELECT {', '.join([*by, *values])} FROM requests WHERE {where}"
    return f"SELECT {', '.join([*by, *columns])} FROM ({inner}) GROUP BY {keys} ORDER BY {keys}"


def column(definition: Definition) -> str:
    """What a definition's columns begin with."""
    return definition.name.replace(".", "_")


def _values(definition: Definition) -> dict[str, str]:
    """The columns of one row that a definition's figures are made of."""
    name = column(definition)
    if definition.kind == "pooled":
        return {f"{name}_v": f"if({definition.among}, {definition.sql}, [])"}
    values = {f"{name}_v": f"if({definition.among}, {definition.sql}, NULL)"}
    if definition.kind == "weighted":
        values[f"{name}_w"] = f"toUInt64({definition.weight})"
    return values


def _aggregates(definition: Definition, levels: Sequence[float]) -> dict[str, str]:
    name = column(definition)
    v, w = f"{name}_v", f"{name}_w"
    method = TOOLS[definition.tool].method
    if definition.kind == "weighted":
        return {
            f"{name}_n": f"countIf({v} IS NOT NULL AND {w} > 0)",
            f"{name}_mean": f"sum({v} * {w}) / sumIf({w}, {v} IS NOT NULL)",  # avgWeighted cuts off decimals
            f"{name}_q": f"quantilesExactWeighted({_of(levels)})({v}, {w})",
        }
    array = "Array" if definition.kind == "pooled" else ""
    return {
        f"{name}_n": f"sum(length({v}))" if array else f"count({v})",
        f"{name}_mean": f"avg{array}({v})",
        f"{name}_q": quantiles(method, array, v, levels),
    }


def quantiles(method: Method, array: str, v: str, levels: Sequence[float]) -> str:
    match method:
        case "linear":
            return f"quantilesExactInclusive{array}({_of(levels)})({v})"
        case "nearest":
            return f"quantilesExact{array}({_of([max(level - _JUST_BELOW, 0) for level in levels])})({v})"
        case "floor":
            return f"quantilesExact{array}({_of(levels)})({v})"
        case "lower":
            values = f"arraySort(groupArray{array}({v}))"
            return f"arrayMap(p -> {values}[toInt64(floor(p * (length({values}) - 1))) + 1], [{_of(levels)}])"


def _of(levels: Sequence[float]) -> str:
    return ", ".join(map(repr, levels))


# The page


def catalogue() -> str:
    """The second half of docs/metrics.md."""
    out = [
        "# What others mean by the same words",
        "",
        "The same stored run, by the definitions of other tools: `loadtest report RUN --as vllm` prints what that tool",
        "would have printed, and report.html has them side by side. They are read from the tools' sources; how well",
        "they agree with the tools themselves is measured in [definitions.md](definitions.md). No SLO is judged by",
        "them.",
        "",
        "| tool | version | percentiles | why its figures differ |",
        "|---|---|---|---|",
    ]
    out += [f"| [{t.title}](#{t.name}) | {t.version} | {METHODS[t.method]} | {t.differs} |" for t in TOOLS.values()]
    for tool in TOOLS.values():
        out += ["", f"## {tool.name}", "", f"{tool.title} {tool.version}, read in {tool.source}.", ""]
        out += [f"Prints {', '.join(tool.stats)}. Percentiles are {METHODS[tool.method]}."]
        for d in of_tool(tool.name):
            out += ["", f"### {d.name}", "", f"“{d.calls}”, {d.unit}. {d.doc}", "", "```sql", d.sql]
            out += [f"-- weighted by {d.weight}"] if d.weight else []
            out += [f"-- of the rows {d.among}", "```"]
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    print(f"{metrics.catalogue()}\n{catalogue()}", end="")
