"""chDB, as the embedded server needs it: one engine for a directory, one short-lived connection for each request.

A connection costs 0.8 ms and carries the settings of its request; so no setting leaks from one request to the next.
Every call here blocks and releases the interpreter lock: call from threads. chDB must not be imported before a fork.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import chdb
import chdb._chdb as _untyped

SETTINGS = {
    "max_threads": str(max(1, (os.cpu_count() or 1) // 4)),  # a query must not take a core from the load generator
    "implicit_select": "0",  # chDB would answer a mistyped statement as if it were SELECT of that word
    "allow_introspection_functions": "0",
}
_chdb: Any = _untyped
_connect: Any = chdb.connect
_ONE_ROW = b"\x01\x01\x01x\x05UInt8\x01"  # Native: one column, one row, x UInt8, 1
OPTIONS = "memory_worker_period_ms=1000"  # by default the engine wakes every 50 ms, for nothing
_CODE = re.compile(r"Code: (\d+)\. DB::Exception: ")

LEAST_FREE_BYTES = 64 << 20
"""The engine says of an insert that found no room that it was written (chDB 4.4), of a view's too. So none is tried where
there might be none."""
_IN_OUR_SCOPE = re.compile(r": In scope SELECT formatQuery\(.*\)(?=\. \()", re.DOTALL)


class Failure(Exception):
    """What ClickHouse answers instead of a result: its error number and its text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        text = str(error)
        found = _CODE.search(text)
        return cls(int(found[1]), text[found.start() :]) if found else cls(1002, f"Code: 1002. DB::Exception: {text}")


def failure(code: int, name: str, text: str) -> Failure:
    return Failure(code, f"Code: {code}. DB::Exception: {text}. ({name})")


class Answer(NamedTuple):
    body: bytes
    rows: int
    read_rows: int
    read_bytes: int
    elapsed_ns: int


class Engine:
    """The engine over one directory; it stays open while this object is."""

    def __init__(self, path: Path, database: str) -> None:
        self._directory = path
        self._path = f"{os.path.relpath(path)}?{OPTIONS}"
        _chdb.set_signal_handlers_enabled(0)  # ours end the server in good order; chDB's would not
        self._root = _connect(self._path)
        self._root.query(f"CREATE DATABASE IF NOT EXISTS `{database}` ENGINE = Atomic")
        self.version, self.timezone = self._root.query("SELECT version(), timezone()", "TSV").bytes().decode().split()

    def connect(self, settings: Mapping[str, str] | None = None) -> "Connection":
        """A connection that has our settings, and these on top."""
        connection = Connection(_connect(self._path))
        try:
            connection.set(SETTINGS | dict(settings or {}))
        except BaseException:
            connection.close()
            raise
        return connection

    def check_room(self) -> None:
        """Raise Failure, as a server would, where an insert might find no room."""
        disk = os.statvfs(self._directory)
        if disk.f_bavail * disk.f_frsize < LEAST_FREE_BYTES:
            free, least = disk.f_bavail * disk.f_frsize >> 20, LEAST_FREE_BYTES >> 20
            text = (
                f"Not enough space: the disk of the store has {free} MiB left, and nothing is written below {least} MiB"
            )
            raise failure(243, "NOT_ENOUGH_SPACE", text)

    def kill(self, tag: str) -> None:
        """Ask the statement whose text ends with `tag` to stop; if it does not run, nothing happens."""
        with self.connect() as connection:
            connection.query(f"KILL QUERY WHERE endsWith(query, concat('{tag[:-1]}', '{tag[-1:]}')) ASYNC", "TSV", {})

    def warm_up(self) -> None:
        """The first insert of a process is slower; let it be this one, which goes nowhere."""
        with self.connect() as connection:
            connection.insert("INSERT INTO FUNCTION null('x UInt8')", "Native", [_ONE_ROW])

    def close(self) -> None:
        self._root.close()


class Connection:
    """One chDB connection: a current database, settings and temporary tables of its own. For one thread at a time."""

    def __init__(self, connection: Any) -> None:  # chDB is untyped
        self._connection = connection

    def use(self, database: str) -> None:
        self.run("USE " + identifier(database))

    def set(self, settings: Mapping[str, str | None]) -> None:
        """None: back to the default."""
        if settings:
            pairs = (f"{identifier(name)} = {_literal(value)}" for name, value in settings.items())
            self.run("SET " + ", ".join(pairs))

    def only_reads(self, sql: str) -> tuple[bool, int]:
        """Whether running `sql` leaves no trace anywhere, by the engine's own parser; and how many statements it is."""
        report = self._connection._conn.classify_query(sql)
        return report["query_class"] == _chdb.query_class.READ_ONLY, report["statement_count"]

    def check_syntax(self, sql: str) -> None:
        """Raise Failure with the parser's own words where `sql` is none. Nothing of it is run."""
        escaped = sql.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
        try:
            self.query("SELECT formatQuery({sql:String})", "Null", {"sql": escaped})
        except Failure as error:
            raise Failure(error.code, _IN_OUR_SCOPE.sub("", error.text)) from None

    def run(self, sql: str) -> None:
        self.query(sql, "Null", {})

    def query(self, sql: str, form: str, params: Mapping[str, str]) -> Answer:
        """`params` are the values of {name:Type}, escaped as in TabSeparated, which is also how HTTP carries them."""
        try:
            result = self._connection.query(sql, form, params=dict(params))
        except (chdb.ChdbError, RuntimeError) as error:
            raise Failure.of(error) from None
        return Answer(
            body=result.bytes() or b"",
            rows=result.rows_read(),
            read_rows=result.storage_rows_read(),
            read_bytes=result.storage_bytes_read(),
            elapsed_ns=int(result.elapsed() * 1e9),
        )

    def stream(self, sql: str, form: str, params: Mapping[str, str]) -> Iterator[bytes]:
        """The result block by block, each formatted by itself: only for formats without a header or an end."""
        try:
            result = self._connection.send_query(sql, form, params=dict(params))
            try:
                for block in result:
                    yield block.bytes()
            finally:
                result.close()
        except (chdb.ChdbError, RuntimeError) as error:
            raise Failure.of(error) from None

    def insert(self, statement: str, form: str, chunks: Iterable[bytes]) -> int:
        """Rows written, those of views included. If `chunks` raises, nothing of the current block is stored."""
        try:
            inserter = self._connection.send_insert(statement, form)
        except RuntimeError as error:
            raise Failure.of(error) from None
        try:
            for chunk in chunks:
                inserter.append(chunk)
            return int(inserter.finish().rows_written)
        except RuntimeError as error:
            raise Failure.of(error) from None
        finally:
            inserter.close()

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def identifier(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _literal(value: str | None) -> str:
    return "DEFAULT" if value is None else "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
