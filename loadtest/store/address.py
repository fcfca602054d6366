"""Where a store is: what `--store` and LOADTEST_STORE say, read once into an `Address`.

A spec is a directory (an embedded store) or `clickhouse://user@host:port/database`, `clickhouses://` for TLS. The port
is that of ClickHouse's HTTP interface. A password inside the spec is taken from LOADTEST_STORE only: what stands on a
command line is in the process list and the shell's history, what stands in a plan is in every copy of it.
`?password=file:PATH` works everywhere.
"""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from loadtest.store.errors import BadSpec

VARIABLE = "LOADTEST_STORE"
SCHEMES = {"clickhouse": ("http", 8123), "clickhouses": ("https", 8443)}
EXAMPLE = "clickhouse://user@host:8123/database, or clickhouses:// for TLS, or a directory"
NATIVE_PORTS = (9000, 9440)


@dataclass(frozen=True)
class Address:
    """A reachable store. Picklable, goes to worker hosts; holds the password, which `repr` leaves out."""

    scheme: str  # http or https
    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)
    ca_file: str | None = None  # certificates to trust besides the system's
    directory: str | None = None  # of an embedded store: on this machine only

    @property
    def embedded(self) -> bool:
        return self.directory is not None

    @property
    def loopback(self) -> bool:
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False  # a name: 127.example.com is anybody's

    def __str__(self) -> str:
        """As a person would name it; no password."""
        if self.directory:
            return self.directory
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"clickhouse{'s' * (self.scheme == 'https')}://{self.user}@{host}:{self.port}/{self.database}"


def parse(spec: str | None, environ: Mapping[str, str] = os.environ) -> Address | Path:
    """A server's address, or the directory of an embedded store. None: LOADTEST_STORE, else the default directory."""
    if spec is not None and not spec.strip():
        raise BadSpec(f"the store given is empty; write {EXAMPLE}, or leave it out for {VARIABLE} or the default")
    origin = "the store given" if spec else VARIABLE
    text = spec or environ.get(VARIABLE) or ""
    if not text:
        return default_directory(environ)
    if "://" not in text:
        return Path(text).expanduser().absolute()
    return _server(text, origin, may_hold_password=not spec)


def default_directory(environ: Mapping[str, str] = os.environ) -> Path:
    data_home = environ.get("XDG_DATA_HOME") or Path(environ.get("HOME") or Path.home()) / ".local" / "share"
    return Path(data_home) / "loadtest"


def _server(text: str, origin: str, may_hold_password: bool) -> Address:
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise BadSpec(f"{origin} is not a URL ({error}); write {EXAMPLE}") from None
    if url.scheme not in SCHEMES:
        raise BadSpec(f"{origin} begins with {url.scheme}://, which is no store; write {EXAMPLE}")
    if not url.hostname:
        raise BadSpec(f"{origin} names no host; write {EXAMPLE}")
    if url.fragment:
        raise BadSpec(f"{origin} has a '#': write it as %23 in a user, password or path")
    if port in NATIVE_PORTS:
        raise BadSpec(
            f"{origin} has port {port}, ClickHouse's native protocol; use its HTTP port, 8123 or 8443 by default"
        )
    options = parse_qs(url.query, keep_blank_values=True)
    if unknown := sorted(set(options) - {"password", "ca_file"}):
        raise BadSpec(f"{origin} has the unknown option {unknown[0]}; there are password=file:PATH and ca_file=PATH")
    scheme, default_port = SCHEMES[url.scheme]
    return Address(
        scheme=scheme,
        host=url.hostname,
        port=port or default_port,
        database=_database(url.path, origin),
        user=unquote(url.username or "default"),
        password=_password(url.password, options.get("password", []), origin, may_hold_password),
        ca_file=str(Path(options["ca_file"][-1]).expanduser().absolute()) if "ca_file" in options else None,
    )


def _database(path: str, origin: str) -> str:
    database = unquote(path.strip("/")) or "default"
    if "/" in database:
        raise BadSpec(f"{origin} has the path {path}; after the port comes one name, that of the database")
    return database


def _password(inline: str | None, option: list[str], origin: str, may_hold_password: bool) -> str:
    if inline is not None:
        if not may_hold_password:
            raise BadSpec(
                f"{origin} holds a password, where others can read it (process list, shell history, copies of a plan); "
                f"put the whole URL into the environment variable {VARIABLE}, or the password into a file that only "
                "you can read and write ?password=file:PATH at the end"
            )
        return unquote(inline)
    if not option:
        return ""
    reference = option[-1]
    if not reference.startswith("file:"):
        raise BadSpec(
            f"the option password of {origin} must be file:PATH, a file that holds the password and nothing else"
        )
    path = Path(reference.removeprefix("file:")).expanduser()
    try:
        return path.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadSpec(f"the password file {path} of {origin} cannot be read: {error}") from None
