"""`loadtest dashboards ...` from its arguments to what it prints."""

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from dashboards.grafana import provision
from dashboards.grafana.client import Grafana
from dashboards.grafana.provision import Wanted
from loadtest import plan
from loadtest.errors import UserError
from loadtest.store import Address, Store, directory, open_store


class Call(Struct, frozen=True, kw_only=True):
    """What all three commands take. Secrets are references: env:NAME or file:PATH."""

    url: str
    token: str
    store: str | None
    seen_as: str | None = None  # host or host:port under which Grafana reaches the store
    contact: str | None = None  # the URL of a webhook
    runbook: str = "docs/runbook.md"


def push(call: Call, overwrite: bool) -> None:
    with _wanted(call) as (grafana, wanted):
        print("\n".join(provision.push(grafana, wanted, overwrite)))


def diff(call: Call) -> int:
    """1 where Grafana has drifted."""
    with _wanted(call) as (grafana, wanted):
        found = provision.diff(grafana, wanted)
    print("\n".join(found) or "Grafana holds what it should")
    return 1 if found else 0


def pull(call: Call, out: Path) -> None:
    with _wanted(call) as (grafana, wanted):
        print("\n".join(map(str, provision.pull(grafana, wanted, out))) or "Grafana holds none of ours")


@contextmanager
def _wanted(call: Call, environ: Mapping[str, str] = os.environ) -> Iterator[tuple[Grafana, Wanted]]:
    """The store is kept up meanwhile, since Grafana is asked to reach it."""
    token = _secret("--token", call.token, environ)
    contact = _secret("--contact", call.contact, environ) if call.contact else None
    with closing(Grafana(call.url, token)) as grafana, open_store(call.store) as store:
        wanted = Wanted(_seen_as(_read_only(store), call.seen_as), contact, call.runbook)
        yield grafana, wanted


def _secret(option: str, reference: str, environ: Mapping[str, str]) -> str:
    if not reference.startswith(("env:", "file:")):
        raise UserError(
            f"{option} must be env:NAME or file:PATH, where it is to be found; others see a command's arguments"
        )
    try:
        return plan.secret(reference, environ)
    except ValueError as error:
        raise UserError(f"{option}: {error}") from None


def _read_only(store: Store) -> Address:
    """The address with a user who only reads. Raises UserError where the given one may write."""
    if store.address.directory:
        return directory.reader_of(store.address.directory)
    [row] = store.query("SELECT toString(getSetting('readonly')) AS readonly")
    if row["readonly"] == "0":
        raise UserError(
            f"{store.address.user} may write to the store {store.address}, and whoever sees a dashboard can ask it anything; "
            "give --store a user with readonly = 1 or 2"
        )
    return store.address


def _seen_as(address: Address, seen_as: str | None) -> Address:
    if seen_as is None:
        return address
    try:
        url = urlsplit(f"//{seen_as}")
        host, port = url.hostname, url.port
    except ValueError:
        host = None
    if not host or url.netloc != seen_as or "@" in seen_as:
        raise UserError(f"--seen-as is {seen_as}; write host or host:port, as in clickhouse:8123 or [2001:db8::1]:8123")
    return replace(address, host=host, port=port or address.port)
