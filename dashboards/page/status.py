"""What stands above a dashboard's panels: how its runs are doing, in a sentence, and what has happened."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from dashboards.page.links import stamp
from dashboards.page.runs import ended
from dashboards.page.views import Happened, View
from loadtest.history import Listed
from loadtest.report.headline import State, measured, objective, standing, state_of
from loadtest.report.marks import named, outcome
from loadtest.report.markup import Html, h
from loadtest.report.model import SloRow
from loadtest.report.words import plural, seconds, utc

SIGNS: dict[str, State] = {
    "worker_lost": "invalid", "worker_restarted": "invalid", "target_refused": "invalid", "run_failed": "breached",
    "interrupted": "undecided",
}  # fmt: skip
SHOWN = 60


class Status(Struct):
    """`head` and `happened` are markup. `now` is a sentence for who cannot see the charts change."""

    head: str
    happened: str
    live: bool
    start: str
    end: str
    step_s: float


def told(view: View) -> Status:
    selection = view.selection
    return Status(
        head=str(h("div", [_run(view, run) for run in view.runs], class_="status")),
        happened=str(_happened(view)),
        live=view.live,
        start=stamp(selection.from_ns / 1e9),
        end=stamp(selection.to_ns / 1e9),
        step_s=selection.step_ns / 1e9,
    )


def _run(view: View, run: Listed) -> Html:
    of_run = [e for e in view.happened if e.run == run.run]
    stage = next((e.stage for e in reversed(of_run) if e.event == "stage_started"), "")
    took = seconds(max(0, run.ended_ns - run.started_ns) / 1e9)
    parts = [
        run.plan_name,
        f"in stage {stage}" if run.going_on and stage else "",
        f"began {utc(run.started_ns)}",
        f"{'for ' if run.going_on else 'took '}{took}",
        run.told,
    ]
    slos = [row for e in of_run if e.event == "verdict" and (row := _slo(e))]
    return h(
        "div",
        h("p", ended(run), h("span", " · ".join(filter(None, parts)), class_="muted"), class_="line"),
        _standing(view, slos),
        _invalid(next((e.text for e in of_run if e.event == "run_ended"), "")),
        _objectives(view, slos),
        None
        if run.objectives
        else h("p", "Its plan sets no objective: the charts have no limit of its own.", class_="small"),
    )


def _standing(view: View, slos: Sequence[SloRow]) -> Html | None:
    targets = sorted({row.target for row in slos}, key=lambda name: _position(view, name))
    rows = {name: [row for row in slos if row.target == name] for name in targets}
    items = [
        h("li", named(_position(view, name), name), outcome(state_of(own), standing(own))) for name, own in rows.items()
    ]
    return h("ul", items, class_="standing") if items else None


def _invalid(closing: str) -> Html | None:
    """The reasons, each `rule: what was found; what to do`, as the driver joined them."""
    kind, _, reasons = closing.partition(": ")
    if kind != "INVALID":
        return None
    items = [h("li", reason.partition(": ")[2] or reason) for reason in re.split(r"; (?=\w+: )", reasons)]
    return h("details", h("summary", f"INVALID for {plural(len(items), 'reason')}"), h("ul", items), class_="reasons")


def _objectives(view: View, slos: Sequence[SloRow]) -> Html | None:
    if not slos:
        return None
    rows = [
        h(
            "tr",
            h("th", named(_position(view, row.target), row.target), scope="row"),
            h("td", row.stage, class_="left"),
            h("td", objective(row), class_="left"),
            h("td", measured(row, row.value)),
            h("td", outcome(row.outcome), class_="left"),
        )
        for row in slos
    ]
    heads = (("Target", "left"), ("Stage", "left"), ("Objective", "left"), ("Measured", None), ("", "left"))
    head = h("tr", [h("th", word, scope="col", class_=side) for word, side in heads])
    table = h("table", h("thead", head), h("tbody", rows))
    return h("details", h("summary", plural(len(slos), "objective")), h("div", table, class_="scroll"))


def _position(view: View, target: str) -> int:
    return view.order.index(target) if target in view.order else len(view.order)


def _slo(event: Happened) -> SloRow | None:
    """None for what an other version wrote."""
    try:
        return msgspec.json.decode(event.data, type=SloRow)
    except msgspec.MsgspecError:
        return None


def _happened(view: View) -> Html:
    shown = [e for e in view.happened if e.event != "verdict"][-SHOWN:]
    if not shown:
        return h("p", "Nothing is recorded: the run is of an older version, or no run is chosen.", class_="muted")
    return h("ol", [_item(each) for each in reversed(shown)], class_="happened")


def _item(each: Happened) -> Html:
    sign: Any = outcome(SIGNS[each.event], " ") if each.event in SIGNS else None
    words = f"the run ended: {each.text.partition(': ')[0]}" if each.event == "run_ended" else each.text
    return h(
        "li", h("time", utc(each.at_ns).split(" ", 1)[1], datetime=stamp(each.at_ns / 1e9)), sign, h("span", words)
    )
