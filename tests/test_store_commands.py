"""`loadtest store ...`: what SQL written by hand can do, and whether other programs reach the store as they are told to."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from loadtest import spans, store_commands
from loadtest.errors import UserError
from loadtest.store import AccessDenied, MigrationRefused, StatementRefused, Store, directory, open_store
from loadtest.types import Result


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("it's a store")


@pytest.fixture(scope="module")
def store(place: Path) -> Iterator[Store]:
    with open_store(str(place)) as store:
        store.migrate()
        store._command("CREATE TABLE precious (t DateTime64(9), n UInt64) ENGINE = MergeTree ORDER BY n")
        store._command("INSERT INTO precious VALUES ('2026-01-02 03:04:05.123456789', 18446744073709551615)")
        yield store
        store._command("DROP TABLE precious")


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE precious",
        "INSERT INTO precious VALUES (now(), 1)",
        "ALTER TABLE precious DELETE WHERE 1",
        "TRUNCATE TABLE precious",
        "SELECT file('/etc/passwd')",
        "SET readonly = 0",
    ],
)
def test_a_query_by_hand_can_only_read(store: Store, place: Path, sql: str) -> None:
    with pytest.raises(AccessDenied, match=r"does not allow reader to do this: .*reader"):
        store_commands.query(sql, str(place))
    assert store.query("SELECT count() AS n FROM precious") == [{"n": 1}]


def test_at_a_server_it_is_readonly_as_well(store: Store) -> None:
    """An address without a directory is a server's, whoever answers there."""
    with Store.connect(replace(store.address, directory=None)) as server:
        assert server.read("SELECT count() AS n FROM precious") == '{"n":1}\n'
        for sql in ("DROP TABLE precious", "INSERT INTO precious VALUES (now(), 1)"):
            with pytest.raises(AccessDenied, match="does not allow default to do this"):
                server.read(sql)
        server._command("INSERT INTO precious SELECT * FROM precious WHERE 0")  # only that one statement was readonly


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT t, n FROM precious;", [{"t": "2026-01-02 03:04:05.123456789", "n": 18446744073709551615}]),
        ("SELECT number AS x FROM numbers(2) -- two", [{"x": 0}, {"x": 1}]),
        ("EXISTS TABLE precious", [{"result": 1}]),
        ("SELECT n FROM precious WHERE 0", []),
        ("SELECT 'FORMAT CSV' AS x", [{"x": "FORMAT CSV"}]),
    ],
)
@pytest.mark.usefixtures("store")
def test_rows_are_lines_of_json(place: Path, sql: str, rows: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    store_commands.query(sql, str(place))
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == rows


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("", "there is no query; write one such as 'SELECT"),
        (" ; -- nothing", "there is no query"),
        ("SELECT 1; SELECT 2", "there are 2 statements; write one at a time"),
        ("SELECT 1 FORMAT CSV", "ends with FORMAT CSV; leave it out, rows are printed as lines of JSON"),
    ],
)
def test_what_is_not_one_query(sql: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        store_commands.one_statement(sql)


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELEC n FROM precious", r"Syntax error: failed at position 1 \(SELEC\).*Maybe you meant: SELECT"),
        ("SELECT count( FROM precious", r"Unmatched parentheses: '\(' at position 13"),
        ("SELECT 'a\\\\b',\n n FROM precious WHER n = 1", "Syntax error: failed at position"),
        ("SELECT m FROM precious", "Unknown expression identifier `m`"),
        ("SELECT n FROM precios", "precios"),
    ],
)
@pytest.mark.usefixtures("store")
def test_a_typo_is_told_as_one_and_not_as_forbidden(place: Path, sql: str, says: str) -> None:
    with pytest.raises(StatementRefused, match=says) as refused:
        store_commands.query(sql, str(place))
    assert "formatQuery" not in str(refused.value)
    assert "ACCESS_DENIED" not in str(refused.value)


def test_a_new_store_knows_its_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store_commands.query("SELECT count() AS n FROM requests", str(tmp_path))
    assert json.loads(capsys.readouterr().out) == {"n": 0}


def test_what_is_printed_works_and_holds_no_password(store: Store, place: Path) -> None:
    told = store_commands.access(store.address)
    secret = (place / directory.READER_PASSWORD).read_text().strip()
    assert secret not in told
    assert f"url        http://127.0.0.1:{store.address.port}/?database=loadtest\n" in told
    line = re.findall("^try +(.*)$", told, re.M)[0]
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=200, env=environment)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    count = line.replace(store_commands.EXAMPLE, "SELECT count() FROM precious")
    done = subprocess.run(["sh", "-c", count], capture_output=True, text=True, timeout=200, env=environment)
    assert done.stdout == "1\n"


def test_of_a_server_its_url_and_user_are_told(store: Store) -> None:
    address = replace(store.address, directory=None, scheme="https", host="::1", port=8443, user="me")
    assert store_commands.access(address) == (
        "store      clickhouses://me@[::1]:8443/loadtest\n"
        "url        https://[::1]:8443/?database=loadtest\n"
        "user       me"
    )


def test_a_lost_table_is_named(tmp_path: Path) -> None:
    with open_store(str(tmp_path)) as store:
        store.migrate()
        assert store.migrate() == []
        store._command("DROP TABLE stages SYNC")
        with pytest.raises(MigrationRefused, match="has lost the table stages, which it records as made; restore"):
            store.migrate()
        store._command("DROP VIEW otel_traces_trace_id_ts_mv SYNC")
        with pytest.raises(MigrationRefused, match="has lost the view otel_traces_trace_id_ts_mv, the table stages"):
            store.migrate()


def test_every_column_and_attribute_is_documented(store: Store) -> None:
    page = (Path(__file__).parent.parent / "docs/store.md").read_text(encoding="utf-8")
    told = {part.partition("`")[0]: set(re.findall(r"^\| `([\w.]+)` \|", part, re.M)) for part in page.split("\n## `")}
    for table in ("requests", "runs", "stages", "gpu_sources"):
        columns = {row["name"] for row in store.query(f"DESCRIBE TABLE {table}")}
        assert columns - told[table] == set(), table
    attributes = {*spans.ATTRIBUTES.values(), *spans.ARRAYS.values(), "loadtest.chunk_offset_ns", "loadtest.fault"}
    assert attributes - told["otel_traces"] == set()
    assert told["requests"] >= {field.name for field in msgspec.structs.fields(Result)} - {"chunk_ns", "attributes"}
