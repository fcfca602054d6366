"""Addresses and what answers them. Whatever a page shows is in its address, so that an address can be sent to somebody."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from dashboards.page import compare, feed, runs, shell, views
from dashboards.page.board import board
from dashboards.page.guard import Guard
from dashboards.page.kept import Kept
from dashboards.page.reader import Reader
from dashboards.panels import DASHBOARDS
from loadtest import history
from loadtest.report.markup import Child, Html, h
from loadtest.report.words import plural
from loadtest.store import Store, StoreError

OF_A_RUN = ("live", "gpu")
"""Dashboards that show one run: the newest where none is named. Probes go on all the time, beside it."""
FOR_EVER = "public, max-age=31536000, immutable"


def app(reader: Reader, token: str | None) -> ASGIApp:
    """The page over a store. Without a token it answers to loopback's names only."""
    pages = Pages(reader)
    routes = [
        Route("/", pages.runs),
        Route("/assets/{version}/{name}", asset),
        Route("/events/{name}", pages.events),
        Route("/compare", pages.compare),
        Route("/compare/figures", pages.compared),
        *(Route(f"/{each.name}", pages.dashboard, name=each.name) for each in DASHBOARDS),
    ]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        reader.close()

    handlers = {StoreError: pages.store_failed, views.WrongAddress: pages.wrong_address, 404: pages.not_found}
    return Guard(Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan), token)


async def asset(request: Request) -> Response:
    name = request.path_params["name"]
    content = shell.asset(name)
    if content is None:
        return PlainTextResponse("There is no such file.\n", status_code=404)
    kind = shell.TYPES.get(name.rpartition(".")[2], "text/plain")
    return Response(content, media_type=kind, headers={"Cache-Control": FOR_EVER})


class Pages:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._kept = Kept()

    async def runs(self, request: Request) -> Response:
        before_ns = _integer(request, "before", history.FOREVER_NS)
        found, counts = await self._reader.ask(partial(_runs, before_ns=before_ns))
        shown, more = found[: history.A_PAGE], len(found) > history.A_PAGE
        live = sum(run.going_on for run in shown)
        lead = f"{plural(live, 'run')} {'goes' if live == 1 else 'go'} on." if live else None
        return self._page("Runs", "/", shell.title("Runs", lead=lead), runs.table(shown, counts, more))

    async def dashboard(self, request: Request) -> Response:
        name = request.url.path[1:]
        query = request.query_params.multi_items()
        asked = views.asked(name, query)
        if name in OF_A_RUN and not asked.runs:
            known = await self._reader.ask(history.listed)
            if known:
                newest = next((run for run in known if run.kind != "probe"), known[0])
                return RedirectResponse(f"/{name}?{urlencode([('run', newest.run), *query])}", status_code=303)
            words = "No run is in this store yet. loadtest run PLAN makes one, and this page shows it while it goes on."
            return self._page(asked.dashboard.title, f"/{name}", shell.title(asked.dashboard.title), shell.empty(words))
        run = asked.runs[0] if asked.runs else ""
        return self._page(asked.dashboard.title, f"/{name}", board(asked, query), run=run)

    async def events(self, request: Request) -> Response:
        query = request.query_params
        try:
            asked = views.asked(request.path_params["name"], query.multi_items())
        except views.NoDashboard as e:
            return PlainTextResponse(f"{e}\n", status_code=404)
        events = feed.events(self._reader, self._kept, asked, query.getlist("sight"))
        return StreamingResponse(events, media_type="text/event-stream")

    async def compare(self, request: Request) -> Response:
        chosen = list(filter(None, request.query_params.getlist("run")))
        known = await self._reader.ask(history.listed)
        children: list[Child] = [shell.title("Two runs compared"), _choice(known, chosen)]
        if len(chosen) == 2:
            part = f"/compare/figures?{urlencode([('run', name) for name in chosen])}"
            children.append(h("div", data_part=part, aria_busy="true", aria_live="polite"))
        elif len(known) < 2:
            children.append(shell.empty("There are no two runs in this store yet. loadtest run PLAN makes them."))
        else:
            children.append(shell.empty("Choose two runs: their plans and figures are then shown beside each other."))
        return self._page("Compare", "/compare", *children)

    async def compared(self, request: Request) -> Response:
        names = request.query_params.getlist("run")
        if len(names) != 2:
            return HTMLResponse(shell.failed("Two runs are compared, no more and no fewer."), status_code=400)
        try:
            part = await self._reader.ask(partial(compare.compared, names=(names[0], names[1])))
        except StoreError as e:
            part = shell.failed(str(e))
        return HTMLResponse(part)

    async def wrong_address(self, _: Request, error: Exception) -> Response:
        return self._page(
            "Wrong address", "", shell.title("This address cannot be read"), shell.failed(str(error)), status=400
        )

    async def store_failed(self, _: Request, error: Exception) -> Response:
        return self._page(
            "No answer", "", shell.title("The store does not answer"), shell.failed(str(error)), status=503
        )

    async def not_found(self, request: Request, _: Exception) -> Response:
        words = f"There is nothing at {request.url.path}. The places above are all there are."
        return self._page("Not found", "", shell.title("Not found"), shell.empty(words), status=404)

    def _page(self, title: str, place: str, *children: Child, run: str = "", status: int = 200) -> Response:
        return shell.page(title, place, *children, store=self._reader.where, run=run, status=status)


def _runs(store: Store, before_ns: int) -> tuple[list[history.Listed], dict[str, history.Counted]]:
    found = history.listed(store, before_ns, history.A_PAGE + 1)
    return found, history.counted(store, found[: history.A_PAGE])


def _choice(known: list[history.Listed], chosen: list[str]) -> Html:
    """Two selects, A and B."""
    names = list(dict.fromkeys([*chosen, *(run.run for run in known)]))
    plans = {run.run: run.plan_name for run in known}
    selects = [
        h(
            "label",
            h("span", f"Run {letter}"),
            h(
                "select",
                h("option", "choose one", value=""),
                [h("option", f"{name} {plans.get(name, '')}", value=name, selected=name == at) for name in names],
                name="run",
            ),
        )
        for letter, at in zip("AB", (*chosen[:2], "", ""), strict=False)
    ]
    return h("form", selects, h("button", "Compare"), id="controls", method="get", role="search", aria_label="Two runs")


def _integer(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else default
