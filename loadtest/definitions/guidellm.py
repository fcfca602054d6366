"""What GuideLLM means."""

from loadtest.definitions._parts import STREAMED, Definition, Tool, ms, per_token
from loadtest.metrics import OK

TOOLS = (
    Tool(
        name="guidellm",
        title="GuideLLM",
        version="0.8.1",
        source="PyPI guidellm: schemas/base/request_stats.py, schemas/base/statistics.py, backends/openai/http.py",
        method="nearest",
        stats=("mean", "p50", "p95", "p99"),
        differs="ITL and TPOT are averages of requests, weighted by their tokens; its TPOT includes the TTFT.",
    ),
)

DEFINITIONS = (
    Definition(
        name="guidellm.ttft_ms",
        calls="TTFT",
        of="first",
        sql=ms("first_output_ns"),
        among=STREAMED,
        doc="From the first byte of the request, the connection being open, to the first chunk of reasoning, content "
        "or tool call.",
    ),
    Definition(
        name="guidellm.ttfot_ms",
        calls="time_to_first_output_token_ms",
        of="first",
        sql=ms("first_answer_ns"),
        among=STREAMED,
        doc="As guidellm.ttft_ms, to the first chunk of content or tool call.",
    ),
    Definition(
        name="guidellm.itl_ms",
        calls="ITL",
        of="token",
        kind="weighted",
        sql=per_token("first_output_ns", "last_output_ns", "tokens_or_chunks"),
        weight="greatest(ifNull(tokens_or_chunks, 0) - 1, 0)",
        among=STREAMED,
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
        among=STREAMED,
        doc="(last chunk - start) / n, the TTFT included; counts n times in mean and percentiles.",
    ),
    Definition(
        name="guidellm.e2e_ms",
        calls="Request latency",
        of="end",
        sql=ms("answered_ns"),
        among=OK,
        doc="From the first byte of the request to the terminal marker.",
    ),
)
