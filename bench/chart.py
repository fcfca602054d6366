"""results.svg from results.json: horizontal bars, readable in light and dark. Pure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from bench.page import amount, figures_of

WIDTH, LEFT, RIGHT, ROW, TOP = 860, 400, 160, 22, 46
CLIP = 3
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #15181e } .title { font-weight: 600; font-size: 15px }
.small { fill: #474d59; font-size: 12px } .axis { stroke: #d8dce2 } .limit { stroke: #c01f3a; stroke-width: 1.5 }
.ours { fill: #0072b2 } .other { fill: #c97800 } .missed { fill: #c01f3a } .ground { fill: #ffffff }
@media (prefers-color-scheme: dark) {
  text { fill: #edeff3 } .small { fill: #b6bcc8 } .axis { stroke: #343a44 } .limit { stroke: #ff7d88 }
  .ours { fill: #56b4e9 } .other { fill: #f0a93b } .missed { fill: #ff7d88 } .ground { fill: #0f1114 }
}
"""


@dataclass(frozen=True)
class Bar:
    label: str
    value: float
    words: str
    look: str = "ours"


@dataclass(frozen=True)
class Panel:
    title: str
    axis: str
    bars: Sequence[Bar]
    limit: float | None = None
    log: bool = False

    @property
    def height(self) -> int:
        return TOP + ROW * len(self.bars) + 24


def panels(results: Mapping[str, Any]) -> Iterator[Panel]:
    every = [figure for part in results["parts"].values() for figure in figures_of(part)]
    shares = []
    for figure in every:
        if figure.asked:
            share = figure.measured / figure.asked if figure.must_be == "at most" else figure.asked / figure.measured
            look = "ours" if figure.met else "missed"
            words = f"{amount(figure.measured, figure.unit)}{f' ({share:,.0f} times)' if share > CLIP else ''}"
            shares.append(Bar(figure.what, min(share, CLIP), words, look))
    yield Panel(
        "Which targets are met?",
        f"share of what was allowed, cut at {CLIP} times; the line is the target, less is better",
        shares,
        limit=1,
    )
    peers = [
        figure for name, part in results["parts"].items() if name.startswith("peer ") for figure in figures_of(part)
    ]
    cost = [Bar(f.what, f.measured, amount(f.measured, f.unit), "other") for f in peers if f.unit == "×"]
    yield Panel("What does a chunk cost the others?", "CPU, as a multiple of ours in the same minutes", cost, limit=1)
    error = [
        Bar(f.what, max(f.measured, 0.01), amount(f.measured, f.unit), "ours" if f.what.startswith("ours") else "other")
        for f in peers
        if f.unit == "ms"
    ]
    yield Panel("How far off is TTFT p99?", "ms from the server's truth, 100 streams", error, log=True)


def svg(results: Mapping[str, Any]) -> str:
    drawn, y = [], 0
    for panel in panels(results):
        if panel.bars:
            drawn += list(_drawn(panel, y))
            y += panel.height
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}">'
    ground = f'<rect class="ground" width="{WIDTH}" height="{y}"/>'
    return "\n".join([head, f"<style>{STYLE}</style>", ground, *drawn, "</svg>\n"])


def _drawn(panel: Panel, y: int) -> Iterator[str]:
    yield f'<text class="title" x="12" y="{y + 22}">{escape(panel.title)}</text>'
    yield f'<text class="small" x="12" y="{y + 39}">{escape(panel.axis)}{", logarithmic" * panel.log}</text>'
    values = [bar.value for bar in panel.bars if math.isfinite(bar.value) and bar.value > 0]
    low = min(values) / 2 if panel.log else 0
    high = max([*values, panel.limit or 0])

    def x(value: float) -> float:
        if not math.isfinite(value):
            value = high
        share = math.log(max(value, low) / low) / math.log(high / low) if panel.log else value / high
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    foot = y + TOP + ROW * len(panel.bars)
    yield f'<line class="axis" x1="{LEFT}" x2="{LEFT}" y1="{y + TOP}" y2="{foot}"/>'
    for index, bar in enumerate(panel.bars):
        top = y + TOP + ROW * index
        yield f'<text x="{LEFT - 8}" y="{top + 15}" text-anchor="end">{escape(bar.label)}</text>'
        yield f'<rect class="{bar.look}" x="{LEFT}" y="{top + 4}" width="{x(bar.value) - LEFT:.1f}" height="{ROW - 8}" rx="2"/>'
        yield f'<text class="small" x="{x(bar.value) + 6:.1f}" y="{top + 15}">{escape(bar.words)}</text>'
    if panel.limit is not None:
        yield f'<line class="limit" x1="{x(panel.limit):.1f}" x2="{x(panel.limit):.1f}" y1="{y + TOP}" y2="{foot}"/>'
