"""From where it was seen: a row a stage, target and vantage point, where the plan's fleet has regions."""

from loadtest.report.markup import Html, h
from loadtest.report.model import Report, Stat, Vantage
from loadtest.report.words import count, percent, quantity

LEAD = (
    "The workers of each region made an equal share of one schedule, so that what differs here is the way to the endpoint. "
    "Figures are of the successes, p50 and p99; connecting counts where a connection was made."
)


def vantages(report: Report) -> Html | None:
    if not report.summary.vantages:
        return None
    head = (("Stage", "left"), ("Target", "left"), ("From", "left"), ("Requests", None), ("Errors", None),
            ("Connecting", None), ("First token", None), ("Whole answer", None))  # fmt: skip
    table = h(
        "table",
        h("thead", h("tr", [h("th", word, scope="col", class_=side) for word, side in head])),
        h("tbody", [_row(each) for each in report.summary.vantages]),
        class_="full",
    )
    return h(
        "section",
        h("h2", "How does it look from each region?"),
        h("p", LEAD, class_="lead"),
        h("div", table, class_="scroll"),
        id="vantages",
    )


def _row(each: Vantage) -> Html:
    return h(
        "tr",
        h("th", each.stage, scope="row"),
        h("td", each.target, class_="left name"),
        h("td", each.vantage, class_="left name"),
        h("td", count(each.requests)),
        h("td", percent(each.error_rate)),
        [h("td", _pair(stat)) for stat in (each.connect_ms, each.ttft_ms, each.e2e_ms)],
    )


def _pair(stat: Stat) -> str:
    return f"{quantity(stat.p50, 'ms')}, {quantity(stat.p99, 'ms')}"
