"""Is the run VALID; is an SLO met, breached or undecided; what to do about it. Pure: summary.py has the SQL.

An SLO is decided by the 95% interval of its figure: met if the whole interval is within the limit, breached if the
whole interval is beyond it, else undecided, with the number of further requests that would decide if what was seen goes
on. Failed requests count as +infinity, so a percentile of latency is also a statement about the share of requests that
were too slow or failed. An interval's end that the sample cannot bound is None and never decides.

A run is INVALID when the generator or the account, not the endpoint, shaped the figures: RULES. Being interrupted is
not a reason by itself.
"""

from collections.abc import Callable, Mapping
from math import ceil, inf
from types import MappingProxyType
from typing import Literal

from msgspec import Struct, field

from loadtest.stats import (
    TAIL,
    Stat,
    binomial_cdf,
    parse_stat,
    share_interval,
    total_interval,
)
from loadtest.types import Metric, Slo, Verdict

__all__ = ["RULES", "Account", "Facts", "Generator", "Integrity", "Stat", "Verdict", "judge", "parse_stat", "validity"]

FURTHER_REQUESTS_CAP = 1_000_000


# The account


class Integrity(Struct):
    """scheduled = sent + missed + unknown; sent = stored + lost. Warm-up included: an account leaves nothing out."""

    scheduled: int = 0
    sent: int = 0
    missed: int = 0
    unknown: int = 0
    stored: int = 0
    lost: int = 0
    missed_by: dict[str, int] = field(default_factory=dict)  # reason (cap, worker_lost) -> requests


class Generator(Struct):
    """What the generator did, as far as the driver alone knows it."""

    workers: int = 0
    workers_lost: int = 0  # gone for good, or with their node
    workers_restarted: int = 0
    cpu_s: float = 0
    host_cpu_s: float = 0
    start_spread_ms: float = 0
    dropped_frames: int = 0
    clock_step_ms: float = 0  # largest disagreement of real-time and raw monotonic clock within a second


class Account(Struct):
    """What the driver knows of a run at its end: stored as JSON with the run, read by summary.py."""

    integrity: Integrity = field(default_factory=Integrity)
    generator: Generator = field(default_factory=Generator)
    capped: dict[str, dict[str, int]] = field(default_factory=dict)  # stage -> target -> missed for `max_in_flight`
    interrupted: bool = False


class Facts(Struct, kw_only=True):
    """What validity is judged on: the account, and what the stored rows say."""

    account: Account
    ended: int = 0  # rows of requests
    client_faults: int = 0
    generator_faults: int = 0  # without the cancelled
    cancelled: int = 0
    schedule_lag_p99_ms: float | None = None  # None: closed load only


# Validity


class Rule(Struct, frozen=True):
    """INVALID when `measured` is above `limit`. `says` and `advice` may use {value} and {limit}."""

    name: str
    limit: float
    measured: Callable[[Facts], float]
    says: str
    advice: str
    is_share: bool = False


_RULES = (
    Rule(
        "worker_lost",
        0,
        lambda f: f.account.generator.workers_lost + f.account.generator.workers_restarted,
        "{value:g} worker process(es) were lost or had to be restarted",
        "look into the worker's log beside the frame file; give the workers more memory or fewer streams each",
    ),
    Rule(
        "spans_lost",
        0,
        lambda f: f.account.integrity.lost,
        "{value:g} request(s) were sent and are not in the store",
        "the frame files keep what the workers delivered; check the store's log, its disk and its address",
    ),
    Rule(
        "unknown",
        0,
        lambda f: f.account.integrity.unknown,
        "of {value:g} request(s) it is unknown whether they were sent",
        "a worker ended without its last report; repeat the run",
    ),
    Rule(
        "missed",
        0,
        lambda f: f.account.integrity.missed - f.account.integrity.missed_by.get("cap", 0),
        "{value:g} request(s) were due and not sent, for no cap of the plan",
        "repeat the run; with more workers if these were too busy",
    ),
    Rule(
        "faults",
        0.01,
        lambda f: _share(f.client_faults + f.generator_faults, f.ended),
        "{value:.2%} of the requests failed by the plan's or the generator's own fault (limit {limit:.0%})",
        "errors http_4xx and redirect: mend the target's url, key, model or body; error generator: raise the limit of "
        "open files or use more workers",
        is_share=True,
    ),
    Rule(
        "cancelled",
        0.01,
        lambda f: 0 if f.account.interrupted else _share(f.cancelled, f.ended),
        "{value:.2%} of the requests were cancelled at the end of the drain (limit {limit:.0%})",
        "raise the stage's drain_s above the longest answer, or lower the target's timeouts",
        is_share=True,
    ),
    Rule(
        "schedule_lag",
        25,
        lambda f: f.schedule_lag_p99_ms or 0,
        "the p99 of schedule_lag_ms is {value:.3g} ms (limit {limit:g} ms): the generator sent too late",
        "use more workers, a lower rate or a machine that does nothing else",
    ),
    Rule(
        "start_spread",
        100,
        lambda f: f.account.generator.start_spread_ms,
        "the workers started {value:.3g} ms apart (limit {limit:g} ms)",
        "use fewer workers a core, or nodes that are not busy",
    ),
    Rule(
        "dropped_frames",
        0,
        lambda f: f.account.generator.dropped_frames,
        "{value:g} result(s) did not fit between a worker and its host",
        "the machine or its disk was too slow to take them; use fewer streams a worker or a faster disk",
    ),
    Rule(
        "clock",
        5,
        lambda f: f.account.generator.clock_step_ms,
        "a worker's clock was stepped or slewed by {value:.3g} ms within a second (limit {limit:g} ms)",
        "let the time service settle (chronyc tracking, timedatectl) and repeat the run",
    ),
)
RULES: Mapping[str, Rule] = {rule.name: rule for rule in _RULES}
"""Every reason a run can be INVALID for, with its default limit and the remedy."""


def validity(facts: Facts, limits: Mapping[str, float] = MappingProxyType({})) -> tuple[bool, list[str]]:
    """(valid, reasons); each reason is `rule: what was found; what to do`. `limits`: the plan's, by rule."""
    reasons = []
    for rule in RULES.values():
        value, limit = rule.measured(facts), limits.get(rule.name, rule.limit)
        if value > limit:
            says = rule.says.format(value=value, limit=limit)
            reasons.append(f"{rule.name}: {says}; {rule.advice}")
    return not reasons, reasons


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


# SLOs


class Evidence(Struct, kw_only=True):
    """A figure with its interval, and how many further requests would decide a limit if what was seen goes on.

    `requests` is what the figure rests on. `further(limit)` is None where no number up to the cap would do.
    """

    value: float | None
    low: float | None
    high: float | None
    requests: int
    further: Callable[[float], int | None]
    note: str = ""


def judge(slo: Slo, metric: Metric, target: str, stage: str, evidence: Evidence) -> Verdict:
    """The verdict for one target and stage. A limit is a maximum, or a minimum where higher is better."""
    outcome = _outcome(metric, slo.limit, evidence)
    more = evidence.further(slo.limit) if outcome == "undecided" else None
    return Verdict(
        metric=slo.metric,
        stat=slo.stat,
        limit=slo.limit,
        target=target,
        stage=stage,
        value=evidence.value,
        low=evidence.low,
        high=evidence.high,
        outcome=outcome,
        more_requests=0 if outcome != "undecided" else more,
        advice=" ".join(filter(None, (evidence.note, _advice(metric, outcome, more, evidence)))),
    )


Outcome = Literal["met", "breached", "undecided"]


def _outcome(metric: Metric, limit: float, evidence: Evidence) -> Outcome:
    if evidence.value is None:
        return "undecided"
    low = -inf if evidence.low is None else evidence.low
    high = inf if evidence.high is None else evidence.high
    if metric.better == "higher":
        return "met" if low >= limit else "breached" if high < limit else "undecided"
    return "met" if high <= limit else "breached" if low > limit else "undecided"


def _advice(metric: Metric, outcome: str, more: int | None, evidence: Evidence) -> str:
    if outcome == "breached" and evidence.value == inf:
        return "Too many requests failed for the figure to be finite: see the errors."
    if outcome != "undecided":
        return ""
    if evidence.value is None:
        return f"{metric.name} has no value here."
    if more is None:
        return f"More than {FURTHER_REQUESTS_CAP:,} further requests would be needed: the figure is too near the limit."
    return f"About {more:,} further requests would decide, if they go as these did."


def no_evidence(note: str) -> Evidence:
    return Evidence(value=None, low=None, high=None, requests=0, further=lambda _: None, note=note)


def percentile_evidence(
    metric: Metric, level: float, value: float, low: float | None, high: float | None, worse: int, n: int
) -> Evidence:
    """`low` and `high`: the values at `stats.quantile_ranks`. `worse` of the `n` values are beyond the limit.

    p99 <= limit says that at most 1% are above it: a binomial statement, and what further requests are counted by.
    """
    allowed = 1 - level if metric.better == "lower" else level
    return Evidence(value=value, low=low, high=high, requests=n, further=lambda _: further_for_share(worse, n, allowed))


def pooled_evidence(
    value: float,
    low: float | None,
    high: float | None,
    requests: int,
    share_worse: float,
    share_half_width: float,
    allowed: float,
) -> Evidence:
    """For a percentile of pooled values: `share_half_width` is that of the share beyond it, requests resampled."""
    distance = abs(allowed - share_worse)
    return Evidence(
        value=value,
        low=low,
        high=high,
        requests=requests,
        further=lambda _: further_by_square_root(requests, share_half_width, distance),
    )


def mean_evidence(value: float, low: float | None, high: float | None, n: int) -> Evidence:
    half = 0.0 if low is None or high is None else (high - low) / 2
    return Evidence(
        value=value,
        low=low,
        high=high,
        requests=n,
        further=lambda limit: further_by_square_root(n, half, abs(limit - value)) if n > 1 else 1,
    )


def share_evidence(hits: int, n: int) -> Evidence:
    low, high = share_interval(hits, n)
    return Evidence(
        value=hits / n, low=low, high=high, requests=n, further=lambda limit: further_for_share(hits, n, limit)
    )


def rate_evidence(total: float, squares: float, window_s: float, requests: int) -> Evidence:
    """`requests` is how many were sent in the window: further ones are counted at that rate."""
    low, high = total_interval(total, squares)

    def further(limit: float) -> int | None:
        def decides(more: int) -> bool:
            longer = 1 + more / requests
            low, high = total_interval(total * longer, squares * longer)
            return low >= limit * window_s * longer or high < limit * window_s * longer

        return _fewest(decides) if requests else None

    return Evidence(
        value=total / window_s, low=low / window_s, high=high / window_s, requests=requests, further=further
    )


def further_for_share(hits: int, n: int, allowed: float) -> int | None:
    """Requests beyond `n` until a share that stays at hits / n is shown to be within or beyond `allowed`."""

    def decides(more: int) -> bool:
        m = n + more
        upper = -(-hits * m // n) if n else 0
        lower = hits * m // n if n else 0
        return binomial_cdf(upper, m, allowed) <= TAIL or 1 - binomial_cdf(lower - 1, m, allowed) <= TAIL

    return _fewest(decides)


def further_by_square_root(n: int, half_width: float, distance: float) -> int | None:
    """Requests beyond `n` until an interval that narrows with the square root of their number leaves the limit out."""
    if distance == 0:
        return None
    more = max(1, ceil(n * (half_width / distance) ** 2) - n)
    return more if more <= FURTHER_REQUESTS_CAP else None


def _fewest(decides: Callable[[int], bool]) -> int | None:
    """The fewest further requests that decide, by doubling and halving; None beyond the cap."""
    high = 1
    while not decides(high):
        if high >= FURTHER_REQUESTS_CAP:
            return None
        high = min(high * 2, FURTHER_REQUESTS_CAP)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high
