"""Server-sent events: each panel as soon as its query is done and, while a run goes on, again once a second.

Watching must not disturb: while a run writes to the store, its queries are asked one after the other (reader.py), cover the
time range that is shown and no more, and together take at most `SHARE` of each second. Where they would take more, panels
take turns. Panels in sight, which the page names, come first; what a run that is over has to show is kept (kept.py).
"""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import msgspec

from dashboards.page import status, views
from dashboards.page.drawing import Drawing, Painter
from dashboards.page.kept import Kept
from dashboards.page.reader import AT_ONCE, Reader
from dashboards.page.views import Asked, View
from dashboards.types import Panel
from loadtest.store import Store, StoreError

EVERY_S = 1.0
SHARE = 0.5


async def events(reader: Reader, kept: Kept, asked: Asked, in_sight: list[str]) -> AsyncIterator[bytes]:
    """`status`, then `panel` for each, `options`; and `end` when nothing more will change."""
    sent: dict[str, bytes] = {}
    first = True
    while not reader.is_over():
        began = time.monotonic()
        try:
            view = await reader.ask(partial(views.view, asked=asked, now_ns=time.time_ns()))
        except StoreError as e:
            yield event("failed", {"words": str(e)})
            await reader.rest(EVERY_S)
            continue
        yield event("status", status.told(view))
        painter = Painter(view.selection, view.order, view.marks, view.objectives)
        panels = sorted(asked.panels, key=lambda panel: panel.name not in in_sight)
        async for panel, drawing in _drawn(reader, kept, view, painter, panels):
            yield _panel(panel, drawing, sent)
            if not first:
                await reader.rest(drawing.took_ms / 1e3 * (1 / SHARE - 1))
        if reader.is_over():
            return
        if first:
            try:
                yield event("options", await reader.ask(partial(views.options, view=view), beside=not view.busy))
            except StoreError as e:
                yield event("failed", {"words": str(e)})
        if not view.live:
            yield event("end", {})
            return
        first = False
        await reader.rest(max(0.0, began + EVERY_S - time.monotonic()))


async def _drawn(
    reader: Reader, kept: Kept, view: View, painter: Painter, panels: list[Panel]
) -> AsyncIterator[tuple[Panel, Drawing]]:
    """Each as soon as it is done; as many at once as may be."""
    at_once = 1 if view.busy else AT_ONCE
    waiting = iter(panels)
    asked: dict[asyncio.Task[Drawing], Panel] = {}

    async def drawing_of(panel: Panel) -> Drawing:
        if known := kept.find(panel, view, painter):
            return known
        try:
            drawing = await reader.ask(partial(draw, panel=panel, painter=painter), beside=not view.busy)
        except StoreError as e:  # a panel whose query fails says so; the others go on
            return Drawing(panel.name, "failed", str(e))
        kept.keep(panel, view, painter, drawing)
        return drawing

    try:
        while not reader.is_over():
            while len(asked) < at_once and (panel := next(waiting, None)):
                asked[asyncio.create_task(drawing_of(panel))] = panel
            if not asked:
                return
            done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield asked.pop(task), task.result()
    finally:
        for task in asked:
            task.cancel()


def _panel(panel: Panel, drawing: Drawing, sent: dict[str, bytes]) -> bytes:
    """Nothing where it shows what was sent before."""
    content = msgspec.json.encode(msgspec.structs.replace(drawing, took_ms=0))
    if sent.get(panel.name) == content:
        return b": unchanged\n\n"
    sent[panel.name] = content
    return event("panel", drawing)


def draw(store: Store, panel: Panel, painter: Painter) -> Drawing:
    began = time.perf_counter()
    rows = store.query(panel.sql, painter.selection.params())
    took_ms = 1e3 * (time.perf_counter() - began)
    drawing = painter.draw(panel, rows)
    drawing.took_ms = round(took_ms, 1)
    return drawing


def event(name: str, content: Any) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(content) + b"\n\n"
