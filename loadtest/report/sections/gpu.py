"""What the GPUs and engines did meanwhile, stage by stage, and how those that told it answered."""

from collections.abc import Callable, Iterator

from loadtest.report.marks import named
from loadtest.report.markup import Html, h
from loadtest.report.model import Report
from loadtest.report.telemetry import Devices, Meanwhile, Source
from loadtest.report.words import count, listing, percent, quantity, seconds, sig3

NOT_PROVIDED = "not provided"
LEAD = (
    "Sampled beside the requests, from the exporters that the plan's gpu: maps to each target. Memory, power, running,"
    " waiting and batch are of all its devices together, the rest are means over them; in small the extremes. Where several"
    " devices serve a target, which of them a request met is not known: this is what surrounded the requests, not what each"
    " caused."
)
NOTHING = "Not provided: the plan names no exporter of GPUs or engines. gpu: in the plan does (docs/gpu.md)."


def gpu(report: Report) -> Html:
    title = h("h2", "What did the GPUs do meanwhile?")
    if report.summary.gpu is None:
        return h("section", title, h("div", NOTHING, class_="empty"), id="gpu")
    parts = (_table(report, GPUS), _table(report, ENGINES), _sources(report.summary.gpu.sources))
    return h("section", title, h("p", LEAD, class_="lead"), parts, id="gpu")


Columns = dict[str, Callable[[Devices], Html | str]]


def _table(report: Report, columns: Columns) -> Html:
    body = [_row(columns, *group) for group in _groups(report)]
    words = ("Target", "Stage", *columns)
    head = [h("th", word, scope="col", class_="left" if at < 2 else None) for at, word in enumerate(words)]
    return h("div", h("table", h("thead", h("tr", head)), h("tbody", body), class_="full"), class_="scroll")


def _groups(report: Report) -> Iterator[tuple[int, str, str, Devices | None]]:
    for index, (name, target) in enumerate(report.summary.targets.items()):
        for stage, figures in target.stages.items():
            yield index, name, stage, figures.gpu


def _row(columns: Columns, index: int, target: str, stage: str, found: Devices | None) -> Html:
    who = (h("th", named(index, target), scope="row", class_="left name"), h("td", stage, class_="left name"))
    if found is None:
        return h("tr", who, h("td", NOT_PROVIDED, colspan=len(columns), class_="left"))
    return h("tr", who, [h("td", cell(found)) for cell in columns.values()])


def _requests(field: str) -> Callable[[Devices], Html | str]:
    return _figure(field, sig3, extreme=lambda v: f"most {count(round(v))}")


def _figure(
    field: str, shown: Callable[[float], str], extreme: Callable[[float], str] | None = None, least: bool = False
) -> Callable[[Devices], Html | str]:
    def cell(found: Devices) -> Html | str:
        value: Meanwhile | None = getattr(found, field)
        if value is None:
            return NOT_PROVIDED
        edge = (
            f"least {shown(value.least)}" if least else extreme(value.most) if extreme else f"most {shown(value.most)}"
        )
        return h("span", shown(value.mean), h("div", edge, class_="small"))

    return cell


def _memory(found: Devices) -> Html | str:
    used, limit = found.memory_bytes, found.memory_limit_bytes
    if used is None:
        return NOT_PROVIDED
    of = f"of {sig3(limit.most / 2**30)} GiB" if limit else "most"
    return h("span", f"{sig3(used.most / 2**30)} GiB", h("div", of, class_="small"))


def _held_back(found: Devices) -> str:
    if found.throttled_s is None:
        return NOT_PROVIDED
    return listing([f"{seconds(s)} {reason}" for reason, s in sorted(found.throttled_s.items())]) or "never"


def _energy(found: Devices) -> Html | str:
    if found.energy_j is None:
        return NOT_PROVIDED
    per_token = found.energy_j_per_output_token
    return h(
        "span",
        NOT_PROVIDED if per_token is None else f"{sig3(per_token)} J",
        h("div", f"{sig3(found.energy_j / 3600)} Wh in all", class_="small"),
    )


def _number(n: int) -> str:
    return count(n) if n else NOT_PROVIDED


GPUS: Columns = {
    "GPUs": lambda found: _number(found.gpus),
    "Utilization": _figure("utilization", percent),
    "Power": _figure("power_w", lambda v: quantity(v, "W")),
    "Energy per output token": _energy,
    "Memory": _memory,
    "Temperature": _figure("temperature_c", lambda v: f"{sig3(v)} °C"),
    "Clock": _figure("clock_hz", lambda v: f"{v / 1e6:,.0f} MHz", least=True),
    "Clock held down": _held_back,
}
ENGINES: Columns = {
    "Engines": lambda found: _number(found.engines),
    "Requests running": _requests("running"),
    "Waiting": _requests("queue_length"),
    "Batch": _requests("batch_size"),
    "KV cache taken": _figure("kv_cache_utilization", percent),
}


def _sources(sources: dict[str, Source]) -> Html:
    head = ("Source", "Kind", "Of target", "Scrapes", "Failed", "Slowest", "Values", "Oldest value")
    rows = [
        h(
            "tr",
            h("th", name, scope="row", class_="left name"),
            h("td", source.kind, class_="left"),
            h("td", listing(source.targets) or "none", class_="left name"),
            h("td", count(source.scrapes)),
            h("td", _failed(source)),
            h("td", seconds(source.slowest_s)),
            h("td", count(source.values)),
            h("td", seconds(source.oldest_s)),
        )
        for name, source in sources.items()
    ]
    head_row = h("tr", [h("th", word, scope="col", class_="left" if at < 3 else None) for at, word in enumerate(head)])
    table = h("table", h("thead", head_row), h("tbody", rows), class_="full")
    return h("details", h("summary", "Where this is from, and how it answered"), h("div", table, class_="scroll"))


def _failed(source: Source) -> Html | str:
    if not source.failed:
        return "0"
    words = listing([f"{count(n)} {word}" for word, n in source.errors.items()])
    return h("span", count(source.failed), h("div", words, class_="small"))
