"""Prometheus' text format, read again and again from one source.

prometheus-client is the reference: whatever a line says is what its parser says of it. It takes 27 us a line, most of
them for the labels, which are the same each second. So a line is cut into its series (all before the value) and its
value; what a series means is asked once and kept. Reading 2,000 known lines takes about a millisecond.
"""

import re
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

MOST_SERIES = 50_000
"""Remembered of one source: one that renames its series for ever must not fill the memory."""
_TYPE = re.compile(r"^#[ \t]+TYPE[ \t]+(\S+)[ \t]+(\w+)", re.MULTILINE)
_SUFFIXES = ("_total", "_bucket", "_sum", "_count", "_created", "_info")
T = TypeVar("T")
Describe = Callable[[str, Mapping[str, str], str], T | None]
"""(name, labels, type) -> what the series is to the caller; None: nothing, its values are skipped. The type is that of
its family: gauge, counter, histogram ..., `untyped` where the source does not say."""


class Malformed(ValueError):
    """Not the text format."""


class Exposition(Generic[T]):
    """Remembers the series of one source."""

    def __init__(self, describe: Describe[T]) -> None:
        self._describe = describe
        self._known: dict[str, T | None] = {}
        self._types: dict[str, str] | None = None

    def read(self, text: str) -> list[tuple[T, float]]:
        """What is described, with its value, in the order of the text. Raises Malformed."""
        if len(self._known) > MOST_SERIES:
            self._known.clear()
        self._types = None
        known, out = self._known, []
        for line in text.split("\n"):
            if not line or line[0] == "#":
                continue
            series, _, value = line.rpartition(" ")
            if series in known and value:
                if (what := known[series]) is not None:
                    out.append((what, _number(value)))
            elif (found := self._slowly(line.strip(), text)) is not None:
                out.append(found)
        return out

    def _slowly(self, line: str, text: str) -> tuple[T, float] | None:
        """A line that is new, has a timestamp, or is spaced as nobody spaces them."""
        if not line or line[0] == "#":
            return None
        end = line.rfind("}") + 1
        series = line[:end] if end else re.split(r"[ \t]", line, maxsplit=1)[0]
        rest = line[len(series) :].split()
        if series in self._known and rest:
            what, value = self._known[series], _number(rest[0])
        else:
            sample = _parsed(line)
            what, value = self._describe(sample.name, sample.labels, self._type(sample.name, text)), sample.value
            if _is_series(series, sample):  # and not the head of a line that goes on after another brace
                self._known[series] = what
        return None if what is None else (what, value)

    def _type(self, name: str, text: str) -> str:
        if self._types is None:
            self._types = dict(_TYPE.findall(text))
        families = (name, *(name.removesuffix(suffix) for suffix in _SUFFIXES))
        return next((self._types[family] for family in families if family in self._types), "untyped")


def _number(text: str) -> float:
    try:
        if "_" not in text:  # which Python would take for a separator of thousands
            return float(text)
    except ValueError:
        pass
    raise Malformed(f"{text[:40]!r} is no number")


def _parsed(line: str) -> Sample:
    try:
        [family] = text_string_to_metric_families(line + "\n")
        [sample] = family.samples
    except (ValueError, IndexError):
        raise Malformed(f"{line[:80]!r} is no line of Prometheus' text format") from None
    if not isinstance(sample.value, int | float) or (isinstance(sample.value, int) and abs(sample.value) > 1e300):
        raise Malformed(f"{line[:80]!r} has no value that fits a double")
    return sample._replace(value=float(sample.value))


def _is_series(text: str, sample: Sample) -> bool:
    try:
        alone = _parsed(f"{text} 1")
    except Malformed:
        return False
    return (alone.name, alone.labels, alone.value) == (sample.name, sample.labels, 1.0)
