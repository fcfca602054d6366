"""What AIPerf means."""

from loadtest.definitions._parts import FROM_CONNECTING, STREAMED, Definition, Tool, connected_ms, per_token
from loadtest.metrics import OK

TOOLS = (
    Tool(
        name="aiperf",
        title="AIPerf",
        version="0.13.0",
        source="PyPI aiperf: metrics/types/*.py, metrics/metric_dicts.py, endpoints/openai_chat.py",
        method="linear",
        stats=("mean", "p50", "p90", "p99"),
        differs="Starts before connecting; ends at the last token chunk; ITL is one average a request.",
    ),
)

DEFINITIONS = (
    Definition(
        name="aiperf.ttft_ms",
        calls="Time to First Token",
        of="first",
        sql=connected_ms("first_output_ns"),
        among=STREAMED,
        doc=f"{FROM_CONNECTING}, to the first chunk of reasoning, content or tool call.",
    ),
    Definition(
        name="aiperf.ttfo_ms",
        calls="Time to First Output Token",
        of="first",
        sql=connected_ms("first_answer_ns"),
        among=STREAMED,
        doc="As aiperf.ttft_ms, to the first chunk of content or tool call.",
    ),
    Definition(
        name="aiperf.itl_ms",
        calls="Inter Token Latency",
        of="token",
        sql=per_token("first_output_ns", "last_output_ns", "streamed_tokens"),
        among=STREAMED,
        doc="(request latency - TTFT) / (n - 1), one value a request. n: AIPerf counts the text with its own tokenizer "
        "unless --use-server-token-count is set; here it is the tokens that were streamed, by the run's own count.",
    ),
    Definition(
        name="aiperf.itl_per_chunk_usage_ms",
        calls="Inter Token Latency, with --per-chunk-usage",
        of="token",
        sql="if(tokens_known AND n > 1, (last_output_ns - first_output_ns) / 1e6 / "
        "if(first_chunk_tokens BETWEEN 1 AND n - 1, n - first_chunk_tokens, n - 1), NULL)",
        among=STREAMED,
        doc="As aiperf.itl_ms, divided by n - k, where k is the tokens in the first chunk and n the server's count. "
        "Null where the tokens per chunk are not known.",
    ),
    Definition(
        name="aiperf.icl_ms",
        calls="Inter Chunk Latency",
        of="token",
        kind="pooled",
        sql="output_gaps_ms",
        among=STREAMED,
        doc="The gaps between chunks of reasoning, content or tool call, pooled over requests.",
    ),
    Definition(
        name="aiperf.e2e_ms",
        calls="Request Latency",
        of="end",
        sql=connected_ms("if(streamed, last_output_ns, answered_ns)"),
        among=OK,
        doc=f"{FROM_CONNECTING}, to the last chunk of reasoning, content or tool call: finish reason, usage and "
        "terminal marker do not count.",
    ),
)
