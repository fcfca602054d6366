"""What MLPerf LoadGen means."""

from loadtest.definitions._parts import STREAMED, Definition, Tool, ms, per_token
from loadtest.metrics import OK

TOOLS = (
    Tool(
        name="mlperf_loadgen",
        title="MLPerf LoadGen",
        version="6.0.17",
        source="github.com/mlcommons/inference: loadgen/{loadgen,logging,results,issue_query_controller}.cc",
        method="floor",
        stats=("mean", "p50", "p90", "p95", "p97", "p99", "p99.9"),
        differs="Starts when the request was due (server scenario); TPOT lasts until the end of the answer.",
    ),
)

DEFINITIONS = (
    Definition(
        name="mlperf_loadgen.ttft_ms",
        calls="First token latency",
        of="first",
        sql=ms("sent_ns + first_token_ns - due_or_begun_ns"),
        among=STREAMED,
        doc="From the instant the request was due (closed load: was begun) to the first token as the system under test "
        "reports it; here that is the first token chunk.",
    ),
    Definition(
        name="mlperf_loadgen.tpot_ms",
        calls="Time per output token",
        of="token",
        sql=per_token("first_token_ns", "answered_ns", "n"),
        among=STREAMED,
        doc="(latency - first token latency) / (n - 1), n as the system under test reports it; here the run's own "
        "count.",
    ),
    Definition(
        name="mlperf_loadgen.e2e_ms",
        calls="Latency",
        of="end",
        sql=ms("done_ns - due_or_begun_ns"),
        among=OK,
        doc="From the instant the request was due (closed load: was begun) to the end of the answer.",
    ),
)
