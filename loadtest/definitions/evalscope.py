"""What EvalScope means."""

from collections.abc import Sequence

from loadtest.definitions._parts import FROM_CONNECTING, Definition, Tool, ms, per_token, successes_and

TOOLS = (
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
)


def _evalscope(prefix: str, chunk: str, words: Sequence[str], ends_at: str) -> tuple[Definition, ...]:
    among = successes_and(*words)
    streamed = f"{among} AND streamed"
    first = f"ifNull(first_{chunk}_ns + connecting_ns, 0)"
    end = "ifNull(last_chunk_ns + connecting_ns, 0)"
    return (
        Definition(
            name=f"{prefix}.ttft_ms",
            calls="TTFT",
            of="first",
            sql=ms(first),
            among=streamed,
            doc=f"{FROM_CONNECTING}, to the first chunk {ends_at}; 0 for an answer without one.",
        ),
        Definition(
            name=f"{prefix}.tpot_ms",
            calls="TPOT",
            of="token",
            sql=per_token(first, end, "n"),
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
            sql=ms(f"if(streamed, {end}, answered_ns + connecting_ns)"),
            among=among,
            doc=f"{FROM_CONNECTING}, to the last chunk of any kind, usage included; the terminal marker does not "
            "count.",
        ),
    )


DEFINITIONS = (
    *_evalscope("evalscope", "choice", ("error_event", "empty"), "with `choices`, be it role-only or empty"),
    *_evalscope("evalscope_112", "output", ("empty",), "of reasoning, content or tool call"),
)
