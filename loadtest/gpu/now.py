"""What the devices of each target do at this moment, for whoever looks at a run while it goes on.

A value that may be older than the plan's `stale_s` is not shown as if it were of now: its age is. What no source gives is
not provided, which is not 0.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from loadtest.gpu.figures import SUMMED
from loadtest.progress import DevicesNow
from loadtest.types import Gpu

if TYPE_CHECKING:
    from loadtest.gpu.scrape import Scrape

LOOK_EVERY_S = 0.5
FIELDS = {
    "hw.gpu.utilization": "utilization",
    "hw.power": "power_w",
    "engine.kv_cache_utilization": "kv_cache",
    "engine.queue_length": "queue",
}


class Now:
    """Called, it says how things are: worked out anew at most twice a second, however often it is asked."""

    def __init__(self, latest: Mapping[str, "Scrape"], gpu: Gpu, targets: Sequence[str]) -> None:
        """`latest` goes on changing."""
        self._latest = latest
        self._gpu = gpu
        self._targets = targets
        self._looked_s = float("-inf")
        self._seen: list[DevicesNow] = []

    def __call__(self) -> list[DevicesNow]:
        if time.monotonic() - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = time.monotonic()
            self._seen = list(seen(dict(self._latest), self._gpu, self._targets, time.time_ns()))
        return self._seen


def seen(latest: Mapping[str, "Scrape"], gpu: Gpu, targets: Sequence[str], now_ns: int) -> Iterator[DevicesNow]:
    """Of each target that some source was asked about: of all its devices together, or their mean, as in the report."""
    values: dict[str, dict[str, list[float]]] = {}
    oldest_s: dict[str, float] = {}
    for scrape in latest.values():
        for series, value in scrape.samples:
            if (field := FIELDS.get(series.name)) is None:
                continue
            at_ns = scrape.from_ns if series.hardware and scrape.from_ns else scrape.at_ns
            age_s = max(now_ns - at_ns, 0) / 1e9
            for target in series.attributes.get("loadtest.target", "").split(","):
                if age_s > gpu.stale_s:
                    oldest_s[target] = max(age_s, oldest_s.get(target, 0))
                else:
                    values.setdefault(target, {}).setdefault(field, []).append(value)
    summed = {FIELDS[name] for name in FIELDS if name in SUMMED}
    for target in targets:
        asked = [source.name for source in gpu.sources if target in source.targets and source.name in latest]
        if not asked:
            continue
        known = {
            field: sum(some) / (1 if field in summed else len(some)) for field, some in values.get(target, {}).items()
        }
        failed = {name: latest[name].error for name in asked if latest[name].error}
        yield DevicesNow(target=target, stale_s=oldest_s.get(target), failed=failed, **known)
