"""The validity rules, each with what was measured and the limit it was held to."""

from loadtest.report.marks import outcome
from loadtest.report.markup import Html, h
from loadtest.report.model import Summary
from loadtest.report.words import NOT_KNOWN
from loadtest.validity import RULES, Judged, shown


def rules(summary: Summary) -> Html | None:
    judged = [each for each in summary.validity.rules if each.rule in RULES]
    if not judged:
        return None
    head = (("Rule", "left"), ("", "left"), ("Measured", None), ("INVALID above", None), ("Worst in", "left"))
    table = h(
        "table",
        h("thead", h("tr", [h("th", word, scope="col", class_=side) for word, side in head])),
        h("tbody", [_row(each) for each in judged]),
        class_="full",
    )
    own = ", ".join(each.rule for each in judged if each.limit != each.default)
    words = "Whether the run counts: every rule, what was measured and its limit"
    return h("details", h("summary", f"{words}. The plan set those of {own}" if own else words), _scroll(table))


def _scroll(table: Html) -> Html:
    return h("div", table, class_="scroll")


def _row(each: Judged) -> Html:
    rule = RULES[each.rule]
    whose = f"set by the plan, not {shown(each.default, rule.unit)}" if each.limit != each.default else None
    return h(
        "tr",
        h("th", h("code", each.rule), h("div", rule.doc.replace("`", ""), class_="small"), scope="row"),
        h("td", outcome("invalid" if each.broken else "met", "broken" if each.broken else "kept"), class_="left"),
        h("td", shown(each.value, rule.unit)),
        h("td", shown(each.limit, rule.unit), h("div", whose, class_="small") if whose else None),
        h("td", each.where if each.where and each.value else NOT_KNOWN, class_="left"),
    )
