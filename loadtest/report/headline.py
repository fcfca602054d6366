"""A run in one sentence, and its account in two: what terminal and report open with."""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from loadtest.metrics import METRICS
from loadtest.report.model import Integrity, SloRow, Summary, Validity
from loadtest.report.words import count, listing, metric_title, plural, quantity, settled, unit_word

State = Literal["met", "breached", "undecided", "invalid", "none"]
NAMED_TARGETS = 3
"""More targets than this are counted in the sentence, not named."""


class Headline(Struct, frozen=True):
    state: State
    sentence: str


def headline(summary: Summary) -> Headline:
    state, sentence = _judged(summary)
    told = "Interrupted before its end. " if summary.interrupted else ""
    return Headline(state, f"{told}{sentence}")


def _judged(summary: Summary) -> tuple[State, str]:
    silent = _nothing_succeeded(summary)
    if not summary.validity.valid:
        return "invalid", "INVALID: this run cannot judge its targets." + (f" {silent}." if silent else "")
    if nothing_measured(summary):
        state: State = "undecided" if summary.slos else "none"
        return state, "Nothing was measured: no request was sent in a measured stage."
    if not summary.slos:
        return "none", f"{_counts(summary, silent)}; no objective was set."
    states = {name: state_of(rows) for name in summary.targets if (rows := objectives_of(summary, name))}
    sentences = [f"{silent}." if silent else "", _sentence(summary, states) if states else "", _never_seen(summary)]
    return state_of(summary.slos), " ".join(filter(None, sentences))


def nothing_measured(summary: Summary) -> bool:
    """As where a run was stopped before its first request. That nothing limited it would say nothing."""
    return not any(target.requests for target in summary.targets.values())


def failed_targets(summary: Summary) -> dict[str, int]:
    """Targets at which nothing succeeded, and how many requests were tried there."""
    return {name: t.requests for name, t in summary.targets.items() if t.requests and not t.ok}


def _nothing_succeeded(summary: Summary) -> str:
    """`None of 116 requests to a succeeded`; empty where each target has a success."""
    failed = failed_targets(summary)
    if len(failed) > 1:
        return f"No request to {listing(list(failed), NAMED_TARGETS + 1)} succeeded"
    return next((f"None of {plural(n, 'request')} to {name} succeeded" for name, n in failed.items()), "")


def _never_seen(summary: Summary) -> str:
    """Of a locustfile's objectives: which of them name a request that there was none of."""
    names = list(dict.fromkeys(row.target for row in summary.slos if row.target not in summary.targets))
    return f"No request had the name {listing(names, NAMED_TARGETS)}." if names else ""


def _counts(summary: Summary, silent: str) -> str:
    if silent and len(failed_targets(summary)) == len(summary.targets):
        return silent
    requests = sum(t.requests for t in summary.targets.values())
    told = f"{plural(requests, 'request')} measured at {plural(len(summary.targets), 'target')}"
    return f"{told}. {silent}" if silent else told


def objectives_of(summary: Summary, target: str) -> list[SloRow]:
    return [row for row in summary.slos if row.target == target]


def state_of(rows: Sequence[SloRow]) -> State:
    outcomes = {row.outcome for row in rows}
    return "breached" if "breached" in outcomes else "undecided" if "undecided" in outcomes else "met"


def _sentence(summary: Summary, states: dict[str, State]) -> str:
    if set(states.values()) == {"met"} and len(states) > 1:
        who = "Both targets" if len(states) == 2 else f"All {len(states)} targets"
        return f"{who} met every objective."
    if len(states) > NAMED_TARGETS:
        return _counted(list(states.values()))
    parts = [f"{name} {standing(objectives_of(summary, name))}" for name in states]
    return "; ".join(parts) + "."


def _counted(states: list[State]) -> str:
    words = {
        "met": "met every objective",
        "breached": "breached an objective",
        "undecided": "left an objective undecided",
    }
    parts = [f"{states.count(state)} {words[state]}" for state in ("met", "breached", "undecided") if state in states]
    return f"Of {len(states)} targets {listing(parts)}."


def standing(rows: Sequence[SloRow]) -> str:
    """What one target did, after its name: `breached 2 of 4 objectives`."""
    n = len(rows)
    breached = sum(row.outcome == "breached" for row in rows)
    undecided = sum(row.outcome == "undecided" for row in rows)
    whole = {1: "its objective", 2: "both objectives"}.get(n, f"all {n} objectives")
    part = "its objective" if n == 1 else f"{breached or undecided} of {n} objectives"
    if not breached and not undecided:
        return f"met {whole}"
    if not breached:
        return f"left {whole if undecided == n else part} undecided"
    told = f"breached {whole if breached == n else part}"
    return f"{told} and left {undecided} undecided" if undecided else told


def account_lines(integrity: Integrity) -> tuple[str, str]:
    """The integrity account as two sums."""
    scheduled = f"{count(integrity.scheduled)} scheduled = {count(integrity.sent)} sent"
    scheduled += f" + {count(integrity.missed)} missed + {count(integrity.unknown)} unknown"
    sent = f"{count(integrity.sent)} sent = {count(integrity.stored)} stored + {count(integrity.lost)} lost"
    return scheduled, sent


def warm_up_line(summary: Summary) -> str:
    """Why the account has more than the targets' figures; empty where it has not."""
    n = summary.integrity.stored - sum(target.requests for target in summary.targets.values())
    return f"{count(n)} of the stored are warm-up: kept, and left out of the figures" if n > 0 else ""


def reasons(validity: Validity) -> list[tuple[str, str]]:
    """Why a run is INVALID: pairs of what was found and what to do, without the rule's name."""
    pairs = (settled(reason).partition(": ")[2].partition("; ") for reason in validity.reasons)
    return [(found, advice) for found, _, advice in pairs]


def objective(row: SloRow) -> str:
    """What was asked: `Time to first token p99 ≤ 2,000 ms`."""
    name = metric_title(row.metric) + (f" {row.stat}" if row.stat else "")
    return f"{name} {limit(row)}"


def limit(row: SloRow) -> str:
    """As the plan says it, not rounded: `≤ 2,000 ms`."""
    metric = METRICS[row.metric]
    figure = f"{100 * row.limit:g}%" if metric.unit == "1" else f"{row.limit:,g} {unit_word(metric.unit)}"
    return f"{'≤' if metric.better == 'lower' else '≥'} {figure}"


def measured(row: SloRow, value: float | None) -> str:
    return quantity(value, METRICS[row.metric].unit)
