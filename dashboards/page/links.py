"""Addresses of the page's dashboards: what is selected stands in the query, and links carry it on."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from msgspec import Struct

from dashboards.types import Link, Selection

SEVERAL = ("run", "target", "model", "region", "stage", "kind")


class Target(Struct):
    """Where a point leads: `query` is complete but for the time range, which lies `around_s` around the point's time."""

    title: str
    path: str
    query: list[tuple[str, str]]
    around_s: int | None

    def at(self, time: datetime | None) -> str:
        query = list(self.query)
        if self.around_s is not None and time is not None:
            at = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
            query += [("from", stamp(at - self.around_s)), ("to", stamp(at + self.around_s))]
        place = "#chunks" if any(name == "trace" for name, _ in query) else ""  # one request is shown below the others
        return (f"{self.path}?{urlencode(query)}" if query else self.path) + place


def stamp(seconds: float) -> str:
    """A moment as an address has it."""
    at = datetime.fromtimestamp(seconds, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}" + (f".{at.microsecond // 1000:03d}" if at.microsecond else "") + "Z"


def following(link: Link, row: Mapping[str, Any], selection: Selection) -> Target:
    """The link of a row: the selection goes along, but for what the row says."""
    taken = {name: _taken(source, row) for name, source in link.take.items()}
    query: list[tuple[str, str]] = []
    for name in SEVERAL:
        chosen = [taken.pop(name)] if name in taken else getattr(selection, name)
        query += [(name, value) for value in chosen if value]
    query += [(name, value) for name, value in taken.items() if value]
    if link.between:
        query += [(name, stamp(row[column] / 1000)) for name, column in zip(("from", "to"), link.between, strict=True)]
    elif link.around_s is None:
        query += [("from", stamp(selection.from_ns / 1e9)), ("to", stamp(selection.to_ns / 1e9))]
    return Target(link.title, f"/{link.to}", query, link.around_s)


def _taken(source: str, row: Mapping[str, Any]) -> str:
    if source[:1] in "'\"" and source[:1] == source[-1:]:
        return source[1:-1]
    value = row.get(source)
    return "" if value is None else str(value)
