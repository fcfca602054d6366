"""DEFINITIONS: what other tools mean by the same words, over the same stored rows.

"TTFT" of two tools differs though both are right: they start the clock at different moments, stop it at different
chunks, divide by different counts of tokens, leave different requests out and read percentiles off differently. So a
dispute about a figure is settled by having both: `vllm.ttft_ms` is what vLLM's benchmark would have printed had it seen
the very answers of a stored run. Each definition was read from the tool's source at the version its `Tool` names, and
compared with the tool itself where that can be installed (docs/definitions.md).

A tool is a module here: its `TOOLS`, one for each version that means something else, and its `DEFINITIONS`.

They stand apart from METRICS: nothing of ours is judged by them, and a figure is only quoted under the name of its
tool. What cannot be reproduced for lack of a fact in the rows is null, and `doc` says why.

`Definition.sql` is an expression over one row of `requests`, of the rows that meet `among`; its kind says of what form:

    request    a nullable number, one value a request
    pooled     an array of numbers, many values a request, pooled over requests
    weighted   a nullable number that counts `weight` times (GuideLLM weighs a request's latency by its tokens)

What the rows cannot tell, and no definition has:

- How long the tool itself would have taken to send and to read. Kernel stamps leave that out; under load it is most of
  the difference (docs/definitions.md).
- Whether a chunk without payload had `choices`: taken as yes, unless it carried usage. vLLM from 0.33 counts one with
  empty content and without a role as a token, and reasoning under the name `reasoning` alone.
- Whether a stream that broke off ended its body properly: a failure here, while most tools take it for a success then.
"""

from collections.abc import Sequence

from loadtest.definitions import (
    aiperf,
    artificial_analysis,
    evalscope,
    genai_bench,
    guidellm,
    inference_perf,
    llmperf,
    mlcommons,
    mlperf_loadgen,
    vllm,
)
from loadtest.definitions._parts import COLUMNS, METHODS, PIECES, Definition, Method, Tool
from loadtest.metrics import BY

__all__ = [
    "DEFINITIONS", "METHODS", "TOOLS", "Definition", "Method", "Tool", "catalogue", "column", "figures", "of_tool",
    "quantiles", "versions_of",
]  # fmt: skip

_MODULES = (
    aiperf,
    guidellm,
    genai_bench,
    inference_perf,
    vllm,
    evalscope,
    mlcommons,
    llmperf,
    mlperf_loadgen,
    artificial_analysis,
)
TOOLS: dict[str, Tool] = {tool.name: tool for module in _MODULES for tool in module.TOOLS}
"""By name, in the order of METRICS' table of others."""
DEFINITIONS: dict[str, Definition] = {each.name: each for module in _MODULES for each in module.DEFINITIONS}
"""By name, in the order of TOOLS."""


def of_tool(name: str) -> list[Definition]:
    """The definitions of one tool, in its order."""
    return [definition for definition in DEFINITIONS.values() if definition.tool == name]


def versions_of(name: str) -> list[Tool]:
    """The tool of that name and the later versions that mean something else; none where there is no such tool."""
    return [tool for tool in TOOLS.values() if name in (tool.name, tool.after)]


# The query

_JUST_BELOW = 1e-12
"""quantileExact takes index floor(p n). Of a p that is smaller by this, that is ceil(p n) - 1 for any n in reach."""


def figures(definitions: Sequence[Definition], where: str, levels: Sequence[float], by: Sequence[str] = BY) -> str:
    """A query of figures for each group of `by`, over the rows of `requests` that meet `where`.

    Columns, for each definition its name with `_` for the dot, and then: `_n`, the number of values; `_mean`; `_q`, the
    values at `levels` as the tool reads them off. Where n is 0, the others say nothing.
    """
    values = [f"{sql} AS {alias}" for d in definitions for alias, sql in _values(d).items()]
    columns = [f"{sql} AS {alias}" for d in definitions for alias, sql in _aggregates(d, levels).items()]
    keys = ", ".join(by)
    pieces = [f"{sql} AS {name}" for name, sql in PIECES.items()]
    rows = f"SELECT {', '.join([*by, *COLUMNS, *pieces])} FROM requests WHERE {where}"
    each = f"SELECT {', '.join([*by, *values])} FROM ({rows})"
    return f"SELECT {', '.join([*by, *columns])} FROM ({each}) GROUP BY {keys} ORDER BY {keys}"


def column(definition: Definition) -> str:
    """What a definition's columns begin with."""
    return definition.name.replace(".", "_")


def _values(definition: Definition) -> dict[str, str]:
    """The columns of one row that a definition's figures are made of."""
    name = column(definition)
    if definition.kind == "pooled":
        return {f"{name}_v": f"if({definition.among}, {definition.sql}, [])"}
    values = {f"{name}_v": f"if({definition.among}, {definition.sql}, NULL)"}
    if definition.kind == "weighted":
        values[f"{name}_w"] = f"toUInt64({definition.weight})"
    return values


def _aggregates(definition: Definition, levels: Sequence[float]) -> dict[str, str]:
    name = column(definition)
    v, w = f"{name}_v", f"{name}_w"
    method = TOOLS[definition.tool].method
    if definition.kind == "weighted":
        return {
            f"{name}_n": f"countIf({v} IS NOT NULL AND {w} > 0)",
            f"{name}_mean": f"sum({v} * {w}) / sumIf({w}, {v} IS NOT NULL)",  # avgWeighted cuts off decimals
            f"{name}_q": f"quantilesExactWeighted({_of(levels)})({v}, {w})",
        }
    array = "Array" if definition.kind == "pooled" else ""
    return {
        f"{name}_n": f"sum(length({v}))" if array else f"count({v})",
        f"{name}_mean": f"avg{array}({v})",
        f"{name}_q": quantiles(method, array, v, levels),
    }


def quantiles(method: Method, array: str, v: str, levels: Sequence[float]) -> str:
    match method:
        case "linear":
            return f"quantilesExactInclusive{array}({_of(levels)})({v})"
        case "nearest":
            return f"quantilesExact{array}({_of([max(level - _JUST_BELOW, 0) for level in levels])})({v})"
        case "floor":
            return f"quantilesExact{array}({_of(levels)})({v})"
        case "lower":
            values = f"arraySort(groupArray{array}({v}))"
            return f"arrayMap(p -> {values}[toInt64(floor(p * (length({values}) - 1))) + 1], [{_of(levels)}])"


def _of(levels: Sequence[float]) -> str:
    return ", ".join(map(repr, levels))


# The page


def catalogue() -> str:
    """The second half of docs/metrics.md."""
    out = [
        "# What others mean by the same words",
        "",
        "The same stored run, by the definitions of other tools: `loadtest report RUN --as vllm` prints what that tool",
        "would have printed, and report.html has them side by side. They are read from the tools' sources; how well",
        "they agree with the tools themselves is measured in [definitions.md](definitions.md). No SLO is judged by",
        "them.",
        "",
        "| tool | version | percentiles | why its figures differ |",
        "|---|---|---|---|",
    ]
    out += [f"| [{t.title}](#{t.name}) | {t.version} | {METHODS[t.method]} | {t.differs} |" for t in TOOLS.values()]
    out += ["", "In the SQL below these names stand for", ""]
    out += [f"- `{name}`: `{sql}`" for name, sql in PIECES.items()]
    out += ["", "in ns from `sent_ns`, or counts. They are of chunks that"]
    out += ["carry: output, reasoning, content or a tool call; an answer, content or a tool call; text, reasoning or"]
    out += ["content; a choice, anything but usage alone."]
    for tool in TOOLS.values():
        out += ["", f"## {tool.name}", "", f"{tool.title} {tool.version}, read in {tool.source}.", ""]
        out += [f"Prints {', '.join(tool.stats)}. Percentiles are {METHODS[tool.method]}."]
        for d in of_tool(tool.name):
            out += ["", f"### {d.name}", "", f"“{d.calls}”, {d.unit}. {d.doc}", "", "```sql", d.sql]
            out += [f"-- weighted by {d.weight}"] if d.weight else []
            out += [f"-- of the rows {d.among}", "```"]
    return "\n".join(out) + "\n"
