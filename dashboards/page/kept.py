"""Drawings of runs that are over: their rows no longer change, so that a page that is seen again asks the store for nothing.

Only what is narrowed to runs is kept, and only if all of those ended `SURE_NS` ago or before; for as long as `FOR_S`, since
what is not the runs' own (a price, say) may still change.
"""

import time
from collections import OrderedDict

import msgspec

from dashboards.page.drawing import Drawing, Painter
from dashboards.page.views import View
from dashboards.types import Panel

MOST = 300
FOR_S = 300.0
SURE_NS = 60_000_000_000


class Kept:
    def __init__(self) -> None:
        self._drawings: OrderedDict[bytes, tuple[float, Drawing]] = OrderedDict()  # the longest unused first

    def find(self, panel: Panel, view: View, painter: Painter) -> Drawing | None:
        if not _settled(panel, view):
            return None
        key = _key(panel, painter)
        kept_s, drawing = self._drawings.get(key, (float("-inf"), None))
        if drawing is None or time.monotonic() - kept_s > FOR_S:
            return None
        self._drawings.move_to_end(key)
        return drawing

    def keep(self, panel: Panel, view: View, painter: Painter, drawing: Drawing) -> None:
        if not _settled(panel, view):
            return
        self._drawings[_key(panel, painter)] = (time.monotonic(), msgspec.structs.replace(drawing, took_ms=0))
        while len(self._drawings) > MOST:
            self._drawings.popitem(last=False)


def _settled(panel: Panel, view: View) -> bool:
    known = bool(view.runs) and len(view.runs) == len(view.asked.runs)
    over = known and all(not run.going_on and run.ended_ns < time.time_ns() - SURE_NS for run in view.runs)
    return over and "{run:" in panel.sql


def _key(panel: Panel, painter: Painter) -> bytes:
    return msgspec.json.encode((panel.dashboard, panel.name, painter))
