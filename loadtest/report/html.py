"""report.html: one file, no network, readable without scripts, printable.

`load` asks the store (gather.py), `render` is pure. Styles, the chart library and the data are inlined; a content
security policy lets nothing else run: scripts and styles are named by their hash, so that markup that slipped in could
not execute.
"""

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from loadtest.report.gather import gather as load
from loadtest.report.markup import Html, h
from loadtest.report.model import Report
from loadtest.report.sections.account import account
from loadtest.report.sections.compare import compare
from loadtest.report.sections.errors import errors
from loadtest.report.sections.gpu import gpu
from loadtest.report.sections.method import method
from loadtest.report.sections.objectives import objectives
from loadtest.report.sections.opening import opening
from loadtest.report.sections.others import others
from loadtest.report.sections.provenance import provenance
from loadtest.report.sections.stages import stages
from loadtest.report.sections.targets import targets
from loadtest.report.sections.vantages import vantages

__all__ = ["load", "render"]

SECTIONS = (opening, account, targets, vantages, compare, objectives, stages, gpu, errors, others, provenance, method)
"""The page from top to bottom."""

STYLES = ("uPlot.min.css", "report.css")
SCRIPTS = ("uPlot.iife.min.js", "charts.js", "report.js")
NAVIGATION = (
    ("verdict", "Verdict"),
    ("targets", "Targets"),
    ("objectives", "Objectives"),
    ("stages", "Charts"),
    ("gpu", "GPUs"),
    ("errors", "Errors"),
    ("others", "Others"),
    ("provenance", "Evidence"),
    ("method", "Method"),
)


def render(report: Report) -> str:
    """The whole page."""
    style = "\n".join(asset(name) for name in STYLES)
    script = "\n".join(asset(name) for name in SCRIPTS)
    head = h(
        "head",
        h("meta", charset="utf-8"),
        h("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("meta", name="color-scheme", content="light dark"),
        h("title", f"{report.summary.plan} · loadtest report"),
        h("style", Html(style)),
    )
    page = h("div", _bar(report), h("main", [section(report) for section in SECTIONS]), _footer(report), class_="page")
    return f"<!doctype html>\n{h('html', head, h('body', page, h('script', Html(script))), lang='en')}\n"


def asset(name: str) -> str:
    return files("loadtest.report").joinpath("assets", name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )


def _hash(source: str) -> str:
    return f"'sha256-{b64encode(sha256(source.encode()).digest()).decode()}'"


def _bar(report: Report) -> Html:
    links = [h("a", word, href=f"#{ident}") for ident, word in NAVIGATION]
    theme = h("button", "Theme: auto", id="theme", type="button", hidden=True)
    return h(
        "div",
        h("strong", "loadtest"),
        h("span", report.summary.plan),
        h("nav", links, aria_label="Sections"),
        theme,
        class_="bar",
    )


def _footer(report: Report) -> Html:
    return h(
        "footer", f"Run {report.summary.run}. Charts by uPlot, © Leon Sorokin, MIT licence. This file needs no network."
    )
