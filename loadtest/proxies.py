"""The HTTP proxy that a target's requests go through, if the plan names one.

A load generator that goes through a proxy measures the proxy, so it never does because of an environment that happens to
be set: the plan says `proxy: http://host:port`, or `proxy: environment` to take what HTTPS_PROXY, HTTP_PROXY, ALL_PROXY
and NO_PROXY say. That is looked up once, by the driver: all workers go the same way, and the plan as run shows it. Each
result names the proxy that it went through.

https:// targets are reached through a tunnel (CONNECT), so that TLS and its certificate are the target's; http:// ones by
requests in absolute form.
"""

from base64 import b64encode
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from loadtest.errors import PlanError
from loadtest.types import Plan, Target

ENVIRONMENT = "environment"
DEFAULT_PORT = 3128  # Squid's, and what is meant where none is given


class Proxy(Struct, frozen=True):
    host: str
    port: int
    authorization: str = ""  # value of a Proxy-Authorization header; a secret

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"Proxy({self})"


def key_name(target: str) -> str:
    """The name under which the secret for a target's proxy travels with the keys; no target can have it."""
    return f"{target} proxy"


def of(target: Target, secret: str | None) -> Proxy | None:
    """`secret` is user:password."""
    if target.proxy is None:
        return None
    url = urlsplit(target.proxy)
    authorization = f"Basic {b64encode(secret.encode()).decode()}" if secret else ""
    return Proxy(url.hostname or "", url.port or DEFAULT_PORT, authorization)


def problem(proxy: str) -> str | None:
    """What is wrong with a plan's `proxy`, which is not quoted where it may hold a password."""
    if proxy == ENVIRONMENT:
        return None
    if "@" in proxy:
        return (
            "proxy holds a user name or a password; take it out and set proxy_key: env:NAME to where user:password is"
        )
    try:
        url = urlsplit(proxy)
        usable = url.scheme == "http" and url.hostname and url.port != 0 and url.path in ("", "/") and not url.query
    except ValueError:
        usable = False
    return None if usable else f"proxy is {proxy!r}; it must be http://host:port, or environment"


def chosen(plan: Plan, environ: Mapping[str, str]) -> Plan:
    """The plan with what the environment says in the place of `proxy: environment`. Raises PlanError."""
    targets = []
    for i, target in enumerate(plan.targets):
        if target.proxy == ENVIRONMENT:
            found = from_environment(target.url, environ)
            if found and problem(found):
                raise PlanError(
                    f"targets[{i}].proxy is environment, where the proxy has a password or another form than "
                    "http://host:port; write proxy: http://host:port, and proxy_key: env:NAME for user:password"
                )
            target = replace(target, proxy=found, proxy_key=target.proxy_key if found else None)
        targets.append(target)
    return replace(plan, targets=targets)


def from_environment(url: str, environ: Mapping[str, str]) -> str | None:
    """The proxy for a URL, as curl chooses it: lower case before capitals, ALL_PROXY last, none where NO_PROXY fits."""
    target = urlsplit(url)

    def value(name: str) -> str:
        return environ.get(name, environ.get(name.upper(), "")).strip()

    found = value(f"{target.scheme}_proxy") or value("all_proxy")
    if not found or _is_exempt(target.hostname or "", target.port, value("no_proxy")):
        return None
    return found if "://" in found else f"http://{found}"


def _is_exempt(host: str, port: int | None, no_proxy: str) -> bool:
    entries = [entry.strip().lower() for entry in no_proxy.split(",")]
    return any(entry and _fits(host.lower(), port, entry) for entry in entries)


def _fits(host: str, port: int | None, entry: str) -> bool:
    """`*`, an address, a network, or a name that is meant with all below it, each perhaps with a port."""
    if entry == "*":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        address = None
    if address is not None:
        try:
            return address in ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            pass
    name, _, its_port = entry.rpartition(":")
    if name and its_port.isdigit():
        if port is None or int(its_port) != port:
            return False
        entry = name
    entry = entry.strip("[]").lstrip(".")
    return host == entry or host.endswith(f".{entry}")
