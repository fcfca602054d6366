"""What genai-bench means."""

from loadtest.definitions._parts import FROM_CONNECTING, STREAMED, Definition, Tool, connected_ms, per_token

TOOLS = (
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
)

DEFINITIONS = (
    Definition(
        name="genai_bench.ttft_ms",
        calls="ttft",
        of="first",
        sql=connected_ms("first_text_ns"),
        among=STREAMED,
        doc=f"{FROM_CONNECTING} (genai-bench opens one for every request), to the first chunk of reasoning or "
        "content. Tool calls do not count.",
    ),
    Definition(
        name="genai_bench.tpot_ms",
        calls="tpot",
        of="token",
        sql=f"if(until_usage_ns - first_text_ns >= 1e6, {per_token('first_text_ns', 'until_usage_ns', 'n')}, NULL)",
        among=STREAMED,
        doc="(e2e_latency - ttft) / (n - 1). n: the server's usage, else its tokenizer's count. An answer whose tokens "
        "all came within a millisecond is left out.",
    ),
    Definition(
        name="genai_bench.e2e_ms",
        calls="e2e_latency",
        of="end",
        sql=f"if(first_text_ns IS NULL, NULL, {connected_ms('until_usage_ns')})",
        among=STREAMED,
        doc=f"{FROM_CONNECTING}, to the usage chunk, where it stops reading, else to the end of the answer.",
    ),
)
