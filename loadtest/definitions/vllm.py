"""What vLLM's own benchmark means."""

from loadtest.definitions._parts import (
    FROM_CONNECTING,
    STREAMED,
    Definition,
    Tool,
    connected_ms,
    per_token,
    successes_and,
)

TOOLS = (
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
)


def _vllm(prefix: str, chunk: str, among: str, ends_at: str) -> tuple[Definition, ...]:
    first, last = f"first_{chunk}_ns", f"last_{chunk}_ns"
    return (
        Definition(
            name=f"{prefix}.ttft_ms",
            calls="TTFT",
            of="first",
            sql=connected_ms(first),
            among=among,
            doc=f"{FROM_CONNECTING}, to the first chunk {ends_at}.",
        ),
        Definition(
            name=f"{prefix}.tpot_ms",
            calls="TPOT",
            of="token",
            sql=per_token(first, last, "n"),
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
            sql=connected_ms(last),
            among=among,
            doc=f"{FROM_CONNECTING}, to the last chunk {ends_at}. Printed where --percentile-metrics asks for it.",
        ),
    )


DEFINITIONS = (
    *_vllm(
        "vllm",
        "choice",
        f"{successes_and('empty')} AND streamed",
        "with `choices`, be it role-only, empty or the finish reason",
    ),
    *_vllm(
        "vllm_033",
        "output",
        STREAMED,
        "of content, reasoning or tool call",
    ),
)
