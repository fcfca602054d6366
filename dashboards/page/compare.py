"""Two runs beside each other: what was different about them, what their figures are, and what may be said of it.

Within one run targets are asked the same at the same time, and rounds make the difference a claim (report/compare.py).
Two runs were at two times: whatever differs may be the hour. So the page says which runs differ only where both had
enough rounds, calls it a difference of the runs, and otherwise shows the figures and claims nothing.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct

from dashboards.page import runs
from dashboards.page.shell import empty, link
from loadtest import history, metrics
from loadtest.metrics import METRICS
from loadtest.report.compare import COMPARED, FEWEST_ROUNDS, by_round
from loadtest.report.evidence import MEASURED
from loadtest.report.marks import named
from loadtest.report.markup import Child, Html, h, text
from loadtest.report.words import listing, metric_title, percent, plural, quantity, seconds, utc
from loadtest.stats import difference_interval, parse_stat
from loadtest.store import Store

Row = dict[str, Any]
Group = tuple[str, str]  # stage, target
PLAN = "SELECT plan, account FROM runs WHERE run = {run:String} ORDER BY ended_ns DESC LIMIT 1"
LETTERS = ("A", "B")
OF_NO_MATTER = ("nonce",)


class Side(Struct):
    """One of the two runs."""

    run: history.Listed
    plan: dict[str, Any]  # as run, by path: targets.acme.url
    figures: dict[Group, Row]
    rounds: dict[str, int]  # of each stage


class Missing(Struct):
    """No run has this id, or it has not ended."""

    run: str
    why: str


def side(store: Store, name: str) -> Side | Missing:
    found = history.listed(store, only=name)
    if not found:
        return Missing(name, "is not in this store")
    if found[0].going_on:
        return Missing(name, "goes on: its figures are final when it has ended")
    stored = store.query(PLAN, {"run": name})
    if not stored:
        return Missing(name, "has no end: its driver was lost, and without its stages there are no figures")
    ask = partial(store.query, params={"run": name})
    figures = {(row["stage"], row["target"]): row for row in _figures(store, name)}
    rounds = {
        row["stage"]: row["n"]
        for row in ask("SELECT stage, uniqExact(round) AS n FROM stages WHERE run = {run:String} GROUP BY stage")
    }
    return Side(found[0], dict(_flat(msgspec.yaml.decode(stored[0]["plan"]))), figures, rounds)


def _figures(store: Store, run: str) -> list[Row]:
    names = list(dict.fromkeys(name for name, _ in COMPARED))
    stats = list(dict.fromkeys(stat for _, stat in COMPARED if stat))
    return store.query(metrics.figures(names, MEASURED, stats=stats, failures=True), {"run": run})


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a plan by their path; items of a list by their name, where they have one."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for position, item in enumerate(value):
            name = item.get("name", position) if isinstance(item, dict) else position
            yield from _flat(item, f"{path}.{name}")
    else:
        yield path, value


def compared(store: Store, names: tuple[str, str]) -> Html:
    """The part of the page that takes the store a while."""
    sides = [side(store, name) for name in names]
    missing = [each for each in sides if isinstance(each, Missing)]
    if missing:
        return empty(" ".join(f"Run {each.run} {each.why}." for each in missing))
    first, second = (each for each in sides if isinstance(each, Side))
    groups = [group for group in first.figures if group in second.figures]
    enough = {stage for stage, _ in groups if _fewest_rounds(stage, first, second) >= FEWEST_ROUNDS}
    in_rounds = (
        [by_round(partial(store.query, params={"run": s.run.run}), ()) for s in (first, second)] if enough else []
    )
    return text(
        _heads(first, second),
        h("section", h("h2", "What was different about them?"), _different(first, second)),
        h("section", h("h2", "What may be said of their figures?"), _claims(first, second, groups)),
        [
            _stage(first, second, stage, groups, in_rounds if stage in enough else [])
            for stage in dict.fromkeys(stage for stage, _ in groups)
        ],
    )


def _heads(*sides: Side) -> Html:
    items = [
        h(
            "div",
            h("p", f"Run {letter}", class_="eyebrow"),
            h("p", h("a", each.run.run, href=link("/live", run=each.run.run)), " ", runs.ended(each.run)),
            h("p", f"{each.run.plan_name}, {utc(each.run.started_ns)}, took {_took(each)}", class_="muted"),
        )
        for letter, each in zip(LETTERS, sides, strict=True)
    ]
    return h("div", items, class_="sides")


def _took(each: Side) -> str:
    return seconds((each.run.ended_ns - each.run.started_ns) / 1e9)


def _different(first: Side, second: Side) -> Html:
    paths = [path for path in dict.fromkeys([*first.plan, *second.plan]) if path not in OF_NO_MATTER]
    rows = [(path, first.plan.get(path), second.plan.get(path)) for path in paths]
    rows = [(path, a, b) for path, a, b in rows if a != b]
    if not rows:
        return h("p", "Their plans are the same but for the nonce. They were sent at different times.", class_="lead")
    body = [
        h(
            "tr",
            h("th", path, scope="row"),
            h("td", _said(a), class_="left wrap"),
            h("td", _said(b), class_="left wrap"),
        )
        for path, a, b in rows
    ]
    head = h("tr", [h("th", word, scope="col", class_="left") for word in ("In the plan", *LETTERS)])
    table = h("table", h("thead", head), h("tbody", body), class_="full")
    return text(
        h("p", f"{plural(len(rows), 'entry')} of their plans.", class_="lead"), h("div", table, class_="scroll")
    )


def _said(value: Any) -> str:
    return "not set" if value is None else str(value)


def _claims(first: Side, second: Side, groups: list[Group]) -> Html:
    sides = dict(zip(LETTERS, (first, second), strict=True))
    apart = abs(second.run.started_ns - first.run.started_ns) / 1e9
    said = [
        f"The runs began {seconds(apart)} apart. What differs between them may be the hour, the network or another customer's "
        "load, and not the endpoint: only targets within one run are asked the same at the same time."
    ]
    said += [
        f"Run {letter} is INVALID: its figures say as much about the load generator as about its targets."
        for letter, each in sides.items()
        if each.run.result == "INVALID"
    ]
    rounds = [stage for stage, _ in groups if _fewest_rounds(stage, first, second) < FEWEST_ROUNDS]
    if rounds:
        stages = list(dict.fromkeys(rounds))
        said.append(
            f"Of {'stage' if len(stages) == 1 else 'stages'} {listing(stages)} not both runs had {FEWEST_ROUNDS} rounds, so "
            "whether they differ is not said: requests of one round are not independent of each other. Write rounds: 10."
        )
    for letter, each, other in (("A", first, second), ("B", second, first)):
        alone = [f"{target} in stage {stage}" for stage, target in each.figures if (stage, target) not in other.figures]
        said += [f"Only run {letter} has {listing(alone, 6)}."] if alone else []
    said += [] if groups else ["They have no stage and target in common, so nothing is beside each other."]
    said.append("Failed requests count as infinitely slow.")
    return h("ul", [h("li", words) for words in said], class_="claims")


def _fewest_rounds(stage: str, *sides: Side) -> int:
    return min(each.rounds.get(stage, 0) for each in sides)


def _stage(
    first: Side, second: Side, stage: str, groups: list[Group], in_rounds: list[dict[tuple[str, str, int], Row]]
) -> Html:
    order = first.run.targets
    rows: list[Html] = []
    for _, target in [group for group in groups if group[0] == stage]:
        position = order.index(target) if target in order else len(order)
        for at, (metric, stat) in enumerate(COMPARED):
            pair = (first.figures[stage, target], second.figures[stage, target])
            values = [each.get(_column(metric, stat)) for each in pair]
            if any(value is not None for value in values):
                told = _told(metric, [_of_rounds(r, stage, target, metric, stat) for r in in_rounds])
                rows.append(
                    _row(
                        named(position, target) if at == 0 else h("span", target, class_="unseen"),
                        metric,
                        stat,
                        values,
                        told,
                        bool(in_rounds),
                        at == 0,
                    )
                )
    heads = [("Target", "left"), ("Figure", "left"), ("A", None), ("B", None), ("B against A", None)]
    heads += [("Over rounds", "left")] if in_rounds else []
    head = h("tr", [h("th", word, scope="col", class_=side) for word, side in heads])
    table = h("table", h("thead", head), h("tbody", rows), class_="full compared")
    return h("section", h("h2", f"Stage {stage}"), h("div", table, class_="scroll"))


def _column(metric: str, stat: str | None) -> str:
    return metric if stat is None else f"{metric}_{parse_stat(stat).label}"


def _of_rounds(
    found: Mapping[tuple[str, str, int], Row], stage: str, target: str, metric: str, stat: str | None
) -> list[float]:
    values = [row.get(_column(metric, stat)) for (s, t, _), row in found.items() if (s, t) == (stage, target)]
    return [value for value in values if value is not None]


def _told(metric: str, samples: list[list[float]]) -> str:
    """From the rounds of both: by how much they differ, or that it is not shown."""
    if len(samples) < 2 or min(map(len, samples)) < FEWEST_ROUNDS:
        return ""
    low, high = difference_interval(samples[1], samples[0])
    if low is None or high is None:
        return "too many requests failed for a finite figure"
    unit = METRICS[metric].unit
    interval = f"B less A: {quantity(low, unit)} to {quantity(high, unit)} at 95%"
    if low <= 0 <= high:
        return f"no difference shown ({interval})"
    better = (high < 0) == (METRICS[metric].better == "lower")
    return f"run {'B' if better else 'A'} is better ({interval})"


def _row(
    target: Child, metric: str, stat: str | None, values: list[float | None], told: str, claims: bool, begins: bool
) -> Html:
    unit = METRICS[metric].unit
    a, b = values
    change = f"{'+' if b > a else ''}{percent((b - a) / a)}" if _comparable(a, b) and a and b is not None else "–"
    return h(
        "tr",
        h("th", target, scope="row"),
        h("td", metric_title(metric), f" {stat}" if stat else None, class_="left"),
        h("td", quantity(a, unit)),
        h("td", quantity(b, unit)),
        h("td", change),
        h("td", told) if claims else None,
        class_="group" if begins else None,
    )


def _comparable(a: float | None, b: float | None) -> bool:
    return a is not None and b is not None and abs(a) < float("inf") and abs(b) < float("inf")
