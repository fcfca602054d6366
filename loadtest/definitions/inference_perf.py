"""What inference-perf means."""

from loadtest.definitions._parts import FROM_CONNECTING, Definition, Tool, connected_ms, gaps_ms, successes_and

TOOLS = (
    Tool(
        name="inference_perf",
        title="inference-perf",
        version="0.7.0",
        source="PyPI inference-perf: reportgen/base.py, apis/chat.py, apis/streaming_parser.py",
        method="linear",
        stats=("mean", "p0.1", "p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "p99.9"),
        differs="Starts before connecting; reasoning does not count; tokens that share a chunk are 0 ms apart.",
    ),
)

_SAW_ALL = successes_and("error_event", "empty")
DEFINITIONS = (
    Definition(
        name="inference_perf.ttft_ms",
        calls="time_to_first_token",
        of="first",
        sql=f"if(length(content_times_ns) > 1, {connected_ms('content_times_ns[1]')}, NULL)",
        among=f"{_SAW_ALL} AND streamed",
        doc=f"{FROM_CONNECTING}, to the first chunk of content; reasoning does not count. Null for an answer "
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
        sql=f"if(tokens_known, {gaps_ms('content_times_ns')}, [])",
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
        sql=connected_ms("answered_ns"),
        among=_SAW_ALL,
        doc=f"{FROM_CONNECTING}, to the end of the answer.",
    ),
)
