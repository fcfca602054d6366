"""The one way to a store: clickhouse-connect over HTTP, whether a ClickHouse server or the embedded one answers.

clickhouse-connect is imported when a connection is made, not before: it costs a tenth of a second that `--help` need
not pay, and a process that has imported it can no longer import Locust.
"""

import logging
import os
import re
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from loadtest.store import directory, migrations
from loadtest.store.address import Address, parse
from loadtest.store.errors import (
    AccessDenied,
    BadSpec,
    MigrationRefused,
    StatementRefused,
    StoreError,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from clickhouse_connect.driver.httpclient import HttpClient

CONNECT_TIMEOUT_S = 10
ANSWER_TIMEOUT_S = 300
UNKNOWN_DATABASE = 81
NOT_LET_IN = {192, 193, 194, 516}  # unknown user, wrong password, required password, authentication failed
NOT_ALLOWED = {164, 497}  # readonly, access denied
_WRAPPING = re.compile(r"^.*(Connection|Pool)\([^)]*\): ")
_ALTERNATIVES = re.compile(r"\. Expected one of: .*(?= \([A-Z_]+\)$)")
EXACTLY_ONCE = {"insert_deduplicate": 1, "deduplicate_blocks_in_dependent_materialized_views": 1}


def open_store(spec: str | None = None, environ: Mapping[str, str] = os.environ, port: int | None = None) -> "Store":
    """Open the store that `spec` names; None: LOADTEST_STORE, else the user's data directory.

    A directory's embedded server is started unless it runs, and kept running until this Store is closed; a server's
    database is created if missing. The tables are made by `Store.migrate`. `port`: where an embedded server must listen.
    """
    where = parse(spec, environ)
    if isinstance(where, Address):
        if port is not None:
            raise BadSpec(f"the store {where} is a server with a port of its own; leave the port out")
        return Store(where, _connect_or_create(where))
    if port is not None:
        directory.make_way(where, port)
    lease = directory.Lease.take(where)
    try:
        address = directory.find_or_start(where, port=port)
        return Store(address, _connect(address), lease)
    except BaseException:
        lease.release()
        raise


class Store:
    """One connection. For one thread at a time; another thread or process makes its own with `Store.connect`."""

    def __init__(self, address: Address, client: "HttpClient", lease: directory.Lease | None = None) -> None:
        self.address = address
        self._client = client
        self._lease = lease
        self._types: dict[str, dict[str, str]] = {}

    @classmethod
    def connect(cls, address: Address) -> Self:
        """Another connection to an open store. The one that opened it keeps an embedded server alive, this one not."""
        return cls(address, _connect(address))

    def migrate(self) -> list[migrations.Migration]:
        """Bring the tables to this tool's version; returns what was applied."""

        def record(migration: migrations.Migration) -> None:
            row: dict[str, list[Any]] = {
                "version": [migration.version],
                "name": [migration.name],
                "checksum": [migration.checksum],
            }
            self.insert(migrations.RECORD, row)

        known = migrations.shipped()
        applied = migrations.migrate(known, self._command, self.query, record)
        if missing := migrations.missing(known, self.query):
            raise MigrationRefused(
                f"the store {self.address} has lost {', '.join(missing)}, which it records as made; restore it from a "
                "backup, or use another store"
            )
        return applied

    def insert(self, table: str, columns: Mapping[str, Sequence[Any]], token: str | None = None) -> None:
        """Store rows given as columns of one length. DateTime64 columns take integers, in the column's own unit.

        Repeated with the same token, the rows are stored once, in the tables that views feed as well; the table needs a
        deduplication window for that. So after StoreUnavailable, insert the same batch again.
        """
        lengths = {len(values) for values in columns.values()}
        if len(lengths) != 1:
            sizes = ", ".join(f"{name} {len(values)}" for name, values in columns.items())
            raise ValueError(f"columns for {table} must be of one length, these are: {sizes or 'none'}")
        if lengths == {0}:
            return
        token = token or uuid.uuid4().hex  # clickhouse-connect itself may send an insert twice
        try:
            self._insert(table, columns, token)
        except UnicodeEncodeError:
            self._insert(table, {name: _encodable(values) for name, values in columns.items()}, token)

    def insert_rows(self, table: str, columns: Sequence[str], rows: bytes, token: str) -> None:
        """As `insert`, of rows that the caller has encoded: ClickHouse's RowBinary, in the order of `columns`. For rows of
        which most is always the same, encoding them costs a tenth of what columns of Python values do."""
        with _mapped(self.address):
            self._client.raw_insert(
                table,
                column_names=list(columns),
                insert_block=rows,
                settings={**EXACTLY_ONCE, "insert_deduplication_token": token},
                fmt="RowBinary",
            )

    def query(self, sql: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Rows of a query; `{name:Type}` in it is bound to `params[name]` by the server.

        A DateTime64 comes as a datetime, cut to microseconds: where nanoseconds matter, ask for toUnixTimestamp64Nano.
        """
        with _mapped(self.address):
            return list(self._client.query(sql, parameters=dict(params or {})).named_results())

    def read(self, sql: str) -> str:
        """The rows of one statement that somebody else wrote, a line of JSON each. Whatever it says, it only reads:
        as the user `reader` of an embedded store, and under `readonly = 1` at a server, unless its user only reads."""
        with self.reader() as reader, _mapped(reader.address):
            # wait_end_of_query: a failure is an answer of its own, not the end of one
            answer = reader._client.raw_query(sql, settings={"wait_end_of_query": 1}, fmt="JSONEachRow")
        return answer.decode()

    def reader(self) -> "Store":
        """Another connection, which may only read: as the user `reader` of an embedded store, and under `readonly = 1` at
        a server, unless its user only reads anyway."""
        if self.address.directory:
            return Store.connect(directory.reader_of(self.address.directory))
        reader = Store.connect(self.address)
        [row] = reader.query("SELECT toString(getSetting('readonly')) AS readonly")
        if row["readonly"] == "0":
            reader._client.set_client_setting("readonly", 1)
        return reader

    def close(self) -> None:
        """End the connection, and this Store's claim on an embedded server. May be called twice."""
        self._client.close()
        self._client.http.clear()
        if self._lease:
            self._lease.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _insert(self, table: str, columns: Mapping[str, Sequence[Any]], token: str) -> None:
        types = self._column_types(table, columns)
        with _mapped(self.address):
            self._client.insert(
                table,
                list(columns.values()),
                column_names=list(columns),
                column_type_names=[types[name] for name in columns],
                column_oriented=True,
                settings={**EXACTLY_ONCE, "insert_deduplication_token": token},
            )

    def _command(self, sql: str) -> None:
        with _mapped(self.address):
            self._client.command(sql)

    def _column_types(self, table: str, columns: Mapping[str, Sequence[Any]]) -> dict[str, str]:
        """Asked once for a table, and again when a column is not known, since a migration may have added it."""
        types = self._types.get(table, {})
        if not types.keys() >= columns.keys():
            types = {row["name"]: row["type"] for row in self.query(f"DESCRIBE TABLE {table}")}
            self._types[table] = types
        if missing := sorted(columns.keys() - types.keys()):
            raise ValueError(f"table {table} has no column {', '.join(missing)}; it has {', '.join(types)}")
        return types


def _encodable(value: Any) -> Any:
    """The same without halves of surrogate pairs, which no UTF-8 can hold: one of them must not cost a whole batch."""
    match value:
        case str():
            return value.encode(errors="replace").decode()
        case dict():
            return {_encodable(key): _encodable(item) for key, item in value.items()}
        case list() | tuple():
            return [_encodable(item) for item in value]
        case _:
            return value


def _connect_or_create(address: Address) -> "HttpClient":
    try:
        return _connect(address)
    except StatementRefused as error:
        if error.code != UNKNOWN_DATABASE:
            raise
    client = _connect(address, database="default")
    try:
        with _mapped(address):
            name = address.database.replace("\\", "\\\\").replace("`", "\\`")
            client.command(f"CREATE DATABASE IF NOT EXISTS `{name}`")
    finally:
        client.close()
    return _connect(address)


def _connect(address: Address, database: str | None = None) -> "HttpClient":
    from clickhouse_connect.driver.httpclient import HttpClient
    from clickhouse_connect.driver.httputil import get_pool_manager

    _tame()
    with _mapped(address):
        return HttpClient(
            interface=address.scheme,
            host=address.host,
            port=address.port,
            username=address.user,
            password=address.password,
            database=database or address.database,
            compress=False if address.loopback else "lz4",
            connect_timeout=CONNECT_TIMEOUT_S,
            send_receive_timeout=ANSWER_TIMEOUT_S,
            client_name="loadtest",
            show_clickhouse_errors="scrub",
            ca_cert=address.ca_file,
            autogenerate_session_id=False,
            # without it the proxy of the environment would be asked for 127.0.0.1
            pool_mgr=get_pool_manager() if address.loopback and address.scheme == "http" else None,
            dedicated_pool=not (address.loopback and address.scheme == "http"),
        )


def _tame() -> None:
    """clickhouse-connect and urllib3 log what they raise as well; the exception says it once. And the first insert
    imports numpy and pandas to ask whether the data is theirs: a second of CPU and 60 MB in the middle of a run, where
    nobody has imported them to make such data."""
    from clickhouse_connect.driver import options

    for name in ("clickhouse_connect", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for module, names in (("numpy", ["np"]), ("pandas", ["pd", "pd_time_test"])):
        if module not in sys.modules:
            vars(options).update(dict.fromkeys(names))


@contextmanager
def _mapped(address: Address) -> Iterator[None]:
    """Foreign errors become StoreErrors here, and only here."""
    from clickhouse_connect.driver.exceptions import ClickHouseError, Error, OperationalError

    try:
        yield
    except OperationalError as error:
        if error.code is None:
            raise StoreUnavailable(f"the store {address} does not answer: {_reason(error)}") from error
        raise _refused(address, error) from error
    except Error as error:
        raise _refused(address, error) from error
    except ClickHouseError as error:
        raise StoreError(f"the store {address}: {error}") from error


def _refused(address: Address, error: Any) -> StoreError:
    from clickhouse_connect.driver.exceptions import DatabaseError

    if error.code in NOT_LET_IN:
        return AccessDenied(f"the store {address} does not let {address.user} in; check the user and the password")
    if error.code in NOT_ALLOWED or str(error).endswith(" is readonly"):  # a setting, refused by the client already
        return AccessDenied(f"the store {address} does not allow {address.user} to do this: {_reason(error)}")
    if error.code is None and type(error) is DatabaseError:
        return StoreError(f"what answers at {address} is not ClickHouse's HTTP interface: {_reason(error)[:200]}")
    return StatementRefused(f"the store {address} refused a statement: {_reason(error)}", error.code)


def _reason(error: Exception) -> str:
    """The server's or the socket's own words, without what clickhouse-connect and urllib3 wrap around them."""
    cause = error.__cause__
    if cause is not None:
        text = str(getattr(cause, "reason", None) or cause)
        return _WRAPPING.sub("", " ".join(text.split()))
    text = str(error).partition("server response: ")[2] or str(error)
    return _ALTERNATIVES.sub("", " ".join(text.split()))
