"""Errors by word: whose fault, how many, and one of them as it came."""

from loadtest.report.marks import named
from loadtest.report.markup import Html, h
from loadtest.report.model import ErrorRow, Report
from loadtest.report.words import ERROR_MEANINGS, FAULTS, count, plural

DETAIL_LENGTH = 300


def errors(report: Report) -> Html:
    title = h("h2", "What went wrong, and whose fault was it?")
    if not report.errors:
        ended = sum(t.requests for t in report.summary.targets.values())
        words = f"Nothing: {plural(ended, 'request')} ended without an error." if ended else "No request was stored."
        return h("section", title, h("div", words, class_="empty"), id="errors")
    order = {name: index for index, name in enumerate(report.summary.targets)}
    head = [
        ("Error", "left"),
        ("Whose", "left"),
        ("Target", "left"),
        ("Stage", "left"),
        ("Requests", None),
        ("For example", "left"),
    ]
    table = h(
        "table",
        h("thead", h("tr", [h("th", word, scope="col", class_=side) for word, side in head])),
        h("tbody", [_row(row, order.get(row.target, 0)) for row in report.errors]),
        class_="full errors",
    )
    return h("section", title, h("p", LEAD, class_="lead"), h("div", table, class_="scroll"), id="errors")


LEAD = (
    "Faults of the endpoint and the network count in the error rate. Faults of the plan and of the generator are ours:"
    " they are listed, kept out of the rate, and above 1% they make the run INVALID."
)


def _row(row: ErrorRow, index: int) -> Html:
    meaning = ERROR_MEANINGS.get(row.error, "")
    detail = row.detail if len(row.detail) <= DETAIL_LENGTH else row.detail[: DETAIL_LENGTH - 1] + "…"
    return h(
        "tr",
        h("th", h("code", row.error), h("div", meaning, class_="small"), scope="row"),
        h("td", FAULTS.get(row.fault, row.fault), class_="left"),
        h("td", named(index, row.target), class_="left name"),
        h("td", row.stage, class_="left name"),
        h("td", count(row.requests)),
        h(
            "td",
            h("code", detail) if detail else None,
            h("div", f"trace {row.trace_id}", class_="small") if row.trace_id else None,
            class_="left wrap",
        ),
    )
