"""How it was measured: definitions with their SQL, the plan as run, the generator's own health, how to run it again."""

from loadtest.arrivals import Closed
from loadtest.locustfiles import options
from loadtest.prompts import Dataset
from loadtest.report.markup import Html, h, text
from loadtest.report.model import Report, Summary
from loadtest.report.sections.opening import when
from loadtest.report.sections.validity import rules
from loadtest.report.words import NOT_KNOWN, count, listing, metric_title, percent, plural, seconds, sig3
from loadtest.types import Metric, Plan

TRACES = {
    "off": "off: requests carried no trace context",
    "unsampled": "unsampled: requests carried a trace id that asks nobody to record",
    "sampled": "sampled: requests asked the endpoint to record each of them, which costs it time",
}
CLOCKS = {
    None: "no answer came, so nothing was stamped",
    "kernel": "kernel: an answer's time is when its bytes reached this machine",
    "user": "user space: an answer's time is when the generator read it, which is later under load",
    "mixed": "mixed: some answers were stamped by the kernel, others when they were read",
}


def method(report: Report) -> Html:
    return h(
        "section",
        h("h2", "How was it measured?"),
        h(
            "div",
            _group("This run", _run_facts(report)),
            _group("The load generator's own health", _health(report)),
            class_="columns",
        ),
        rules(report.summary),
        _definitions(report.metrics),
        h(
            "details",
            h("summary", "What stands for a plan" if report.summary.locustfile else "The plan as run"),
            h("pre", h("code", report.plan_yaml)),
        )
        if report.plan_yaml
        else None,
        id="method",
    )


def _group(title: str, facts: list[tuple[str, Html | str]]) -> Html:
    return h("div", h("h3", title), h("dl", [(h("dt", name), h("dd", value)) for name, value in facts], class_="facts"))


def _run_facts(report: Report) -> list[tuple[str, Html | str]]:
    summary, plan = report.summary, report.plan
    facts: list[tuple[str, Html | str]] = [
        ("Run", h("code", summary.run)),
        ("Time", when(summary)),
        ("Nonce", h("code", summary.nonce or NOT_KNOWN)),
    ]
    if plan:
        facts += [("Seed", h("code", str(plan.seed))), ("Trace flag", TRACES.get(plan.trace, plan.trace))]
        facts += [
            (f"Target {t.name}", h("code", " ".join(filter(None, (t.dialect, t.url, t.model))))) for t in plan.targets
        ]
    facts += _ways(summary)
    facts.append(("Made with", ", ".join(f"{name} {value}" for name, value in report.environment.items()) or NOT_KNOWN))
    again, words = "loadtest run plan.yaml", f" with the plan below; {_the_same(plan)}"
    if summary.locustfile:
        again, words = options.again(summary.locustfile), ", with the same file: its SHA-256 stands below"
    facts.append(("Run it again", h("span", h("code", again), words)))
    facts.append(("See the rows", h("code", f"SELECT * FROM requests WHERE run = '{summary.run}'")))
    return facts


def _the_same(plan: Plan | None) -> str:
    """What a second run has in common with this one: no more than that is promised."""
    closed = plan is not None and any(isinstance(stage.arrivals, Closed) for stage in plan.stages)
    when = "in the same order, at the same times but under closed load" if closed else "at the same times"
    own = isinstance(plan.prompts, Dataset) and plan.prompts.history == "model" if plan else False
    but = "; later turns of conversations hold what the model said, and differ" if own else ""
    return f"the same seed, nonce and files send the same requests {when}{but}"


def _ways(summary: Summary) -> list[tuple[str, Html | str]]:
    """How requests got there, where it was not the plain way."""
    facts: list[tuple[str, Html | str]] = []
    for name, target in summary.targets.items():
        proxies = list(dict.fromkeys(proxy for stage in target.stages.values() for proxy in stage.proxies))
        again = sum(stage.reconnects for stage in target.stages.values())
        words = [f"through the proxy {listing(proxies)}"] if proxies else []
        if again:
            words.append(f"{plural(again, 'request')} sent again on a fresh connection: the kept one had been closed")
        if words:
            facts.append((f"Connections to {name}", "; ".join(words)))
    return facts


def _health(report: Report) -> list[tuple[str, Html | str]]:
    own = report.summary.generator
    clock = own.clock or ("user" if report.summary.locustfile else None)  # Locust's clients know no first byte
    return [
        ("Clock", CLOCKS.get(clock, clock or NOT_KNOWN)),
        ("Schedule lag", f"p50 {_ms(own.schedule_lag_ms.p50)}, p99 {_ms(own.schedule_lag_ms.p99)}: from due to begun"),
        ("Read lag", f"p50 {_ms(own.read_lag_ms.p50)}, p99 {_ms(own.read_lag_ms.p99)}: from arrived to read"),
        (
            "Stamp uncertainty",
            f"p99 {_ms(own.uncertainty_ms.p99)}, largest {_ms(own.uncertainty_ms.max)}; more than 1 ms in"
            f" {percent(own.uncertainty_ms.over_1_ms)} of the requests, whose worst stamp counts",
        ),
        ("Workers", _workers(report)),
        (
            "CPU time",
            f"worker processes {_s(own.cpu_s)}, the processes that store their results {_s(own.host_cpu_s)},"
            f" for {count(own.chunks)} chunks",
        ),
    ]


def _workers(report: Report) -> Html:
    own = report.summary.generator
    words = f"{count(own.workers)}, started within {_ms(own.start_spread_ms)} of each other"
    words += f", {own.workers_restarted} restarted" if own.workers_restarted else ""
    words += f", {own.workers_lost} lost" if own.workers_lost else ""
    each = [
        h(
            "li",
            f"worker {w.worker}: CPU {seconds(w.cpu_s)}, memory {w.peak_rss_bytes / 2**20:,.0f} MiB at most",
            [h("div", p) for p in w.problems],
        )
        for w in report.workers
    ]
    return text(words, h("ul", each, class_="small plain") if each else None)


def _ms(value: float | None) -> str:
    return NOT_KNOWN if value is None else f"{sig3(value)} ms"


def _s(value: float | None) -> str:
    return NOT_KNOWN if value is None else seconds(value)


def _definitions(metrics: list[Metric]) -> Html | None:
    if not metrics:
        return None
    return h(
        "details",
        h("summary", "Definitions: what each metric means, and its SQL"),
        h("div", [_definition(metric) for metric in metrics], class_="definitions"),
    )


def _definition(metric: Metric) -> Html:
    unit = "share" if metric.unit == "1" else metric.unit
    return h(
        "div",
        h("h4", metric_title(metric.name), " ", h("code", metric.name), h("span", f" {unit}", class_="muted")),
        h("p", metric.doc),
        h("pre", h("code", metric.sql)),
    )
