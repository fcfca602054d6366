"""The bench: its pure parts, and one small run of it against its own server."""

import json
import sys
from pathlib import Path

import pytest

from bench import chart, page
from bench.figures import errors, quantile
from bench.ours import Load, Matched, match, run
from bench.parts import Figure
from bench.servers import Pace, truth_server
from loadtest.store import Store
from loadtest.types import ChunkKind

ROLE, CONTENT = int(ChunkKind.EMPTY), int(ChunkKind.CONTENT)


def test_a_quantile_is_the_element_at_floor_of_p_n() -> None:
    assert [quantile([3, 1, 2, 4], p) for p in (0, 0.5, 0.74, 0.99, 1)] == [1, 3, 3, 4, 4]


def test_rows_and_records_are_matched_by_trace_whatever_their_order() -> None:
    rows = [
        {"trace_id": "a", "error": "", "chunks": [5, 10, 30], "kinds": [ROLE, CONTENT, CONTENT]},
        {"trace_id": "b", "error": "", "chunks": [11, 21], "kinds": [CONTENT, CONTENT]},
        {"trace_id": "failed", "error": "reset", "chunks": [1, 2], "kinds": [CONTENT, CONTENT]},
        {"trace_id": "short of a token", "error": "", "chunks": [1], "kinds": [CONTENT]},
        {"trace_id": "nobody's", "error": "", "chunks": [1, 2], "kinds": [CONTENT, CONTENT]},
    ]
    record = {"arrived_ns": 990, "read_ns": 1000, "chunk_ns": [1010, 1030]}
    requests = [{"trace": trace, **record} for trace in ("short of a token", "failed", "b", "a")]
    assert match(rows, requests) == [
        Matched([10, 30], [10, 30], [20, 40]),
        Matched([11, 21], [10, 30], [20, 40]),
    ]


def test_errors_of_matched_requests_do_not_hide_in_equal_quantiles() -> None:
    """Two requests, each wrong by 10 ms, whose times are the same as a set."""
    matched = [
        Matched([40_000_000, 60_000_000], [50_000_000, 80_000_000], [50_000_000, 80_000_000]),
        Matched([50_000_000, 80_000_000], [40_000_000, 60_000_000], [40_000_000, 60_000_000]),
    ]
    found = errors(matched)
    assert found.ttft_p50 == found.true_ttft_p50 == 50
    assert found.ttft_matched_p50 == found.ttft_at_kernel_p99 == 10
    assert found.itl_p50 == found.true_itl_p50 == 30
    assert found.itl_matched_p99 == 10


@pytest.mark.parametrize(
    ("figure", "met"),
    [
        (Figure("x", 1.8, asked=1.8), True),
        (Figure("x", 1.81, asked=1.8), False),
        (Figure("x", 1.9, asked=1.9, must_be="at least"), True),
        (Figure("x", 1.89, asked=1.9, must_be="at least"), False),
        (Figure("x", 1, asked=0), False),
        (Figure("x", float("nan"), asked=2), False),
        (Figure("x", 7), None),
    ],
)
def test_a_target_is_met_or_missed(figure: Figure, met: bool | None) -> None:
    assert figure.met is met


def test_the_page_is_that_of_the_results() -> None:
    bench = Path(chart.__file__).parent
    results = json.loads((bench / "results.json").read_text())
    assert (bench / "RESULTS.md").read_text() == page.markdown(results)
    assert (bench / "results.svg").read_text() == chart.svg(results)


def test_a_small_run_is_matched_request_by_request(store: Store, tmp_path: Path) -> None:
    load = Load(streams=5, tokens=8, rounds=2, ramp_up_s=0)
    with truth_server(Path(sys.executable), Pace(ttft_ms=30, itl_ms=5)) as server:
        found = run("smoke", server, load, store, tmp_path / "run")
    assert (found.requests, found.chunks, found.stored, found.errors) == (10, 80, 10, {})
    assert found.most_in_flight == 5
    for request in found.matched:
        assert len(request.ours_ns) == 8
        assert request.ours_ns == sorted(request.ours_ns)
        assert request.arrived_ns[0] >= request.read_ns[0] >= 30_000_000
    assert len(found.matched) == 10
    [worker] = found.workers
    assert 0 < worker.cpu_s < worker.start_cpu_s + worker.cpu_s
    assert worker.rss_bytes >= worker.start_rss_bytes > 0
