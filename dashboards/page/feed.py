"""Server-sent events: each panel as soon as its query is done and, while a run goes on, again once a second.

Watching must not disturb: all queries go through one thread (reader.py), cover the time range that is shown and no more,
and together take at most `SHARE` of each second. Where they would take more, panels take turns.
"""

import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import msgspec

from dashboards.page import status, views
from dashboards.page.drawing import Drawing, Painter
from dashboards.page.reader import Reader
from dashboards.page.views import Asked, View
from dashboards.types import Panel
from loadtest.store import Store, StoreError

EVERY_S = 1.0
SHARE = 0.5


async def events(reader: Reader, asked: Asked) -> AsyncIterator[bytes]:
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
        async for panel, took_s in _panels(reader, view, sent):
            yield panel
            if not first and took_s > 0:
                await reader.rest(took_s * (1 / SHARE - 1))
        if reader.is_over():
            return
        if first:
            try:
                yield event("options", await reader.ask(partial(views.options, view=view)))
            except StoreError as e:
                yield event("failed", {"words": str(e)})
        if not view.live:
            yield event("end", {})
            return
        first = False
        await reader.rest(max(0.0, began + EVERY_S - time.monotonic()))


async def _panels(reader: Reader, view: View, sent: dict[str, bytes]) -> AsyncIterator[tuple[bytes, float]]:
    """Those that changed, and for how long each kept the store busy."""
    painter = Painter(view.selection, view.order, view.marks)
    for panel in view.asked.panels:
        if reader.is_over():
            return
        drawing = await reader.ask(partial(draw, panel=panel, painter=painter))
        took_s, drawing.took_ms = drawing.took_ms / 1e3, 0
        content = msgspec.json.encode(drawing)
        if sent.get(panel.name) == content:
            yield b": unchanged\n\n", took_s
            continue
        sent[panel.name] = content
        yield event("panel", msgspec.structs.replace(drawing, took_ms=round(1e3 * took_s, 1))), took_s


def draw(store: Store, panel: Panel, painter: Painter) -> Drawing:
    """A panel whose query fails says so; the others go on."""
    began = time.perf_counter()
    try:
        rows = store.query(panel.sql, painter.selection.params())
    except StoreError as e:
        return Drawing(panel.name, "failed", str(e))
    took_ms = 1e3 * (time.perf_counter() - began)
    drawing = painter.draw(panel, rows)
    drawing.took_ms = took_ms
    return drawing


def event(name: str, content: Any) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(content) + b"\n\n"
