"""The units of panels, as they are written: a suffix, and how a number is brought to it."""

import math
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from dashboards.types import Unit
from loadtest.report.words import NOT_KNOWN, count, sig3


class Shown(Struct, frozen=True):
    """`axis` names the unit beside a chart; a value is multiplied by `factor` and followed by `suffix`."""

    axis: str
    suffix: str
    factor: float = 1
    exact: bool = False  # counts are not rounded

    def scaled(self, value: Any) -> float | None:
        return value * self.factor if isinstance(value, int | float) and not math.isnan(value) else None

    def text(self, value: Any) -> str:
        """With its unit."""
        return self.scaled_text(self.scaled(value))

    def scaled_text(self, value: float | None) -> str:
        if value is None:
            return NOT_KNOWN
        figure = count(round(value)) if self.exact and float(value).is_integer() else sig3(value)
        joined = self.suffix if self.suffix == "%" else f" {self.suffix}"
        return f"{figure}{joined}" if self.suffix else figure


UNITS: dict[Unit, Shown] = {
    "ms": Shown("ms", "ms"),
    "s": Shown("seconds", "s"),
    "1/s": Shown("per second", "/s"),
    "tokens/s": Shown("tokens per second", "tokens/s"),
    "share": Shown("%", "%", 100),
    "percent": Shown("%", "%"),
    "count": Shown("", "", 1, True),
    "W": Shown("watts", "W"),
    "C": Shown("degrees Celsius", "°C"),
    "Hz": Shown("MHz", "MHz", 1e-6),
    "J/token": Shown("joules per token", "J/token"),
    "money/Mtok": Shown("price per million tokens", "per M tokens"),
    "hour": Shown("hour of day, UTC", "h"),
    "state": Shown("", ""),
    "": Shown("", "", 1, True),
}
SIZES = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def shown(unit: Unit, values: Sequence[Any]) -> Shown:
    """Bytes take the prefix that suits the largest of the values."""
    if unit != "bytes":
        return UNITS[unit]
    most = max((value for value in values if isinstance(value, int | float)), default=0)
    name, size = next(((name, size) for name, size in SIZES if most >= size), ("bytes", 1))
    return Shown(name, name, 1 / size)
