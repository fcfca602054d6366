"""The schema as numbered SQL files, applied in order and recorded in the store.

A file that was applied anywhere is never edited: a change is a new file. Every statement must be one that may run twice
(IF NOT EXISTS, IF EXISTS, OR REPLACE): ClickHouse has no transactions for such statements and no locks across
processes, so of two processes that migrate at once both run them, and one that dies half-way leaves the rest to the
next.
"""

import re
from collections.abc import Callable, Iterable
from hashlib import sha256
from importlib import resources
from typing import Any, NamedTuple

from loadtest.store import sql
from loadtest.store.errors import MigrationRefused, StatementRefused

RECORD = "schema_migrations"
CREATE_RECORD = f"""CREATE TABLE IF NOT EXISTS {RECORD} (
    version UInt32,
    name String,
    checksum String,
    applied_at DateTime64(3) DEFAULT now64(3)
) ENGINE = ReplacingMergeTree ORDER BY (version, name, checksum)"""
ATTEMPTS = 3

_MADE = re.compile(r"CREATE (?:OR REPLACE )?((?:MATERIALIZED )?VIEW|TABLE) (?:IF NOT EXISTS )?(\w+)", re.I)
_DROPPED = re.compile(r"DROP (?:TABLE|VIEW) (?:IF EXISTS )?(\w+)", re.I)
_FILE_NAME = re.compile(r"(\d{3})_(\w+)\.sql")


class Migration(NamedTuple):
    version: int
    name: str
    script: str

    @property
    def checksum(self) -> str:
        return sha256(self.script.encode()).hexdigest()


def shipped() -> list[Migration]:
    """The migrations of this tool, ascending."""
    folder = resources.files("loadtest.store").joinpath("schema")
    return sorted(
        Migration(int(match[1]), match[2], entry.read_text(encoding="utf-8"))
        for entry in folder.iterdir()
        if (match := _FILE_NAME.fullmatch(entry.name))
    )


def pending(known: Iterable[Migration], applied: Iterable[tuple[int, str, str]]) -> list[Migration]:
    """Which of `known` are still to be applied, given rows (version, name, checksum) of the record."""
    by_version = {migration.version: migration for migration in known}
    done = set()
    for version, name, checksum in applied:
        migration = by_version.get(version)
        if migration is None:
            raise MigrationRefused(
                f"the store has schema version {version} ({name}), this tool knows up to {max(by_version, default=0)}: "
                "the store was written by a newer loadtest; use that one, or another store"
            )
        if checksum != migration.checksum:
            raise MigrationRefused(
                f"schema file {version:03d}_{migration.name}.sql was edited after it was applied to this store; "
                "restore it and put the change into a new file, or use another store"
            )
        done.add(version)
    return [migration for version, migration in sorted(by_version.items()) if version not in done]


def migrate(
    known: list[Migration],
    command: Callable[[str], object],
    query: Callable[[str], list[dict[str, Any]]],
    record: Callable[[Migration], None],
) -> list[Migration]:
    """Bring a store to the newest of `known`; returns what was applied here. Safe to call from several processes."""
    out = []
    command(CREATE_RECORD)
    for migration in pending(known, _applied(query)):
        _apply(migration, command, query)
        record(migration)
        out.append(migration)
    return out


def missing(known: Iterable[Migration], query: Callable[[str], list[dict[str, Any]]]) -> list[str]:
    """Tables and views that the schema makes and the store has not: "the table otel_traces"."""
    made: dict[str, str] = {}
    for migration in known:
        for statement in sql.statements(migration.script):
            words = [token.text.strip('`"') for token in sql.code(statement) if token.kind in ("word", "quoted")][:7]
            if found := _MADE.match(" ".join(words)):
                made[found[2]] = "the view" if "VIEW" in found[1] else "the table"
            elif found := _DROPPED.match(" ".join(words)):
                made.pop(found[1], None)
    there = {row["name"] for row in query("SELECT name FROM system.tables WHERE database = currentDatabase()")}
    return [f"{kind} {name}" for name, kind in made.items() if name not in there]


def _applied(query: Callable[[str], list[dict[str, Any]]]) -> list[tuple[int, str, str]]:
    rows = query(f"SELECT DISTINCT version, name, checksum FROM {RECORD} ORDER BY version")
    return [(row["version"], row["name"], row["checksum"]) for row in rows]


def _apply(
    migration: Migration, command: Callable[[str], object], query: Callable[[str], list[dict[str, Any]]]
) -> None:
    """A statement that another process runs at the same moment may be refused; then theirs, or a repetition, does."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            for statement in sql.statements(migration.script):
                command(statement)
            return
        except StatementRefused as error:
            if any(version == migration.version for version, _, _ in _applied(query)):
                return
            if attempt == ATTEMPTS:
                where = f"schema file {migration.version:03d}_{migration.name}.sql"
                raise MigrationRefused(f"{where} could not be applied: {error}") from error
