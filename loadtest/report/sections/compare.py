"""Do the targets differ: the difference of each pair, with its interval over rounds, and what follows."""

from loadtest.metrics import METRICS
from loadtest.report.compare import Comparison, Difference
from loadtest.report.markup import Html, h, text
from loadtest.report.model import Report
from loadtest.report.words import NOT_KNOWN, metric_title, plural, quantity

ROWS = 200
"""More than that do not help anybody; the table of summary.json has all."""


def compare(report: Report) -> Html | None:
    if not report.summary.compare:
        return None
    return h(
        "section",
        h("h2", "Do the targets differ?"),
        [_stage(each) for each in report.summary.compare],
        id="compare",
    )


def _stage(found: Comparison) -> Html:
    title = h("h3", f"Stage {found.stage}")
    if found.note:
        return text(title, h("div", found.note, class_="empty"))
    decided = sum(each.outcome != "undecided" for each in found.differences)
    lead = (
        f"Over {plural(found.rounds, 'round')}, each on a drained endpoint and with the same prompts at the same times to "
        f"each target: the mean difference of a round's figures, and its 95% interval over rounds. Targets differ where "
        f"the interval leaves 0 out: in {decided} of {plural(len(found.differences), 'comparison')} here, of which one in "
        "twenty would do so by chance alone."
    )
    head = (("Figure", "left"), ("Targets", "left"), ("Means", None), ("Difference", None), ("95% interval", None))
    table = h(
        "table",
        h("thead", h("tr", [h("th", word, scope="col", class_=side) for word, side in (*head, ("", "left"))])),
        h("tbody", [_row(each) for each in found.differences[:ROWS]]),
        class_="full",
    )
    return text(title, h("p", lead, class_="lead"), h("div", table, class_="scroll"))


def _row(each: Difference) -> Html:
    unit = METRICS[each.metric].unit
    first, second = each.targets
    means = " and ".join(quantity(mean, unit) for mean in each.means)
    span = NOT_KNOWN
    if each.low is not None and each.high is not None:
        span = f"{quantity(each.low, unit)} to {quantity(each.high, unit)}"
    return h(
        "tr",
        h("th", metric_title(each.metric), f" {each.stat}" if each.stat else None, scope="row"),
        h("td", f"{first} less {second}", class_="left name"),
        h("td", means),
        h("td", quantity(each.difference, unit)),
        h("td", span, class_="small"),
        h("td", each.note or _conclusion(each), class_="left"),
    )


def _conclusion(each: Difference) -> str:
    first, second = each.targets
    if each.outcome == "undecided":
        return "no difference shown"
    better = (each.outcome == "lower") == (METRICS[each.metric].better == "lower")
    return f"{first if better else second} is better"
