"""By how much do targets differ: the difference in each round, and its interval over rounds.

An interval within one stage says what that stage would have given had its requests been independent, which they are
not: on two identical queues at 80% utilisation it tells them apart in every second run. Rounds begin on a drained
endpoint, each target gets the same prompts at the same times in each, and the differences of a round are one
observation: their mean has Student's t interval over rounds (docs/statistics.md has its coverage). Failed requests
count as infinitely slow, as everywhere where targets are held against something.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from math import isfinite, sqrt
from typing import Any, Literal

from msgspec import Struct

from loadtest import metrics
from loadtest.metrics import BY_ROUND, METRICS
from loadtest.report.evidence import MEASURED
from loadtest.stats import mean_interval, parse_stat
from loadtest.types import Slo

FEWEST_ROUNDS = 5
COMPARED: tuple[tuple[str, str | None], ...] = (
    ("ttft_ms", "p50"),
    ("ttft_ms", "p99"),
    ("tpot_ms", "p50"),
    ("e2e_ms", "p50"),
    ("e2e_ms", "p99"),
    ("requests_per_s", None),
    ("output_tokens_per_s", None),
    ("error_rate", None),
)
"""Figures that are compared anyway; the plan's objectives add theirs."""

Row = dict[str, Any]
Group = tuple[str, str]
Key = tuple[str, str | None]  # metric, stat


class Difference(Struct, kw_only=True):
    """`first` minus `second` of `targets`, over the rounds in which both have the figure."""

    metric: str
    stat: str | None
    targets: tuple[str, str]
    rounds: int
    means: tuple[float | None, float | None]
    difference: float | None
    low: float | None
    high: float | None
    outcome: Literal["lower", "higher", "undecided"]  # of the first, at 95%
    note: str = ""


class Comparison(Struct, kw_only=True):
    """One measured stage. `note` says why nothing is compared, where nothing is."""

    stage: str
    rounds: int
    note: str
    differences: list[Difference]


def compare(
    ask: Callable[[str], list[Row]], stages: Mapping[str, int], targets: Sequence[str], slos: Sequence[Slo]
) -> list[Comparison]:
    """`stages`: rounds that each measured one had. `ask` runs a query with the parameter `run`."""
    if len(targets) < 2:
        return []
    compared = [name for name, rounds in stages.items() if rounds >= FEWEST_ROUNDS]
    figures = by_round(ask, slos) if compared else {}
    return [
        Comparison(
            stage=stage,
            rounds=rounds,
            note="" if stage in compared else _too_few(rounds),
            differences=list(_differences(figures, stage, targets, _keys(slos))) if stage in compared else [],
        )
        for stage, rounds in stages.items()
    ]


def _too_few(rounds: int) -> str:
    had = "one round" if rounds == 1 else f"{rounds} rounds"
    return (
        f"The stage had {had}: whether targets differ is not said from fewer than {FEWEST_ROUNDS}, since requests of one "
        "round are not independent of each other. Write rounds: 10."
    )


def _keys(slos: Sequence[Slo]) -> list[Key]:
    return list(dict.fromkeys([*COMPARED, *((slo.metric, slo.stat) for slo in slos)]))


def by_round(ask: Callable[[str], list[Row]], slos: Sequence[Slo]) -> dict[tuple[str, str, int], Row]:
    """The figures of each stage, target and round; pooled values one metric at a time, as sorting them takes memory."""
    keys = _keys(slos)
    pooled = [name for name, _ in keys if METRICS[name].kind == "pooled"]
    others = list(dict.fromkeys(name for name, _ in keys if name not in pooled))
    stats = list(dict.fromkeys(stat for _, stat in keys if stat))
    out: dict[tuple[str, str, int], Row] = {}
    for names in (others, *([name] for name in dict.fromkeys(pooled))):
        sql = metrics.figures(names, MEASURED, by=("stage", "target", BY_ROUND), stats=stats, failures=True)
        for row in ask(sql):
            out.setdefault((row["stage"], row["target"], row["round"]), {}).update(row)
    return out


def _differences(
    figures: Mapping[tuple[str, str, int], Row], stage: str, targets: Sequence[str], keys: Sequence[Key]
) -> Iterator[Difference]:
    for metric, stat in keys:
        column = metric if stat is None else f"{metric}_{parse_stat(stat).label}"
        series = {
            target: {rnd: row.get(column) for (of, name, rnd), row in figures.items() if (of, name) == (stage, target)}
            for target in targets
        }
        for first, second in combinations(targets, 2):
            rounds = sorted(series[first].keys() & series[second].keys())
            pairs = [(series[first][rnd], series[second][rnd]) for rnd in rounds]
            known = [(a, b) for a, b in pairs if a is not None and b is not None]
            if known:
                yield difference(metric, stat, (first, second), known)


def difference(
    metric: str, stat: str | None, targets: tuple[str, str], pairs: Sequence[tuple[float, float]]
) -> Difference:
    """Of the pairs of one round each. Where a round's figure is infinite, there is no mean to speak of."""
    finite = [(a, b) for a, b in pairs if isfinite(a) and isfinite(b)]
    out = Difference(
        metric=metric,
        stat=stat,
        targets=targets,
        rounds=len(pairs),
        means=(_mean([a for a, _ in pairs]), _mean([b for _, b in pairs])),
        difference=None,
        low=None,
        high=None,
        outcome="undecided",
    )
    if len(finite) < len(pairs):
        out.note = f"In {len(pairs) - len(finite)} of {len(pairs)} rounds too many requests failed for a finite figure."
        return out
    if len(pairs) < FEWEST_ROUNDS:
        out.note = f"Only {len(pairs)} rounds have this figure."
        return out
    gaps = [a - b for a, b in pairs]
    n, mean = len(gaps), sum(gaps) / len(gaps)
    out.difference = mean
    out.low, out.high = mean_interval(mean, sqrt(sum((gap - mean) ** 2 for gap in gaps) / (n - 1)), n)
    if out.low is not None and out.high is not None:
        out.outcome = "lower" if out.high < 0 else "higher" if out.low > 0 else "undecided"
    return out


def _mean(values: Sequence[float]) -> float | None:
    finite = [value for value in values if isfinite(value)]
    return sum(values) / len(values) if len(finite) == len(values) else None
