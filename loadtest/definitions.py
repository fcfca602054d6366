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
    "linear": "interpolated linearly, as numpy does",
    "nearest": "by nearest rank, ceil(p n)",
    "lower": "at index floor(p (n - 1)), rounded down",
    "floor": "at index floor(p n), as here",
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


# What the definitions are made of

_EMPTY, _REASONING, _CONTENT, _TOOL_CALL, _MEDIA, _USAGE = map(int, ChunkKind)


def _where(kinds: Sequence[int]) -> str:
    return f"k IN ({', '.join(map(str, kinds))})"


def _first(*kinds: int) -> str:
    return f"arrayFirstOrNull((t, k) -> {_where(kinds)}, chunk_offset_ns, chunk_kind)"


def _last(*kinds: int) -> str:
    return f"arrayLastOrNull((t, k) -> {_where(kinds)}, chunk_offset_ns, chunk_kind)"


def _offsets(*kinds: int) -> str:
    return f"arrayFilter((t, k) -> {_where(kinds)}, chunk_offset_ns, chunk_kind)"


def _counts(*kinds: int) -> str:
    """Tokens of each chunk of these kinds, where they are known."""
    counted = f"arrayFilter((c, k) -> {_where(kinds)}, arrayResize(chunk_tokens, length(chunk_kind)), chunk_kind)"
    one_each = f"arrayMap(k -> 1, arrayFilter(k -> {_where(kinds)}, chunk_kind))"
    return f"if(token_source = 'usage_matched', {one_each}, {counted})"


def _gaps_ms(offsets: str) -> str:
    return f"arrayMap(t -> t / 1e6, arrayPopFront(arrayDifference({offsets})))"


_OUTPUT = (_REASONING, _CONTENT, _TOOL_CALL)
_CHOICE = (_EMPTY, *_OUTPUT, _MEDIA)

PIECES = {
    "connecting_ns": "ifNull(dns_dur_ns, 0) + ifNull(connect_dur_ns, 0) + ifNull(tls_dur_ns, 0)",
    "answered_ns": "done_ns - sent_ns",
    "n": "toInt64(output_tokens)",
    "first_chunk_ns": _first(*_CHOICE, _USAGE),
    "last_chunk_ns": _last(*_CHOICE, _USAGE),
    "first_choice_ns": _first(*_CHOICE),
    "last_choice_ns": _last(*_CHOICE),
    "choice_gaps_ms": _gaps_ms(_offsets(*_CHOICE)),
    "choices": f"arrayCount(k -> {_where(_CHOICE)}, chunk_kind)",
    "first_output_ns": _first(*_OUTPUT),
    "last_output_ns": _last(*_OUTPUT),
    "output_gaps_ms": _gaps_ms(_offsets(*_OUTPUT)),
    "tokens_after_first": f"arraySum(arrayPopFront({_counts(*_OUTPUT, _MEDIA)}))",
    "tokens_or_chunks": "if(token_source IN ('usage', 'usage_matched'), n, "
    f"nullIf(toInt64(arrayCount(k -> {_where(_OUTPUT)}, chunk_kind)), 0))",
    "first_answer_ns": _first(_CONTENT, _TOOL_CALL),
    "first_text_ns": _first(_REASONING, _CONTENT),
    "last_content_ns": _last(_CONTENT),
    "content_times_ns": "if(tokens_known, arrayFlatten(arrayMap((t, c) -> arrayWithConstant(c, t), "
    f"{_offsets(_CONTENT)}, {_counts(_CONTENT)})), {_offsets(_CONTENT)})",
    "content_tokens": "multiIf(tokens_known, toNullable(toInt64(length(content_times_ns))), "
    f"hasAny(chunk_kind, [{_TOOL_CALL}, {_MEDIA}]) OR has(chunk_kind, {_REASONING}) AND reasoning_tokens IS NULL, "
    "NULL, n - ifNull(reasoning_tokens, 0))",
    "until_usage_ns": f"ifNull({_last(_USAGE)}, answered_ns)",
    "due_or_begun_ns": "ifNull(due_ns, started_ns)",
}
"""Names that the definitions use, beside the columns of `requests`, and their SQL. Offsets are from `sent_ns`.

A *choice* is a chunk that carries no usage alone, *output* reasoning, content or a tool call, an *answer* content or a
tool call, *text* reasoning or content. `n` is the run's own count of output tokens.
"""

COLUMNS = (
    "fault",
    "error",
    "streamed",
    "token_source",
    "tokens_known",
    "due_ns",
    "started_ns",
    "sent_ns",
    "done_ns",
    "streamed_tokens",
    "output_tokens",
    "first_token_ns",
    "first_content_ns",
    "first_chunk_tokens",
)
"""The columns of `requests` that definitions use. What no definition asked for uses is not read."""

_STREAMED = f"{OK} AND streamed"
_FROM_CONNECTING = "From before DNS, connect and TLS, where the request opened a connection"


def _among(*words: str) -> str:
    """Successes, and failures of these words, which the tool does not notice."""
    return f"(fault = '' OR error IN ({', '.join(map(repr, words))}))"


def _ms(ns: str) -> str:
    return f"({ns}) / 1e6"


def _connected_ms(ns: str) -> str:
    """Of an offset from `sent_ns`, with what connecting took before."""
    return _ms(f"{ns} + connecting_ns")


def _per_token(first: str, last: str, n: str) -> str:
    """The average over the n - 1 tokens after the first one."""
    return f"if({n} > 1, ({last} - {first}) / 1e6 / ({n} - 1), NULL)"


_AIPERF = (
    Definition(
        name="aiperf.ttft_ms",
        calls="Time to First Token",
        of="first",
        sql=_connected_ms("first_output_ns"),
        among=_STREAMED,
        doc=f"{_FROM_CONNECTING}, to the first chunk of reasoning, content or tool call.",
    ),
    Definition(
        name="aiperf.ttfo_ms",
        calls="Time to First Output Token",
        of="first",
        sql=_connected_ms("first_answer_ns"),
        among=_STREAMED,
        doc="As aiperf.ttft_ms, to the first chunk of content or tool call.",
    ),
    Definition(
        name="aiperf.itl_ms",
        calls="Inter Token Latency",
        of="token",
        sql=_per_token("first_output_ns", "last_output_ns", "streamed_tokens"),
        among=_STREAMED,
        doc="(request latency - TTFT) / (n - 1), one value a request. n: AIPerf counts the text with its own tokenizer "
        "unless --use-server-token-count is set; here it is the tokens that were streamed, by the run's own count.",
    ),
    Definition(
        name="aiperf.itl_per_chunk_usage_ms",
        calls="Inter Token Latency, with --per-chunk-usage",
        of="token",
        sql="if(tokens_known AND n > 1, (last_output_ns - first_output_ns) / 1e6 / "
        "if(first_chunk_tokens BETWEEN 1 AND n - 1, n - first_chunk_tokens, n - 1), NULL)",
        among=_STREAMED,
        doc="As aiperf.itl_ms, divided by n - k, where k is the tokens in the first chunk and n the server's count. "
        "Null where the tokens per chunk are not known.",
    ),
    Definition(
        name="aiperf.icl_ms",
        calls="Inter Chunk Latency",
        of="token",
        kind="pooled",
        sql="output_gaps_ms",
        among=_STREAMED,
        doc="The gaps between chunks of reasoning, content or tool call, pooled over requests.",
    ),
    Definition(
        name="aiperf.e2e_ms",
        calls="Request Latency",
        of="end",
        sql=_connected_ms("if(streamed, last_output_ns, answered_ns)"),
        among=OK,
        doc=f"{_FROM_CONNECTING}, to the last chunk of reasoning, content or tool call: finish reason, usage and "
        "terminal marker do not count.",
    ),
)

_GUIDELLM = (
    Definition(
        name="guidellm.ttft_ms",
        calls="TTFT",
        of="first",
        sql=_ms("first_output_ns"),
        among=_STREAMED,
        doc="From the first byte of the request, the connection being open, to the first chunk of reasoning, content "
        "or tool call.",
    ),
    Definition(
        name="guidellm.ttfot_ms",
        calls="time_to_first_output_token_ms",
        of="first",
        sql=_ms("first_answer_ns"),
        among=_STREAMED,
        doc="As guidellm.ttft_ms, to the first chunk of content or tool call.",
    ),
    Definition(
        name="guidellm.itl_ms",
        calls="ITL",
        of="token",
        kind="weighted",
        sql=_per_token("first_output_ns", "last_output_ns", "tokens_or_chunks"),
        weight="greatest(ifNull(tokens_or_chunks, 0) - 1, 0)",
        among=_STREAMED,
        doc="(last - first chunk) / (n - 1), one average a request, which counts n - 1 times in mean and percentiles. "
        "n: the server's usage, else the number of chunks.",
    ),
    Definition(
        name="guidellm.tpot_ms",
        calls="TPOT",
        of="token",
        kind="weighted",
        sql="if(tokens_or_chunks > 0, last_output_ns / 1e6 / tokens_or_chunks, NULL)",
        weight="ifNull(tokens_or_chunks, 0)",
        among=_STREAMED,
        doc="(last chunk - start) / n, the TTFT included; counts n times in mean and percentiles.",
    ),
    Definition(
        name="guidellm.e2e_ms",
        calls="Request latency",
        of="end",
        sql=_ms("answered_ns"),
        among=OK,
        doc="From the first byte of the request to the terminal marker.",
    ),
)

_GENAI_BENCH = (
    Definition(
        name="genai_bench.ttft_ms",
        calls="ttft",
        of="first",
        sql=_connected_ms("first_text_ns"),
        among=_STREAMED,
        doc=f"{_FROM_CONNECTING} (genai-bench opens one for every request), to the first chunk of reasoning or "
        "content. Tool calls do not count.",
    ),
    Definition(
        name="genai_bench.tpot_ms",
        calls="tpot",
        of="token",
        sql=f"if(until_usage_ns - first_text_ns >= 1e6, {_per_token('first_text_ns', 'until_usage_ns', 'n')}, NULL)",
        among=_STREAMED,
        doc="(e2e_latency - ttft) / (n - 1). n: the server's usage, else its tokenizer's count. An answer whose tokens "
        "all came within a millisecond is left out.",
    ),
    Definition(
        name="genai_bench.e2e_ms",
        calls="e2e_latency",
        of="end",
        sql=f"if(first_text_ns IS NULL, NULL, {_connected_ms('until_usage_ns')})",
        among=_STREAMED,
        doc=f"{_FROM_CONNECTING}, to the usage chunk, where it stops reading, else to the end of the answer.",
    ),
)

_SAW_ALL = _among("error_event", "empty")
_INFERENCE_PERF = (
    Definition(
        name="inference_perf.ttft_ms",
        calls="time_to_first_token",
        of="first",
        sql=f"if(length(content_times_ns) > 1, {_connected_ms('content_times_ns[1]')}, NULL)",
        among=f"{_SAW_ALL} AND streamed",
        doc=f"{_FROM_CONNECTING}, to the first chunk of content; reasoning does not count. Null for an answer "
        "of one token. An error inside a 200 stream goes unnoticed and counts as a success.",
    ),
    Definition(
        name="inference_perf.tpot_ms",
        calls="time_per_output_token",
        of="token",
        sql="if(length(content_times_ns) > 1 AND content_tokens > 1, "
        "(content_times_ns[-1] - content_times_ns[1]) / 1e6 / (content_tokens - 1), NULL)",
        among=f"{_SAW_ALL} AND streamed",
        doc="(last - first chunk of content) / (n - 1). n: its tokenizer's count of the content; here the run's own "
        "count without reasoning, null where reasoning or tool calls cannot be told apart.",
    ),
    Definition(
        name="inference_perf.itl_ms",
        calls="inter_token_latency",
        of="token",
        kind="pooled",
        sql=f"if(tokens_known, {_gaps_ms('content_times_ns')}, [])",
        among=f"{_SAW_ALL} AND streamed",
        doc="The gaps between tokens of content, pooled: all tokens of a chunk arrive with it, 0 ms apart, and the "
        "first of them takes the whole gap. None where tokens per chunk are not known.",
    ),
    Definition(
        name="inference_perf.ntpot_ms",
        calls="normalized_time_per_output_token",
        of="token",
        sql="if(content_tokens > 0, (answered_ns + connecting_ns) / 1e6 / content_tokens, "
        "if(content_tokens = 0, 0, NULL))",
        among=_SAW_ALL,
        doc="Request latency / n, the TTFT included; 0 for an answer without a token.",
    ),
    Definition(
        name="inference_perf.e2e_ms",
        calls="request_latency",
        of="end",
        sql=_connected_ms("answered_ns"),
        among=_SAW_ALL,
        doc=f"{_FROM_CONNECTING}, to the end of the answer.",
    ),
)


def _vllm(prefix: str, chunk: str, among: str, ends_at: str) -> tuple[Definition, ...]:
    first, last = f"first_{chunk}_ns", f"last_{chunk}_ns"
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
            sql=_per_token(first, last, "n"),
            among=among,
            doc="(E2EL - TTFT) / (n - 1). n: the server's usage, else its tokenizer's count. Null where n <= 1.",
        ),
        Definition(
            name=f"{prefix}.itl_ms",
            calls="ITL",
            of="token",
            kind="pooled",
            sql=f"{chunk}_gaps_ms",
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
        "choice",
        f"{_among('empty')} AND streamed",
        "with `choices`, be it role-only, empty or the finish reason",
    ),
    *_vllm(
        "vllm_033",
        "output",
        _STREAMED,
        "of content, reasoning or tool call",
    ),
)


def _evalscope(prefix: str, chunk: str, words: Sequence[str], ends_at: str) -> tuple[Definition, ...]:
    among = _among(*words)
    streamed = f"{among} AND streamed"
    first = f"ifNull(first_{chunk}_ns + connecting_ns, 0)"
    end = "ifNull(last_chunk_ns + connecting_ns, 0)"
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
            sql=_per_token(first, end, "n"),
            among=streamed,
            doc="(latency - TTFT) / (n - 1), and so until the usage chunk. n: the server's usage, else its tokenizer's "
            "count. Null where n <= 1.",
        ),
        Definition(
            name=f"{prefix}.itl_ms",
            calls="ITL",
            of="token",
            kind="pooled",
            sql=f"{chunk}_gaps_ms",
            among=streamed,
            doc=f"The gaps between chunks {ends_at}, pooled, whatever number of tokens a chunk has.",
        ),
        Definition(
            name=f"{prefix}.e2e_ms",
            calls="Latency",
            of="end",
            sql=_ms(f"if(streamed, {end}, answered_ns + connecting_ns)"),
            among=among,
            doc=f"{_FROM_CONNECTING}, to the last chunk of any kind, usage included; the terminal marker does not "
            "count.",
        ),
    )


_EVALSCOPE = (
    *_evalscope("evalscope", "choice", ("error_event", "empty"), "with `choices`, be it role-only or empty"),
    *_evalscope("evalscope_112", "output", ("empty",), "of reasoning, content or tool call"),
)

_SETTLED = f"({OK} OR {FAILED})"
_MLCOMMONS = (
    Definition(
        name="mlcommons.ttft_ms",
        calls="TTFT",
        of="first",
        sql=_connected_ms("first_output_ns"),
        among=f"{_SETTLED} AND streamed",
        doc=f"{_FROM_CONNECTING}, to the first chunk of reasoning, content or tool call. Answers that failed later "
        "count as well.",
    ),
    Definition(
        name="mlcommons.tpot_ms",
        calls="TPOT",
        of="token",
        sql="if(tokens_known AND tokens_after_first > 0, "
        "(answered_ns - first_output_ns) / 1e6 / tokens_after_first, NULL)",
        among=_STREAMED,
        doc="(end of the answer - first chunk) / tokens after the first chunk, by the model's tokenizer. Null where "
        "tokens per chunk are not known.",
    ),
    Definition(
        name="mlcommons.e2e_ms",
        calls="Latency",
        of="end",
        sql=_ms("done_ns - ifNull(sent_ns - connecting_ns, started_ns)"),
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
        sql=_ms("ifNull(first_content_ns + connecting_ns, 0)"),
        among=_LLMPERF_AMONG,
        doc=f"{_FROM_CONNECTING} (LLMPerf opens one for every request), to the first chunk of content; 0 where an "
        "answer has none.",
    ),
    Definition(
        name="llmperf.itl_ms",
        calls="inter_token_latency_s",
        of="token",
        sql="ifNull((last_content_ns + connecting_ns) / 1e6 / choices, 0)",
        among=_LLMPERF_AMONG,
        doc="(last chunk of content - start) / number of chunks, the TTFT included, role-only and finishing chunks "
        "counted; not the usage chunk, which LLMPerf does not ask for. 0 where an answer has no content.",
    ),
    Definition(
        name="llmperf.e2e_ms",
        calls="end_to_end_latency_s",
        of="end",
        sql=_connected_ms("answered_ns"),
        among=_LLMPERF_AMONG,
        doc=f"{_FROM_CONNECTING}, to the end of the answer.",
    ),
)

_MLPERF_LOADGEN = (
    Definition(
        name="mlperf_loadgen.ttft_ms",
        calls="First token latency",
        of="first",
        sql=_ms("sent_ns + first_token_ns - due_or_begun_ns"),
        among=_STREAMED,
        doc="From the instant the request was due (closed load: was begun) to the first token as the system under test "
        "reports it; here that is the first token chunk.",
    ),
    Definition(
        name="mlperf_loadgen.tpot_ms",
        calls="Time per output token",
        of="token",
        sql=_per_token("first_token_ns", "answered_ns", "n"),
        among=_STREAMED,
        doc="(latency - first token latency) / (n - 1), n as the system under test reports it; here the run's own "
        "count.",
    ),
    Definition(
        name="mlperf_loadgen.e2e_ms",
        calls="Latency",
        of="end",
        sql=_ms("done_ns - due_or_begun_ns"),
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
        sql=_ms("first_chunk_ns"),
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
    """A query of figures for each group of `by`, over the rows of `requests` that meet `where`.

    Columns, for each definition its name with `_` for the dot, and then: `_n`, the number of values; `_mean`; `_q`, the
    values at `levels` as the tool reads them off. Where n is 0, the others say nothing.
    """
    values = [f"{sql} AS {alias}" for d in definitions for alias, sql in _values(d).items()]
    columns = [f"{sql} AS {alias}" for d in definitions for alias, sql in _aggregates(d, levels).items()]
    keys = ", ".join(by)
    pieces = [f"{sql} AS {name}" for name, sql in PIECES.items()]
    rows = f"SELECT {', '.join([*by, *COLUMNS, *pieces])} FROM requests WHERE {where}"
    each = f"SELECT {', '.join([*by, *values])} FROM ({rows})"
    return f"SELECT {', '.join([*by, *columns])} FROM ({each}) GROUP BY {keys} ORDER BY {keys}"


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
    out += ["", "In the SQL below these names stand for", ""]
    out += [f"- `{name}`: `{sql}`" for name, sql in PIECES.items()]
    out += ["", "in ns from `sent_ns`, or counts. They are of chunks that"]
    out += ["carry: output, reasoning, content or a tool call; an answer, content or a tool call; text, reasoning or"]
    out += ["content; a choice, anything but usage alone."]
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
