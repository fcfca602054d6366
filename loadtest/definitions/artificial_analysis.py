"""What Artificial Analysis means."""

from loadtest.definitions._parts import STREAMED, Definition, Tool, ms

TOOLS = (
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

_NOT_STORED = "CAST(NULL, 'Nullable(Float64)')"
DEFINITIONS = (
    Definition(
        name="artificial_analysis.ttft_ms",
        calls="Time to First Token",
        of="first",
        sql=ms("first_token_ns"),
        among=STREAMED,
        doc="From the request to the first token; reasoning counts.",
    ),
    Definition(
        name="artificial_analysis.script_ttft_ms",
        calls="TTFT of its old benchmark script",
        of="first",
        sql=ms("first_chunk_ns"),
        among=STREAMED,
        doc="From the request to the first chunk of any kind.",
    ),
    Definition(
        name="artificial_analysis.output_speed",
        calls="Output Speed",
        of="token",
        sql=_NOT_STORED,
        among=STREAMED,
        unit="tokens/s",
        doc="(n - k) / (last - first token chunk) in tokens of OpenAI's o200k_base, whatever the model. Null: the rows "
        "hold the model's own tokens and not the text; output_speed is the same quotient in those.",
    ),
)
