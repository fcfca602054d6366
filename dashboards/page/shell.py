"""What every page has around it: the bar with its places, styles and scripts, the states of what is not there.

Styles and the chart library are the report's own files, so that the two cannot come to look different.
"""

from functools import cache
from hashlib import blake2b
from importlib.resources import files
from urllib.parse import urlencode

from starlette.responses import HTMLResponse

from dashboards.panels import DASHBOARDS
from loadtest.report.markup import Child, Html, h

PLACES = (("/", "Runs"), *((f"/{each.name}", each.title) for each in DASHBOARDS), ("/compare", "Compare"))
OF_A_RUN = ("live", "gpu", "request")
"""Dashboards to which the run that one looks at goes along."""
OF_THE_REPORT = ("uPlot.min.css", "report.css", "uPlot.iife.min.js", "charts.js", "uPlot.LICENSE")
STYLES = ("uPlot.min.css", "report.css", "page.css")
SCRIPTS = ("uPlot.iife.min.js", "charts.js", "shapes.js", "page.js")
TYPES = {"css": "text/css", "js": "text/javascript", "LICENSE": "text/plain"}


@cache
def asset(name: str) -> bytes | None:
    """A file by its name alone, of the report's or of ours; None where there is none."""
    if name in OF_THE_REPORT:
        return files("loadtest.report").joinpath("assets", name).read_bytes()
    found = {f.name: f for f in files("dashboards.page").joinpath("assets").iterdir() if f.is_file()}
    return found[name].read_bytes() if name in found else None


@cache
def address_of(name: str) -> str:
    """Names its content, so that browsers keep it for ever and never too long."""
    return f"/assets/{blake2b(asset(name) or b'', digest_size=6).hexdigest()}/{name}"


def link(path: str, **query: str | int | None) -> str:
    """An address with what is known of its query."""
    known = {name: value for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(known)}" if known else path


def page(title: str, place: str, *children: Child, store: str, run: str = "", status: int = 200) -> HTMLResponse:
    """`place` is the path of the page in the bar; `run` goes along to the other places."""
    head = h(
        "head",
        h("meta", charset="utf-8"),
        h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("meta", name="color-scheme", content="light dark"),
        h("title", f"{title} · loadtest"),
        h("link", rel="icon", href="data:,"),
        [h("link", rel="stylesheet", href=address_of(name)) for name in STYLES],
        [h("script", src=address_of(name), defer=True) for name in SCRIPTS],
    )
    body = h(
        "body",
        h("a", "To the content", href="#content", class_="skip"),
        h(
            "div",
            h("header", _bar(place, run)),
            h("main", h("noscript", _no_script()), *children, id="content", tabindex="-1"),
            h("footer", f"Store {store}. Times are UTC. Charts by uPlot, © Leon Sorokin, MIT licence."),
            class_="page wide",
        ),
    )
    return HTMLResponse(f"<!doctype html>\n{h('html', head, body, lang='en')}\n", status_code=status)


def _bar(place: str, run: str) -> Html:
    places = [
        h(
            "a",
            word,
            href=link(path, run=run) if path[1:] in OF_A_RUN else path,
            aria_current="page" if path == place else None,
        )
        for path, word in PLACES
    ]
    return h(
        "div",
        h("a", "loadtest", href="/", class_="home"),
        h("nav", places, aria_label="Places"),
        h("button", "Theme: auto", id="theme", type="button", hidden=True),
        class_="bar",
    )


def _no_script() -> Html:
    words = "Charts need scripts, which are off in this browser. The report of a run (loadtest report) needs none."
    return h("div", words, class_="empty")


def title(words: str, *beside: Child, lead: Child = None) -> Html:
    return h("div", h("h1", words), h("div", *beside, class_="beside"), h("p", lead, class_="lead"), class_="title")


def empty(words: str, *more: Child) -> Html:
    """Nothing is there: why, and what to do about it."""
    return h("div", h("p", words), *more, class_="empty")


def failed(words: str) -> Html:
    return h("div", h("p", h("strong", "This could not be read. "), words), class_="empty failed", role="alert")
