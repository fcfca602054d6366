"""What each vantage point saw: figures of a stage and target by the region of the worker, where the plan's fleet has regions.

Each region has its equal share of one schedule, so they differ by the way to the endpoint and by nothing that was sent.
"""

from collections.abc import Callable
from typing import Any

from loadtest import metrics
from loadtest.report.evidence import MEASURED

FIGURES = ("error_rate", "connect_ms", "ttft_ms", "e2e_ms")
LATENCIES = FIGURES[1:]
STATS = ("p50", "p95", "p99")
COUNTS = f"""
    SELECT stage, target, vantage, count() AS requests, countIf({metrics.OK}) AS ok FROM requests
    WHERE {MEASURED} AND vantage != '' GROUP BY stage, target, vantage ORDER BY stage, target, vantage"""


def vantages(ask: Callable[[str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One entry a measured stage, target and vantage, of the successes; empty where the plan has no regions."""
    counts = ask(COUNTS)
    if not counts:
        return []
    by = ("stage", "target", "vantage")
    query = metrics.figures(FIGURES, f"{MEASURED} AND vantage != ''", by=by, stats=STATS)
    found = {tuple(row[key] for key in by): row for row in ask(query)}
    return [_entry(row, found[tuple(row[key] for key in by)]) for row in counts]


def _entry(counts: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    latencies = {name: {stat: row[f"{name}_{stat}"] for stat in STATS} | {"n": row[f"{name}_n"]} for name in LATENCIES}
    return {**counts, "error_rate": row["error_rate"], **latencies}
