"""What is in flight: Locust's events tell of a request when it has ended, and not at all of one that its user was killed in.

So the two clients that Locust brings are watched at their one door, `request`. What a user of them was killed in the middle
of becomes a Result like any other, `cancelled`: an endpoint that hangs must not vanish with the users who waited for it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Protocol
from urllib.parse import urlsplit

import gevent
from locust.clients import HttpSession
from locust.contrib.fasthttp import FastHttpSession
from msgspec import Struct


class Flight(Struct, eq=False):
    name: str  # as its event will most likely have it: GET /basket
    started_ns: int
    url: str = ""


Cancelled = Callable[[Flight], None]


class Session(Protocol):
    request_name: str | None

    def _build_url(self, path: str) -> str: ...


class Flights:
    """`cancelled` is told of those that were cut short."""

    def __init__(self, cancelled: Cancelled) -> None:
        self._cancelled = cancelled
        self._flying: dict[int, Flight] = {}

    def __iter__(self) -> Iterator[Flight]:
        return iter(list(self._flying.values()))

    def __len__(self) -> int:
        return len(self._flying)

    @contextmanager
    def of(self, name: str, url: str = "") -> Iterator[None]:
        flight = Flight(name, time.time_ns(), url)
        self._flying[id(flight)] = flight
        try:
            yield
        except (gevent.GreenletExit, gevent.Timeout):
            self._cancelled(flight)
            raise
        finally:
            del self._flying[id(flight)]

    def watch_clients(self) -> None:
        for client in (HttpSession, FastHttpSession):
            client.request = self._watched(client.request)

    def _watched(self, request: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(request)
        def watched(session: Session, method: str, url: str, name: str | None = None, *args: Any, **more: Any) -> Any:
            whole = session._build_url(url)
            with self.of(target_name(method, name or session.request_name or _path(whole)), whole):
                return request(session, method, url, name, *args, **more)

        return watched


def _path(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def target_name(request_type: object, name: object) -> str:
    """What a request is grouped by, as in Locust's own table: its type and its name, on one line."""
    return " ".join(f"{request_type or ''} {name or ''}".split())[:200]
