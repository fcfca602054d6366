"""What LLMPerf means."""

from loadtest.definitions._parts import FROM_CONNECTING, Definition, Tool, connected_ms, ms, successes_and

TOOLS = (
    Tool(
        name="llmperf",
        title="LLMPerf",
        version="f1d6bed",
        source="github.com/ray-project/llmperf: ray_clients/openai_chat_completions_client.py, token_benchmark_ray.py",
        method="linear",
        stats=("mean", "p25", "p50", "p75", "p90", "p95", "p99"),
        differs="Starts before connecting; reasoning does not count; ITL includes the TTFT and divides by chunks.",
    ),
)

_LLMPERF_AMONG = f"{successes_and('empty')} AND streamed"
DEFINITIONS = (
    Definition(
        name="llmperf.ttft_ms",
        calls="ttft_s",
        of="first",
        sql=ms("ifNull(first_content_ns + connecting_ns, 0)"),
        among=_LLMPERF_AMONG,
        doc=f"{FROM_CONNECTING} (LLMPerf opens one for every request), to the first chunk of content; 0 where an "
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
        sql=connected_ms("answered_ns"),
        among=_LLMPERF_AMONG,
        doc=f"{FROM_CONNECTING}, to the end of the answer.",
    ),
)
