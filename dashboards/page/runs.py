"""The runs of a store, newest first: which go on, how the others ended, two of them to compare."""

from dashboards.page.shell import empty, link
from loadtest.history import Counted, Listed
from loadtest.report.headline import State
from loadtest.report.marks import outcome
from loadtest.report.markup import Html, h
from loadtest.report.words import NOT_KNOWN, count, percent, seconds, utc

HEADS = (
    ("", None),
    ("Run", "left"),
    ("Plan", "left"),
    ("Targets", "left"),
    ("Started, UTC", "left"),
    ("Took", None),
    ("Requests", None),
    ("Failed", None),
    ("Ended", "left"),
)
STATES: dict[str, State] = {"met": "met", "breached": "breached", "undecided": "undecided", "INVALID": "invalid"}


def table(runs: list[Listed], counts: dict[str, Counted], more: bool) -> Html:
    """A form: two runs are chosen in it and compared."""
    if not runs:
        example = h("p", "loadtest run PLAN makes one: ", h("code", "loadtest run examples/simulated.yaml"))
        return empty("No run is in this store yet.", example)
    head = [h("th", word or h("span", "Compare", class_="unseen"), scope="col", class_=side) for word, side in HEADS]
    body = [_row(run, counts.get(run.run, Counted())) for run in runs]
    older = h("p", h("a", "Older runs", href=link("/", before=runs[-1].started_ns)), class_="note") if more else None
    return h(
        "form",
        h("div", h("table", h("thead", h("tr", head)), h("tbody", body), class_="full runs"), class_="scroll"),
        h("div", h("button", "Compare the two chosen", id="compare"), class_="below"),
        older,
        action="/compare",
        method="get",
    )


def _row(run: Listed, counts: Counted) -> Html:
    choose = h("input", type="checkbox", name="run", value=run.run, aria_label=f"Compare {run.run}")
    return h(
        "tr",
        h("td", choose),
        h("th", h("a", run.run, href=link("/live", run=run.run)), scope="row"),
        h(
            "td",
            run.plan_name,
            h("span", f" {run.kind}", class_="small") if run.kind != "load" else None,
            class_="left name",
        ),
        h("td", ", ".join(run.targets), class_="left name"),
        h("td", utc(run.started_ns).removesuffix(" UTC"), class_="left"),
        h("td", seconds((run.ended_ns - run.started_ns) / 1e9)),
        h("td", count(counts.requests)),
        h("td", NOT_KNOWN if counts.failed_share is None else percent(counts.failed_share)),
        h("td", ended(run), class_="left wrap"),
        class_="going-on" if run.going_on else None,
    )


def ended(run: Listed) -> Html:
    """How a run ended, in shape, colour and word."""
    if run.going_on:
        return h("span", h("span", class_="pulse", aria_hidden="true"), "goes on", class_="outcome running")
    state = STATES.get(run.result, "none")
    words = "" if run.result in STATES else run.ended
    return h("span", outcome(state, words), h("span", f" {run.told}", class_="small") if run.told else None)
