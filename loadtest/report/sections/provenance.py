"""Who measured what, from where and under which key; and what follows from none of it. For whoever doubts the report.

Nothing is said here that was not measured or that the plan does not say: what is not known is told as not known.
"""

from collections.abc import Iterator

from loadtest.dialects.http import sends_prompts
from loadtest.prompts import Dataset
from loadtest.report.markup import Html, h
from loadtest.report.model import Made, Report, StageFigures
from loadtest.report.sections.opening import when
from loadtest.report.words import NOT_KNOWN, count, listing, plural

SHOWN = 4
COUNTED = {
    "usage": "the endpoint",
    "usage_matched": "the endpoint",
    "tokenizer": "the plan's tokenizer",
    "unknown": "nobody",
}


def provenance(report: Report) -> Html:
    summary = report.summary
    return h(
        "section",
        h("h2", "Who measured what, and what does it not say?"),
        h(
            "div",
            _facts("Measured", list(_measured(report))),
            *[
                _facts(f"At {name}", list(_of_target(report, name)))
                for name in summary.targets
                if not summary.locustfile
            ],
            class_="columns",
        ),
        h(
            "div",
            h("h3", "What these figures do not say"),
            h("ul", [h("li", sentence) for sentence in limits(report)]),
            class_="limits",
        ),
        id="provenance",
    )


def _facts(title: str, facts: list[tuple[str, str]]) -> Html:
    return h("div", h("h3", title), h("dl", [(h("dt", name), h("dd", value)) for name, value in facts], class_="facts"))


def _measured(report: Report) -> Iterator[tuple[str, str]]:
    made = report.summary.provenance
    yield "By", made.measured_by or "not said: `measured_by` of the plan names nobody"
    yield "When", when(report.summary)
    yield "From", _from(made, report)
    if made.version:
        yield "With", f"loadtest {made.version}, Python {made.python}, {made.system}"
    if made.plan_sha256:
        yield "Plan's SHA-256", made.plan_sha256
    if made.prompts_sha256:
        yield "Dataset's SHA-256", made.prompts_sha256


def _from(made: Made, report: Report) -> str:
    host = made.host or report.environment.get("on host", NOT_KNOWN)
    vantages = sorted({each.vantage for each in report.summary.vantages if each.vantage})
    parts = [f"host {host}"]
    parts += [f"workers on {listing(made.nodes, SHOWN)}"] if made.nodes else []
    parts += [f"vantage points {listing(vantages, SHOWN)}"] if vantages else []
    return ", ".join(parts)


def _of_target(report: Report, name: str) -> Iterator[tuple[str, str]]:
    made, stages = report.summary.provenance, list(report.summary.targets[name].stages.values())
    planned = next((target for target in (report.plan.targets if report.plan else ()) if target.name == name), None)
    if planned:
        yield "Asked", " ".join(filter(None, (planned.url, f"for {planned.model}" if planned.model else "")))
    yield "Answers came from", _peers(stages)
    if models := _kept(stages, "models"):
        yield "Answers named the model", models
    yield "Key", _key(made, name, planned is not None and planned.key is None)
    yield "Announced", made.announced.get(name) or "not said: `announced` of the target is empty"
    if words := sorted({COUNTED[word] for stage in stages for word in stage.tokens_counted_by if word in COUNTED}):
        yield "Tokens counted by", listing(words)


def _peers(stages: list[StageFigures]) -> str:
    """Behind a proxy the address of the endpoint itself is not seen."""
    addresses = _kept(stages, "addresses") or NOT_KNOWN
    if proxies := _kept(stages, "proxies"):
        return f"{addresses}, by way of the proxy {proxies}, behind which the endpoint's own address is not seen"
    return addresses


def _kept(stages: list[StageFigures], field: str) -> str:
    found = list(dict.fromkeys(value for stage in stages for value in getattr(stage, field)))
    return listing(found, SHOWN)


def _key(made: Made, name: str, keyless: bool) -> str:
    if name in made.keys:
        return f"fingerprint {made.keys[name]}" if made.keys[name].startswith("sha256:") else made.keys[name]
    return "none: requests brought no key" if keyless else NOT_KNOWN


def limits(report: Report) -> Iterator[str]:
    """Of this run, in sentences."""
    summary = report.summary
    if not summary.validity.valid:
        yield "Whether any target is good or bad: the run is INVALID, and its figures are kept for diagnosis."
    yield (f"It is one run, {when(summary)}: other hours, days, regions and loads may give other figures.")
    yield (
        "A latency contains the network between the machines named here and the endpoint: it is what they saw, and not what "
        "the endpoint's operator sees inside."
    )
    yield from _of_prompts(report)
    silent = [name for name, told in summary.provenance.announced.items() if not told]
    if silent and not summary.locustfile:
        yield (
            f"The plan does not say that the test was announced to {listing(silent, SHOWN)}: what was measured may be a "
            "limit on rates or a protection against floods, and not the service that was agreed upon."
        )
    recorded = "names and fingerprints" if summary.provenance.keys else "names"
    yield f"Whether key, model and region are those of a contract cannot be measured: {recorded} are recorded."
    if any("usage" in word for stage in _stages(report) for word in stage.tokens_counted_by):
        yield "Numbers of tokens are the endpoint's own where they were counted by it; nobody checked them."
    if unknown := sum(stage.unknown_tokens for stage in _stages(report)):
        yield f"Of {plural(unknown, 'answer')} nobody knows the number of tokens; sums and rates of tokens leave them out."
    if summary.interrupted:
        yield "The run was interrupted: what the plan asked for beyond that was not measured."
    if not summary.slos:
        yield "No limit was set beforehand, so no figure here is good or bad."
    few = min((stage.requests for stage in _stages(report) if stage.requests), default=0)
    if 0 < few < 1000:
        slowest = few - few * 99 // 100
        yield (
            f"A p99 of few requests is one of the slowest: of {count(few)} in one stage, {count(slowest)} at most took that "
            "long or longer."
        )


def _of_prompts(report: Report) -> Iterator[str]:
    if report.plan is None:
        return
    if not any(map(sends_prompts, report.plan.targets)):
        yield "Whether answers were right was not looked at, beyond their status."
    elif isinstance(report.plan.prompts, Dataset):
        yield "The prompts are a dataset's: other ones may be answered otherwise. Whether answers were right was not looked at."
    else:
        yield (
            "The prompts are random English words: a cache, a speculative decoder or a filter may treat real ones otherwise. "
            "Whether answers were right was not looked at."
        )


def _stages(report: Report) -> list[StageFigures]:
    return [stage for target in report.summary.targets.values() for stage in target.stages.values()]
