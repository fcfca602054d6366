"""Who may see the page: on loopback whoever is on this machine, anywhere else whoever brings the token.

A browser can be talked into asking 127.0.0.1 by any site whose name is made to resolve there; so on loopback the Host
header must name loopback. The token is in the URL that the terminal shows; its first use puts a cookie in its place and
takes it out of the address bar. Nothing here is written to a log.
"""

import secrets
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loadtest.report.markup import h

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def is_loopback(host: str) -> bool:
    """By address: a name such as 127.0.0.1.rebound.example is anybody's."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """The outermost application: refuses, or passes on and adds the headers of every answer."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        """Without a token only loopback's own names are answered to."""
        self._app = app
        self._token = token
        self._cookie = secrets.token_urlsafe(
            24
        )  # not the token: who reads a cookie jar cannot make another one with it

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = self._refusal(scope, Headers(scope=scope))
        await (answer or self._app)(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        if self._token is None:
            return None if is_loopback(_host(headers.get("host", ""))) else _wrong_host()
        name = _cookie_name(scope)
        if secrets.compare_digest(_cookie(headers, name).encode(), self._cookie.encode()):
            return self._without_token(scope, None)
        given = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("token", "")
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._fits(bearer):
            return None
        return self._without_token(scope, name) if self._fits(given) else _sign_in(wrong=bool(given))

    def _fits(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), (self._token or "").encode())

    def _without_token(self, scope: Scope, cookie: str | None) -> Response | None:
        """To the same page without the token in its address; None where there is none in it."""
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        rest = [(key, value) for key, value in pairs if key != "token"]
        if len(rest) == len(pairs):
            return None
        path = "/" + quote(scope["path"].lstrip("/"), safe="/-._~")  # two slashes at the start would name another host
        answer = RedirectResponse(path + (f"?{urlencode(rest)}" if rest else ""), status_code=303)
        if cookie:
            answer.set_cookie(cookie, self._cookie, httponly=True, samesite="strict", path="/")
        return answer


def _host(header: str) -> str:
    """The name in a Host header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()


def _cookie_name(scope: Scope) -> str:
    """Cookies do not tell ports apart, and several pages may run on one host."""
    return f"loadtest_{(scope.get('server') or ('', 0))[1]}"


def _cookie(headers: Headers, name: str) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _wrong_host() -> Response:
    words = "This page answers to 127.0.0.1 and localhost only; open the address that loadtest ui printed.\n"
    return PlainTextResponse(words, status_code=421)


def _sign_in(wrong: bool) -> Response:
    """Where the token is asked for. A form, so that it need not be put into an address by hand."""
    said = "That is not it. " if wrong else ""
    page = h(
        "html",
        h(
            "head",
            h("meta", charset="utf-8"),
            h("meta", name="viewport", content="width=device-width, initial-scale=1"),
            h("title", "loadtest: token needed"),
        ),
        h(
            "body",
            h(
                "main",
                h("h1", "This page needs its token"),
                h("p", f"{said}It stands in the terminal where loadtest ui runs."),
                h(
                    "form",
                    h("label", "Token ", h("input", name="token", type="password", autocomplete="off", required=True)),
                    h("button", "Open"),
                    method="get",
                ),
            ),
        ),
        lang="en",
    )
    return HTMLResponse(f"<!doctype html>\n{page}\n", status_code=401)


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return send_with_headers


def new_token() -> str:
    return secrets.token_urlsafe(18)
