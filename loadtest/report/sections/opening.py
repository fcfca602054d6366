"""The verdict as a sentence, where each target stands, and whether the run counts."""

from loadtest.report.headline import headline, nothing_measured, objectives_of, reasons, standing, state_of
from loadtest.report.marks import icon, named, outcome
from loadtest.report.markup import Html, h
from loadtest.report.model import Report, Summary
from loadtest.report.words import count, percent, sig3

INTERRUPTED = "Here is what was measured until the interruption."


STAMPED = {
    "kernel": "answers were stamped by the kernel",
    "user": "answers were stamped in user space",
    "mixed": "some answers were stamped by the kernel, others in user space",
}


def opening(report: Report) -> Html:
    summary = report.summary
    verdict = headline(summary)
    return h(
        "header",
        h("p", f"{summary.plan} · {when(summary)} · run {summary.run}", class_="eyebrow"),
        h("h1", icon(verdict.state), verdict.sentence),
        h("p", INTERRUPTED, class_="lead") if summary.interrupted and not nothing_measured(summary) else None,
        _standings(summary),
        _validity(summary),
        class_="opening",
        id="verdict",
    )


def when(summary: Summary) -> str:
    """`2026-11-03 14:02:11 to 14:05:40 UTC`; the date again where it differs."""
    start, end = (_clock(at) for at in (summary.started_at, summary.ended_at))
    if start[:10] == end[:10]:
        end = end[11:]
    return f"{start} to {end} UTC"


def _clock(instant: str) -> str:
    return instant[:19].replace("T", " ")


def _standings(summary: Summary) -> Html | None:
    items = []
    for index, (name, figures) in enumerate(summary.targets.items()):
        rows = objectives_of(summary, name)
        judged = outcome(state_of(rows), standing(rows)) if rows and summary.validity.valid else None
        share = f", {percent(figures.ok / figures.requests)} succeeded" if figures.requests else ""
        detail = f"{count(figures.requests)} requests{share}"
        items.append(h("li", h("span", named(index, name), class_="name"), judged, h("span", detail, class_="muted")))
    return h("ul", items, class_="standing") if items else None


def _validity(summary: Summary) -> Html | None:
    if summary.validity.valid and nothing_measured(summary):
        return None
    if not summary.validity.valid:
        found = [
            h("li", h("strong", sentence(reason)), h("p", sentence(advice)) if advice else None)
            for reason, advice in reasons(summary.validity)
        ]
        return h(
            "div",
            outcome("invalid"),
            "The figures below are kept for diagnosis; they say nothing about the targets. What to change:",
            h("ul", found),
            class_="validity invalid-box",
        )
    return h("div", outcome("met", "VALID"), _clean(summary), class_="validity")


def _clean(summary: Summary) -> str:
    own = summary.generator
    lag = f"99% of requests left within {sig3(own.schedule_lag_ms.p99)} ms of being due" if _has_lag(summary) else ""
    stamps = STAMPED.get(own.clock or "", "")
    parts = [part for part in (lag, stamps, exactness(summary) if stamps else "") if part]
    own_limits = [each.rule for each in summary.validity.rules if each.limit != each.default]
    held_to = f" The plan set its own limits for this: {', '.join(own_limits)}." if own_limits else ""
    return (
        f"By every rule under Method, the load generator did not limit the run. {sentence('; '.join(parts))}{held_to}"
    )


def exactness(summary: Summary) -> str:
    """How far the stamps may be off: of how many requests, and beside which limit; empty where that is not known."""
    found = summary.generator.uncertainty_ms
    if found.p99 is None:
        return ""
    if found.p99 <= 1 or not found.over_1_ms:
        return f"in 99% of the requests no stamp may be off by more than {sig3(found.p99)} ms"
    limit = next((rule.limit for rule in summary.validity.rules if rule.rule == "uncertainty"), None)
    beside = f" (more than {sig3(limit)} ms would make the run INVALID)" if limit is not None else ""
    return (
        f"in {percent(found.over_1_ms)} of the requests one read found several chunks, the first of which may have come more"
        f" than 1 ms before its stamp; in 1% of the requests {sig3(found.p99)} ms before or more{beside}"
    )


def _has_lag(summary: Summary) -> bool:
    return summary.generator.schedule_lag_ms.p99 is not None


def sentence(words: str) -> str:
    """With a capital and a full stop."""
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "!", "?")) or not words else ".")
