"""The integrity account: what became of every request that should have been sent."""

from loadtest.report.headline import warm_up_line
from loadtest.report.marks import outcome
from loadtest.report.markup import Html, h
from loadtest.report.model import Integrity, Report
from loadtest.report.words import count, listing

MISSED_BECAUSE = {
    "cap": "above a target's max_in_flight",
    "worker_lost": "while a worker was down",
}


def account(report: Report) -> Html:
    own = report.summary.integrity
    warm_up = warm_up_line(report.summary)
    return h(
        "section",
        h("h2", "Was every request accounted for?"),
        h("p", _answer(own), class_="lead"),
        h(
            "div",
            _sum(
                [
                    (own.scheduled, "scheduled", ""),
                    (own.sent, "sent", ""),
                    _loss(own.missed, "missed"),
                    _loss(own.unknown, "unknown"),
                ]
            ),
            _sum([(own.sent, "sent", ""), (own.stored, "stored", ""), _loss(own.lost, "lost")]),
            class_="account",
        ),
        h("p", f"{warm_up}.", class_="small note") if warm_up else None,
        id="account",
    )


def _answer(own: Integrity) -> Html | str:
    if not own.adds_up:
        return h(
            "span", outcome("breached", "No"), " The account does not add up: the figures below may leave requests out."
        )
    if not own.missed and not own.unknown and not own.lost:
        return "Yes: every scheduled request was sent, and every answer is stored."
    causes = [f"{count(n)} missed {MISSED_BECAUSE.get(why, why)}" for why, n in own.missed_by.items() if n]
    told = f" {listing(causes).capitalize()}." if causes else ""
    return f"Yes: the account adds up.{told}"


def _loss(n: int, word: str) -> tuple[int, str, str]:
    return n, word, "loss" if n else "zero"


def _sum(terms: list[tuple[int, str, str]]) -> Html:
    """`first = second + third ...`"""
    out: list[Html] = []
    for position, (n, word, kind) in enumerate(terms):
        if position:
            out.append(h("i", "=" if position == 1 else "+"))
        out.append(h("div", h("b", count(n)), h("span", word), class_=kind or None))
    return h("div", out, class_="sum")
