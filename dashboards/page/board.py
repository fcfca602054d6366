"""A dashboard's page before any query has run: its controls, and a place for each panel under its question."""

from collections.abc import Sequence
from urllib.parse import urlencode

from dashboards.page.links import SEVERAL
from dashboards.page.shell import title
from dashboards.page.views import Asked
from dashboards.types import Panel, Variable
from loadtest.report.markup import Child, Html, h, text

SIZE = 12  # of a field, in characters
UNIT_PX = 24  # of a panel's height
WORDS = {
    "1m": "last minute", "5m": "last 5 minutes", "15m": "last 15 minutes", "1h": "last hour", "6h": "last 6 hours",
    "24h": "last 24 hours", "7d": "last 7 days", "30d": "last 30 days", "run": "the whole run",
}  # fmt: skip
ITSELF = ("table", "stat", "bar")
"""Views that are text: they need no other form for those who cannot see a picture."""


def board(asked: Asked, query: Sequence[tuple[str, str]]) -> Html:
    name = asked.dashboard.name
    events = f"/events/{name}?{urlencode(query)}"
    return text(
        title(asked.dashboard.title, lead=asked.dashboard.doc),
        h("div", h("p", "Reading the store …", class_="muted"), id="status", aria_live="polite"),
        _controls(asked, query),
        h("p", id="trouble", role="status", class_="trouble", hidden=True),
        h("div", [_panel(panel) for panel in asked.panels], class_="board", id="board", data_events=events),
        h("section", h("h2", "What happened"), h("div", id="happened"), aria_label="What happened")
        if asked.runs
        else None,
    )


def _controls(asked: Asked, query: Sequence[tuple[str, str]]) -> Html:
    chosen = dict(query)
    fields: list[Child] = [_variable(variable, asked) for variable in asked.dashboard.variables]
    ranges = [name for name in WORDS if name != "run" or any(v.name == "run" for v in asked.dashboard.variables)]
    given = "" if chosen.get("from") else asked.last
    choices = [h("option", WORDS[name], value=name, selected=name == given) for name in ranges]
    between = asked.from_ns is not None or asked.to_ns is not None
    first = h("option", "from and to, below" if between else "automatic", value="", selected=not given)
    fields.append(h("label", h("span", "Time"), h("select", first, choices, name="last")))
    moments = [
        h(
            "label",
            h("span", f"{word}, UTC"),
            h("input", name=key, value=chosen.get(key, ""), placeholder="2026-11-25T02:30:00Z"),
        )
        for key, word in (("from", "From"), ("to", "To"))
    ]
    show = h("div", moments, h("button", "Show"), class_="choices")
    fields.append(h("details", h("summary", "From, to"), show, class_="choice"))
    return h(
        "form",
        fields,
        h(
            "span",
            h("span", id="asof", class_="muted"),
            h("button", "Pause", id="pause", type="button", hidden=True),
            class_="now",
        ),
        id="controls",
        method="get",
        role="search",
        aria_label="What is shown",
    )


def _variable(variable: Variable, asked: Asked) -> Html:
    chosen = asked.chosen.get(variable.name, ())
    if not variable.sql and not variable.options:
        value = chosen[0] if chosen else variable.default
        return h(
            "label",
            h("span", variable.label),
            h("input", name=variable.name, value=value, size=SIZE, autocomplete="off"),
        )
    if variable.name == "run" or variable.name not in SEVERAL:
        known = variable.options or (chosen if chosen else ())
        options = [
            h("option", value, value=value, selected=value in (chosen or (variable.default,))) for value in known
        ]
        if variable.several:
            options.insert(0, h("option", "all", value="", selected=not chosen))
        return h(
            "label", h("span", variable.label), h("select", options, name=variable.name, data_options=variable.name)
        )
    said = ", ".join(chosen) if chosen else "all"
    boxes = [_box(variable.name, value) for value in chosen]
    return h(
        "details",
        h("summary", h("span", variable.label), h("b", said)),
        h("div", boxes, class_="choices", data_options=variable.name, role="group", aria_label=variable.label),
        class_="choice",
    )


def _box(name: str, value: str) -> Html:
    return h("label", h("input", type="checkbox", name=name, value=value, checked=True), value)


def _panel(panel: Panel) -> Html:
    height = max(5, panel.height) * UNIT_PX
    plot = h("div", class_="plot", data_height=height)
    figures = h("details", h("summary", "Figures"), h("div", class_="scroll"), class_="figures", hidden=True)
    return h(
        "figure",
        h("figcaption", h("p", panel.title, class_="eyebrow"), h("h2", panel.question), h("p", class_="answer")),
        h("p", class_="unit"),
        plot,
        None if panel.view in ITSELF else figures,
        id=panel.name,
        class_=f"panel w{max(6, panel.width)} of-{panel.view.replace(' ', '-')}",
        data_panel=panel.name,
        aria_busy="true",
    )
