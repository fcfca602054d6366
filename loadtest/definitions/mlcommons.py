"""What MLCommons endpoints means."""

from loadtest.definitions._parts import FROM_CONNECTING, STREAMED, Definition, Tool, connected_ms, ms
from loadtest.metrics import FAILED, OK

TOOLS = (
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
)

_SETTLED = f"({OK} OR {FAILED})"
DEFINITIONS = (
    Definition(
        name="mlcommons.ttft_ms",
        calls="TTFT",
        of="first",
        sql=connected_ms("first_output_ns"),
        among=f"{_SETTLED} AND streamed",
        doc=f"{FROM_CONNECTING}, to the first chunk of reasoning, content or tool call. Answers that failed later "
        "count as well.",
    ),
    Definition(
        name="mlcommons.tpot_ms",
        calls="TPOT",
        of="token",
        sql="if(tokens_known AND tokens_after_first > 0, "
        "(answered_ns - first_output_ns) / 1e6 / tokens_after_first, NULL)",
        among=STREAMED,
        doc="(end of the answer - first chunk) / tokens after the first chunk, by the model's tokenizer. Null where "
        "tokens per chunk are not known.",
    ),
    Definition(
        name="mlcommons.e2e_ms",
        calls="Latency",
        of="end",
        sql=ms("done_ns - ifNull(sent_ns - connecting_ns, started_ns)"),
        among=_SETTLED,
        doc=f"{FROM_CONNECTING}, to the end of the answer or the instant of its failure: a 429 after 5 ms is a "
        "latency of 5 ms.",
    ),
)
