"""The targets side by side: one table a measured stage, a column a target, a row a figure.

More than `MOST_COLUMNS` targets would not fit beside each other: they are rows then, and the figures columns.
"""

from collections.abc import Callable, Iterator

from msgspec import Struct

from loadtest.report.marks import COLORS, named
from loadtest.report.markup import Html, h, text
from loadtest.report.model import PERCENTILES, AfterRetries, Report, StageFigures, Stat
from loadtest.report.words import INFINITE, NOT_KNOWN, count, percent, quantity, sig3
from loadtest.stats import share_interval
from loadtest.types import FAULT_OF, Target

LATENCIES = (
    ("ttft_ms", "Time to first token"),
    ("itl_ms", "Inter-token latency"),
    ("icl_ms", "Inter-chunk latency"),
    ("e2e_ms", "End-to-end latency"),
)


MOST_COLUMNS = 3
FIGURES = ("Throughput", "Tokens", "After retries", "Cost")
"""The groups that stand in a table of their own where targets are rows."""


class Column(Struct, frozen=True):
    index: int
    name: str
    figures: StageFigures
    target: Target | None


class Cell(Struct, frozen=True):
    """A figure over the successes and, where it differs in kind, the same with failures as +infinity."""

    shown: Html | str
    beside: str | None = None
    bar: float | None = None  # the value's share of the largest in its group
    index: int = 0  # the target's
    note: str = ""  # what to know when reading it


class Row(Struct, frozen=True):
    group: str  # the name that opens a group; empty: the row goes on in the one above
    label: str
    cells: list[Cell]


def targets(report: Report) -> Html:
    tables = [_stage(stage, columns) for stage, columns in stages(report)]
    empty = h("div", "No measured stage was reached: there is nothing to compare.", class_="empty")
    return h("section", h("h2", "How did the targets do, side by side?"), _lead(report), tables or empty, id="targets")


def stages(report: Report) -> Iterator[tuple[str, list[Column]]]:
    """Each measured stage with the targets' figures in it, in the order of the run."""
    order = list(dict.fromkeys(stage for t in report.summary.targets.values() for stage in t.stages))
    known = {target.name: target for target in (report.plan.targets if report.plan else [])}
    for stage in order:
        yield (
            stage,
            [
                Column(index, name, figures.stages[stage], known.get(name))
                for index, (name, figures) in enumerate(report.summary.targets.items())
                if stage in figures.stages
            ],
        )


def _lead(report: Report) -> Html:
    words = "Latencies are over the requests that succeeded."
    if any(stage.faults for t in report.summary.targets.values() for stage in t.stages.values()):
        place = "Under" if len(report.summary.targets) > MOST_COLUMNS else "Beside"
        words += f" {place} them stands the same percentile with every failed request counted as infinitely slow."
        words += " Objectives are judged by that one."
    return h("p", words, class_="lead")


def _stage(stage: str, columns: list[Column]) -> Html:
    beside = any(column.figures.faults for column in columns)
    rows = [row for row in _rows(columns) if any(cell.shown != NOT_KNOWN for cell in row.cells)]
    if len(columns) > MOST_COLUMNS:
        return text(h("h3", f"Stage {stage}"), _transposed(columns, rows, beside))
    return text(
        h("h3", f"Stage {stage}"),
        h("div", h("table", _head(columns, beside), _body(rows, beside), class_="full compare"), class_="scroll"),
    )


def _transposed(columns: list[Column], rows: list[Row], beside: bool) -> list[Html]:
    """Two tables, a row a target: counts and latencies, then the rest."""
    groups: list[tuple[str, list[Row]]] = []
    for row in rows:
        if row.group or not groups:
            groups.append((row.group, []))
        groups[-1][1].append(row)
    parts = ([g for g in groups if g[0] not in FIGURES], [g for g in groups if g[0] in FIGURES])
    return [h("div", _by_target(columns, part, beside), class_="scroll") for part in parts if part]


def _by_target(columns: list[Column], groups: list[tuple[str, list[Row]]], beside: bool) -> Html:
    titles = [
        h("th", title, colspan=len(rows) if len(rows) > 1 else None, scope="colgroup", class_="first")
        for title, rows in groups
    ]
    labels = [
        h("th", row.label, scope="col", class_=None if at else "first")
        for _, rows in groups
        for at, row in enumerate(rows)
    ]
    body = [
        h(
            "tr",
            h("th", named(column.index, column.name), scope="row", class_="name"),
            [_beneath(row.cells[k], beside, not at) for _, rows in groups for at, row in enumerate(rows)],
        )
        for k, column in enumerate(columns)
    ]
    head = h("thead", h("tr", h("th"), titles), h("tr", h("th"), labels, class_="subhead"))
    return h("table", head, h("tbody", body), class_="full by-target")


def _beneath(cell: Cell, beside: bool, first: bool) -> Html:
    """The figure, and under it the same with failures as +infinity."""
    failures = h("div", cell.beside, class_="beside infinite" if cell.beside == INFINITE else "beside")
    under = failures if beside and cell.beside not in (None, cell.shown) else None
    note = h("div", cell.note, class_="small") if cell.note else None
    return h("td", cell.shown, under, note, class_="first" if first else None)


def _head(columns: list[Column], beside: bool) -> Html:
    span = 2 if beside else None
    names = h("tr", h("th"), [h("th", named(c.index, c.name), colspan=span, scope="colgroup") for c in columns])
    if not beside:
        return h("thead", names)
    words = [h("th", word, scope="col") for _ in columns for word in ("successes", "with failures")]
    return h("thead", names, h("tr", h("th"), words, class_="subhead"))


def _body(rows: list[Row], beside: bool) -> Html:
    return h(
        "tbody",
        [
            _tr(row, beside, position == len(rows) - 1 or bool(rows[position + 1].group))
            for position, row in enumerate(rows)
        ],
    )


def _tr(row: Row, beside: bool, last: bool) -> Html:
    label = h(
        "th",
        h("b", row.group) if row.group else None,
        " " if row.group else None,
        h("span", row.label),
        scope="row",
        class_="metric",
    )
    kinds = " ".join(word for word, on in (("group", row.group), ("last", last)) if on)
    return h("tr", label, [_td(cell, beside) for cell in row.cells], class_=kinds or None)


def _td(cell: Cell, beside: bool) -> Html:
    if beside and cell.beside is not None:
        return text(
            h("td", _bar(cell.bar, cell.index), _number(cell)),
            h("td", cell.beside, class_="beside infinite" if cell.beside == INFINITE else "beside"),
        )
    span, kind = (2, "whole") if beside else (None, None)
    return h("td", _bar(cell.bar, cell.index), _number(cell), colspan=span, class_=kind)


def _number(cell: Cell) -> Html | str:
    """Of one width where a bar stands before it, so that the bars stand below each other."""
    note = h("div", cell.note, class_="small") if cell.note else None
    return text(cell.shown if cell.bar is None else h("span", cell.shown, class_="number"), note)


def _bar(share: float | None, index: int) -> Html | None:
    """From 0 to the largest value of the group, over all targets."""
    if share is None:
        return None
    track = h("rect", width="100", height="4", class_="track")
    value = h("rect", width=f"{max(100 * share, 1):.1f}", height="4", fill="currentColor")
    return h("svg", track, value, viewBox="0 0 100 4", class_=f"length c{index % COLORS}", aria_hidden="true")


def _rows(columns: list[Column]) -> Iterator[Row]:
    yield _plain("Requests", "", columns, lambda c: count(c.figures.requests))
    yield _plain("Errors", "", columns, _errors)
    for metric, title in LATENCIES:
        if metric == "icl_ms" and any(c.figures.itl_ms.n for c in columns):
            continue
        yield from _latency(metric, title, columns)
    yield _plain("Throughput", "requests", columns, lambda c: quantity(c.figures.requests_per_s, "1/s"))
    yield _plain("", "output tokens", columns, lambda c: quantity(c.figures.output_tokens_per_s, "1/s"))
    yield _plain("", "goodput", columns, lambda c: quantity(c.figures.goodput_per_s, "1/s"))
    yield _plain("Tokens", "input", columns, lambda c: count(c.figures.input_tokens))
    yield _plain("", "of it cached", columns, _cached)
    yield _plain("", "output", columns, _output_tokens)
    if any(c.figures.after_retries for c in columns):
        yield from _after_retries(columns)
    if any(c.figures.cost or (c.target and c.target.price) for c in columns):
        yield _plain("Cost", "", columns, _cost)
        yield _plain("", "per 1,000 successes", columns, _unit_cost)


def _plain(group: str, label: str, columns: list[Column], shown: Callable[[Column], Html | str]) -> Row:
    return Row(group, label, [Cell(shown(column)) for column in columns])


def _latency(metric: str, title: str, columns: list[Column]) -> Iterator[Row]:
    stats: list[Stat] = [getattr(column.figures, metric) for column in columns]
    if not any(stat.n for stat in stats):
        return
    largest = max((value for stat in stats for p in PERCENTILES if (value := getattr(stat, p))), default=0.0)
    for position, p in enumerate(PERCENTILES):
        cells = [_latency_cell(column, metric, p, largest) for column in columns]
        yield Row(title if position == 0 else "", p, cells)


def _latency_cell(column: Column, metric: str, p: str, largest: float) -> Cell:
    stat: Stat = getattr(column.figures, metric)
    value: float | None = getattr(stat, p)
    if value is None:
        return Cell("no success" if column.figures.ok == 0 else NOT_KNOWN, _with_failures(column.figures, metric, p))
    bar = value / largest if largest else None
    own = column.figures
    note = f"stamps exact to {sig3(own.uncertainty_p99_ms)} ms in 99% of the requests" if own.blurred(value) else ""
    return Cell(f"{sig3(value)} ms", _with_failures(own, metric, p), bar, column.index, note)


def _with_failures(figures: StageFigures, metric: str, p: str) -> str | None:
    """The percentile with failures as +infinity."""
    stat: Stat = getattr(figures, metric)
    if stat.with_failures is None:
        return None
    return quantity(getattr(stat.with_failures, p), "ms")


def _errors(column: Column) -> Html | str:
    figures = column.figures
    failed = sum(figures.errors.values())
    if figures.error_rate is None:
        return NOT_KNOWN
    ours = sum(n for word, n in figures.errors.items() if FAULT_OF.get(word) in ("client", "generator"))
    low, high = share_interval(failed - ours, figures.requests - ours)
    note = f"{count(failed - ours)} of {count(figures.requests - ours)}, {percent(low)} to {percent(high)}"
    return text(percent(figures.error_rate), h("div", note, class_="small"))


def _output_tokens(column: Column) -> Html | str:
    return text(count(column.figures.output_tokens), _unknown_note(column.figures))


def _unknown_note(figures: StageFigures) -> Html | None:
    """The number of answers whose tokens nobody counted: sums leave them out."""
    unknown = figures.unknown_tokens
    return h("div", f"without {count(unknown)} answers whose tokens are not known", class_="small") if unknown else None


def _cached(column: Column) -> Html | str:
    own = column.figures
    if own.cached_tokens is None:
        return NOT_KNOWN
    share = percent(own.cached_tokens / own.input_tokens) if own.input_tokens else NOT_KNOWN
    return text(count(own.cached_tokens), h("div", f"{share} of the input", class_="small"))


def _cost(column: Column) -> Html | str:
    if column.target is not None and column.target.price is None:
        return "not priced"
    own = column.figures.cost
    if own is None:
        return NOT_KNOWN
    parts = f"input {_money(own.input, own.currency)}, output {_money(own.output, own.currency)}"
    return text(_money(own.total, own.currency), h("div", parts, class_="small"), _unknown_note(column.figures))


def _unit_cost(column: Column) -> str:
    own = column.figures.cost
    if own is None or own.per_1000_successes is None:
        return NOT_KNOWN
    return f"{sig3(own.per_1000_successes)} {own.currency}"


def _money(amount: float, currency: str) -> str:
    return f"{amount:,.2f} {currency}" if amount >= 1 else quantity(amount, currency)


def _after_retries(columns: list[Column]) -> Iterator[Row]:
    """Where something was sent again: how it ended, beside the figures above, which are of first attempts."""

    def of(shown: Callable[[AfterRetries], str]) -> Callable[[Column], str]:
        return lambda c: shown(c.figures.after_retries) if c.figures.after_retries else "none"

    yield _plain("After retries", "further attempts", columns, of(lambda a: count(a.retried)))
    yield _plain("", "succeeded in the end", columns, of(lambda a: percent(a.success_rate)))
    yield _plain("", "from due to the end, p50", columns, of(lambda a: quantity(a.due_e2e_ms.p50, "ms")))
    yield _plain("", "from due to the end, p99", columns, of(lambda a: quantity(a.due_e2e_ms.p99, "ms")))
