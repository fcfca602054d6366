"""`loadtest store ...`: where the store is, what it holds, how other programs reach it, and one query of it.

Whoever writes SQL by hand may only read: a mistyped statement must not cost the runs of a month. Passwords are never
printed; what is printed is the file where one stands.
"""

import shlex
import sys
from pathlib import Path

from loadtest.errors import UserError
from loadtest.run import Interrupts
from loadtest.store import Address, directory, open_store, sql

SIZES = """
    SELECT table, sum(rows) AS rows, sum(bytes_on_disk) AS bytes FROM system.parts
    WHERE active AND database = currentDatabase() AND table IN ('otel_traces', 'requests', 'attempts', 'stages', 'runs')
    GROUP BY table ORDER BY table"""
EXAMPLE = "SELECT target, count() FROM requests GROUP BY target"


def status(store: str | None) -> None:
    with open_store(store) as database:
        database.migrate()
        print(access(database.address))
        for row in database.query(SIZES):
            print(f"{row['table']:<10} {row['rows']:>12,} rows  {row['bytes'] / 1e6:>10,.1f} MB")


def query(text: str, store: str | None) -> None:
    statement = one_statement(text)
    with open_store(store) as database:
        if database.address.embedded:  # or a new one would say that it knows no table; a server's user may only read
            database.migrate()
        sys.stdout.write(database.read(statement))


def serve(store: str | None, port: int | None) -> None:
    """Hold a lease on the store until interrupted."""
    with open_store(store, port=port) as database, Interrupts().caught() as interrupts:
        database.migrate()
        print(access(database.address))
        print("until Ctrl-C" if database.address.embedded else "a server needs nobody to keep it up", flush=True)
        while database.address.embedded and not interrupts.count:
            interrupts.wait(3600)


def one_statement(text: str) -> str:
    """The one statement in `text`, without its semicolon. Raises UserError where there is none, or more."""
    found = sql.statements(text)
    if not found:
        raise UserError(f"there is no query; write one such as {EXAMPLE!r}")
    if len(found) > 1:
        raise UserError(f"there are {len(found)} statements; write one at a time")
    if form := sql.output_format(found[0]):
        raise UserError(f"the query ends with FORMAT {form}; leave it out, rows are printed as lines of JSON")
    return found[0]


def access(address: Address) -> str:
    """How another program reaches a store, in a few lines."""
    host = f"[{address.host}]" if ":" in address.host else address.host
    lines = [
        f"store      {address}",
        f"url        {address.scheme}://{host}:{address.port}/?database={address.database}",
    ]
    if not address.directory:
        return "\n".join([*lines, f"user       {address.user}"])
    secret = Path(address.directory) / directory.READER_PASSWORD
    config = f"printf 'user=reader:%s' \"$(cat {shlex.quote(str(secret))})\""
    return "\n".join(
        [
            *lines,
            "user       reader, who may only read",
            f"password   in {secret}",
            f"try        {config} | curl -K- '{lines[1].split()[1]}' --data-binary {shlex.quote(EXAMPLE)}",
        ]
    )
