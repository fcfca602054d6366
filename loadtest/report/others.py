"""The figures of a stored run by the definitions of other tools (definitions.py), read from the store and written out.

For `loadtest report --as`: text for the terminal, JSON, or a table for spreadsheets. report.html has its own section.
"""

import csv
import math
from collections.abc import Iterator, Sequence
from io import StringIO
from typing import Any

from msgspec import Struct

from loadtest import definitions
from loadtest.definitions import DEFINITIONS, METHODS, TOOLS, Definition, Tool
from loadtest.errors import UserError
from loadtest.report.evidence import MEASURED, ONE_GROUP
from loadtest.report.words import NOT_KNOWN, count, sig3
from loadtest.stats import parse_stat
from loadtest.store import Store

Group = tuple[str, str]  # stage, target

GROUPS = f"""
    SELECT stage, target, any(stage_index) AS position
    FROM requests LEFT JOIN (SELECT run, stage, stage_index FROM stages LIMIT 1 BY run, stage) AS stages USING (run, stage)
    WHERE {MEASURED} GROUP BY stage, target ORDER BY position, target"""


CHUNKS_AT_ONCE = 2_000_000
"""A query of all figures of a run with more chunks would take too much memory."""


class Said(Struct, kw_only=True):
    """One figure, as a tool would say it of one stage and target. `stats` by name; None where there is no value."""

    name: str
    stage: str
    target: str
    n: int
    stats: dict[str, float | None]


def tools_named(name: str) -> list[Tool]:
    """The tool and its later versions, which print the same stats. Raises UserError for a name that is none."""
    found = definitions.versions_of(name.lower().replace("-", "_"))
    if not found:
        raise UserError(f"{name!r} is no tool whose definitions are known; write one of: {', '.join(TOOLS)}")
    return found


def groups(store: Store, run: str) -> list[Group]:
    """The measured stages and targets of a run, in the order of the run."""
    return [(row["stage"], row["target"]) for row in store.query(GROUPS, {"run": run})]


def said(
    store: Store,
    run: str,
    tools: Sequence[Tool],
    asked: Sequence[Group],
    stats: Sequence[str],
    chunks_at_once: int = CHUNKS_AT_ONCE,
) -> list[Said]:
    """What the tools would say of each group, group by group and tool by tool."""
    mine = [definition for tool in tools for definition in definitions.of_tool(tool.name)]
    levels = [stat.level for stat in map(parse_stat, stats) if stat.level is not None]
    rows: dict[Group, dict[str, Any]] = {}
    for some, where, parameters in _queries(store, run, mine, asked, chunks_at_once):
        for row in store.query(definitions.figures(some, where, levels), {"run": run, **parameters}):
            rows.setdefault((row["stage"], row["target"]), {}).update(row)
    return [_said(d, group, rows[group], stats) for group in asked if group in rows for d in mine]


def _queries(
    store: Store, run: str, mine: Sequence[Definition], asked: Sequence[Group], chunks_at_once: int
) -> Iterator[tuple[Sequence[Definition], str, dict[str, str]]]:
    """What is asked at once. A million answers have a hundred million gaps: those are pooled one by one."""
    pooled = [definition for definition in mine if definition.kind == "pooled"]
    others = [definition for definition in mine if definition.kind != "pooled"]
    [size] = store.query(f"SELECT sum(token_chunks) AS chunks FROM requests WHERE {MEASURED}", {"run": run})
    if size["chunks"] <= chunks_at_once:
        yield mine, MEASURED, {}
        return
    yield others, MEASURED, {}
    for stage, target in asked:
        for definition in pooled:
            yield [definition], ONE_GROUP, {"stage": stage, "target": target}


def _said(definition: Definition, group: Group, row: dict[str, Any], stats: Sequence[str]) -> Said:
    column = definitions.column(definition)
    n = row.get(f"{column}_n", 0)
    quantiles = iter(row.get(f"{column}_q", ()))
    values: dict[str, float | None] = {}
    for stat in stats:
        value = row.get(f"{column}_mean") if stat == "mean" else next(quantiles, None)
        values[stat] = value if n and value is not None and math.isfinite(value) else None
    return Said(name=definition.name, stage=group[0], target=group[1], n=n, stats=values)


# As text


def plain(run: str, tools: Sequence[Tool], figures: Sequence[Said]) -> Iterator[str]:
    """Line by line: each tool, each stage and target, a table of its figures."""
    for tool in tools:
        mine = [figure for figure in figures if DEFINITIONS[figure.name].tool == tool.name]
        yield from (
            ("", f"{tool.title}: what version {tool.version} would print of run {run}")
            if tool.after
            else (f"{tool.title}: what version {tool.version} would print of run {run}",)
        )
        yield f"  {tool.differs}"
        yield f"  Percentiles: {METHODS[tool.method]}."
        for stage, target in dict.fromkeys((figure.stage, figure.target) for figure in mine):
            yield ""
            yield f"  stage {stage}, target {target}"
            yield from _table([figure for figure in mine if (figure.stage, figure.target) == (stage, target)])
        if not mine:
            yield "  No request of a measured stage was stored."


def _table(figures: Sequence[Said]) -> Iterator[str]:
    heads = ["figure", "called", "n", *figures[0].stats]
    rows = [
        [
            f"{figure.name}, {DEFINITIONS[figure.name].unit}".removesuffix(", ms"),
            DEFINITIONS[figure.name].calls,
            count(figure.n),
            *(NOT_KNOWN if value is None else sig3(value) for value in figure.stats.values()),
        ]
        for figure in figures
    ]
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    for row in (heads, *rows):
        names = "  ".join(cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True))
        numbers = "  ".join(cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True))
        yield f"    {names}  {numbers}"


def as_json(run: str, tools: Sequence[Tool], figures: Sequence[Said]) -> dict[str, Any]:
    """{"run", "tools": {NAME: {..., "stages": {STAGE: {TARGET: {FIGURE: {"n", "mean", "p50", ...}}}}}}}."""
    out: dict[str, Any] = {
        tool.name: {
            "title": tool.title,
            "version": tool.version,
            "source": tool.source,
            "percentiles": METHODS[tool.method],
            "stages": {},
        }
        for tool in tools
    }
    for figure in figures:
        definition = DEFINITIONS[figure.name]
        of_stage = out[definition.tool]["stages"].setdefault(figure.stage, {}).setdefault(figure.target, {})
        of_stage[figure.name] = {"called": definition.calls, "unit": definition.unit, "n": figure.n, **figure.stats}
    return {"run": run, "tools": out}


def as_csv(run: str, figures: Sequence[Said]) -> str:
    """RFC 4180: a row a figure, stage and target. What is not known is empty."""
    stats = list(dict.fromkeys(stat for figure in figures for stat in figure.stats))
    out = StringIO()
    writer = csv.DictWriter(out, ["run", "stage", "target", "figure", "called", "unit", "n", *stats], restval="")
    writer.writeheader()
    for figure in figures:
        definition = DEFINITIONS[figure.name]
        writer.writerow(
            {
                "run": run,
                "stage": figure.stage,
                "target": figure.target,
                "figure": figure.name,
                "called": definition.calls,
                "unit": definition.unit,
                "n": figure.n,
                **{stat: "" if value is None else value for stat, value in figure.stats.items()},
            }
        )
    return out.getvalue()
