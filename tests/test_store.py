"""What names a store, what a Store does, and the schema's migrations; on the embedded store."""

import pickle
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from loadtest.store import (
    AccessDenied,
    Address,
    BadSpec,
    MigrationRefused,
    StatementRefused,
    Store,
    StoreError,
    StoreUnavailable,
    directory,
    migrations,
    open_store,
    sql,
)
from loadtest.store.address import parse
from loadtest.store.migrations import Migration

NS = 1_760_000_000_123_456_789
SECRET = "s3cret-w0rd"


def command(store: Store, *statements: str) -> None:
    for statement in statements:
        store._command(statement)


# what names a store


def test_a_directory_is_an_embedded_store(tmp_path: Path) -> None:
    assert parse(str(tmp_path), {}) == tmp_path
    assert parse("runs/store", {}) == Path.cwd() / "runs" / "store"
    assert parse(None, {"LOADTEST_STORE": "/data/store"}) == Path("/data/store")
    assert parse("/given", {"LOADTEST_STORE": "/data/store"}) == Path("/given")


def test_the_default_is_in_the_data_home() -> None:
    assert parse(None, {"XDG_DATA_HOME": "/data", "HOME": "/home/me"}) == Path("/data/loadtest")
    assert parse(None, {"HOME": "/home/me", "LOADTEST_STORE": ""}) == Path("/home/me/.local/share/loadtest")


def test_a_server(tmp_path: Path) -> None:
    assert parse("clickhouse://me@db.example:8124/perf", {}) == Address("http", "db.example", 8124, "perf", "me", "")
    assert parse("clickhouses://db.example", {}) == Address("https", "db.example", 8443, "default", "default", "")
    assert parse("clickhouse://[::1]/x", {}) == Address("http", "::1", 8123, "x", "default", "")
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    address = parse(f"clickhouses://me@db.example/x?password=file:{secret}&ca_file=/ca.pem", {})
    assert address == Address("https", "db.example", 8443, "x", "me", SECRET, "/ca.pem")


def test_a_password_is_taken_from_the_environment_only() -> None:
    spec = "clickhouse://me:s3cret%2Dw0rd@db.example/x"
    address = parse(None, {"LOADTEST_STORE": spec})
    assert isinstance(address, Address)
    assert address.password == SECRET
    with pytest.raises(BadSpec, match=r"LOADTEST_STORE.*password=file:PATH") as refused:
        parse(spec, {"LOADTEST_STORE": spec})
    assert SECRET not in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("http://db.example:8123", "begins with http://.*write clickhouse://"),
        ("clickhouse://db.example:port/x", "is not a URL"),
        ("clickhouse://db.example:9000/x", "port 9000.*8123"),
        ("clickhouse:///x", "names no host"),
        ("clickhouse://db.example/x/y", "one name, that of the database"),
        ("clickhouse://db.example/x?secure=1", "unknown option secure.*password=file:PATH"),
        ("clickhouse://db.example/x?password=abc", "must be file:PATH"),
        ("clickhouse://db.example/x?password=file:/nowhere/at/all", "/nowhere/at/all.*cannot be read"),
        ("clickhouse://db.example/x#y", "%23"),
    ],
)
def test_a_bad_spec_says_what_to_write(spec: str, says: str) -> None:
    with pytest.raises(BadSpec, match=says):
        parse(spec, {})


@pytest.mark.parametrize(
    ("host", "is_here"),
    [("localhost", True), ("127.0.0.1", True), ("127.1.2.3", True), ("[::1]", True), ("127.example.com", False),
     ("192.0.2.1", False), ("[2001:db8::1]", False)],
)  # fmt: skip
def test_loopback_is_an_address_and_no_name_that_looks_like_one(host: str, is_here: bool) -> None:
    address = parse(f"clickhouse://{host}:8123/db", {})
    assert isinstance(address, Address)
    assert address.loopback == is_here


def test_an_address_travels_but_does_not_show_its_password() -> None:
    address = Address("http", "db.example", 8123, "x", "me", SECRET)
    assert pickle.loads(pickle.dumps(address)).password == SECRET
    assert SECRET not in repr(address)
    assert str(address) == "clickhouse://me@db.example:8123/x"
    assert not address.embedded


# errors


def test_no_server_there() -> None:
    with pytest.raises(StoreUnavailable, match=r"clickhouse://default@127\.0\.0\.1:1/x does not answer.*refused"):
        open_store("clickhouse://127.0.0.1:1/x", {})


def test_a_wrong_password(store: Store) -> None:
    at = store.address
    with pytest.raises(AccessDenied, match="does not let default in; check") as denied:
        open_store(None, {"LOADTEST_STORE": f"clickhouse://default:{SECRET}@{at.host}:{at.port}/x"})
    assert SECRET not in str(denied.value)


def test_a_missing_database_is_created(store: Store) -> None:
    at = store.address
    spec = f"clickhouse://default:{at.password}@{at.host}:{at.port}/new%60db"
    with open_store(None, {"LOADTEST_STORE": spec}) as opened:
        assert opened.query("SELECT currentDatabase() AS name") == [{"name": "new`db"}]
        assert not opened.address.embedded
        opened.migrate()
        assert opened.query("SELECT count() AS n FROM requests") == [{"n": 0}]


def test_a_reader_may_only_read(store: Store) -> None:
    at = Path(store.address.directory or "")
    server = directory.read_server(at)
    assert server
    with Store.connect(server.address(at, user="reader")) as reader:
        assert reader.query("SELECT count() >= 0 AS ok FROM requests WHERE run != {r:String}", {"r": "x"}) == [
            {"ok": True}
        ]
        with pytest.raises(AccessDenied, match="does not allow reader to do this"):
            reader.insert("runs", {"run": ["x"]})


def test_something_else_answers(simulator: str) -> None:
    port = simulator.rpartition(":")[2]
    with pytest.raises(StoreError, match="is not ClickHouse's HTTP interface"):
        open_store(f"clickhouse://127.0.0.1:{port}/x", {})


def test_a_syntax_error_is_told_without_the_whole_grammar(store: Store) -> None:
    with pytest.raises(StatementRefused, match=r"failed at position 1 \(selec\)") as refused:
        store.query("selec 1")
    assert len(str(refused.value)) < 300


def test_a_refused_statement_says_why_and_has_the_number(store: Store) -> None:
    with pytest.raises(StatementRefused, match="Unknown expression identifier `nosuch`") as refused:
        store.query("SELECT nosuch")
    assert refused.value.code == 47
    assert isinstance(refused.value, StoreError)


def test_a_failure_in_mid_result_is_told(store: Store) -> None:
    with pytest.raises(StatementRefused, match="FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"):
        store.query("SELECT throwIf(number = 900000) FROM numbers(1000000)")


@pytest.fixture
def tls_port(store: Store, certificate: trustme.LeafCert) -> Iterator[int]:
    """A port of loopback that speaks TLS and hands everything to the store."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)

    class Forward(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                client = context.wrap_socket(self.request, server_side=True)
            except ssl.SSLError:
                return
            with client, socket.create_connection((store.address.host, store.address.port)) as server:
                back = threading.Thread(target=copy, args=(server, client))
                back.start()
                copy(client, server)
                back.join()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Forward) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def copy(source: socket.socket, to: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            to.sendall(data)
        to.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("127.0.0.1")


def test_a_server_behind_tls(store: Store, authority: trustme.CA, tls_port: int, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(store.address.password)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    at = f"127.0.0.1:{tls_port}/loadtest?password=file:{tmp_path}/password"
    with open_store(f"clickhouses://{at}&ca_file={tmp_path}/ca.pem") as opened:
        assert opened.query("SELECT {x:String} AS x", {"x": "y"}) == [{"x": "y"}]
        opened.insert("runs", {"run": ["over tls"]})
    with pytest.raises(StoreUnavailable, match="certificate verify failed"):
        open_store(f"clickhouses://{at}")
    with pytest.raises(StoreUnavailable, match="does not answer"):
        open_store(f"clickhouse://{at}")


# insert and query


def test_integers_are_exact_instants(store: Store) -> None:
    command(
        store,
        "CREATE TABLE instants (at DateTime64(9), several Array(DateTime64(9)), maybe Nullable(DateTime64(9))) "
        "ENGINE = MergeTree ORDER BY at",
    )
    store.insert("instants", {"at": [NS, NS + 1], "several": [[NS + 2], []], "maybe": [None, NS + 3]})
    rows = store.query(
        "SELECT toUnixTimestamp64Nano(at) AS at, arrayMap(t -> toUnixTimestamp64Nano(t), several) AS several, "
        "toUnixTimestamp64Nano(maybe) AS maybe FROM instants ORDER BY instants.at"
    )
    assert rows == [
        {"at": NS, "several": [NS + 2], "maybe": None},
        {"at": NS + 1, "several": [], "maybe": NS + 3},
    ]


def test_parameters_are_bound_by_the_server(store: Store) -> None:
    values = {
        "s": "it's a \t tab, a \\ and a\nline 'quoted'",
        "n": 18446744073709551615,
        "a": ["x'y", "é"],
        "none": None,
    }
    rows = store.query(
        "SELECT {s:String} AS s, {n:UInt64} AS n, {a:Array(String)} AS a, {none:Nullable(Int8)} AS none", values
    )
    assert rows == [values]
    assert store.query("SELECT {at:DateTime64(3)} AS at", {"at": datetime(2026, 1, 2, 3, 4, 5, 6000, tzinfo=UTC)}) == [
        {"at": datetime(2026, 1, 2, 3, 4, 5, 6000)}
    ]
    long = "x" * 100_000
    assert store.query("SELECT length({s:String}) AS n", {"s": long}) == [{"n": 100_000}]


def test_an_insert_repeated_with_its_token_is_stored_once(store: Store) -> None:
    command(
        store,
        "CREATE TABLE source (x Int64) ENGINE = MergeTree ORDER BY x SETTINGS non_replicated_deduplication_window = 100",
        "CREATE TABLE fed (x Int64) ENGINE = MergeTree ORDER BY x SETTINGS non_replicated_deduplication_window = 100",
        "CREATE MATERIALIZED VIEW feed TO fed AS SELECT intDiv(x, 2) AS x FROM source",
    )
    for _ in range(2):
        store.insert("source", {"x": [1, 2, 3]}, token="a")
    assert store.query("SELECT sum(x) AS sum, count() AS n FROM source") == [{"sum": 6, "n": 3}]
    assert store.query("SELECT sum(x) AS sum, count() AS n FROM fed") == [{"sum": 2, "n": 3}]
    store.insert("source", {"x": [1, 2, 3]}, token="b")
    store.insert("source", {"x": [1, 2, 3]})
    store.insert("source", {"x": [1, 2, 3]})
    assert store.query("SELECT count() AS n FROM source") == [{"n": 12}]
    assert store.query("SELECT count() AS n FROM fed") == [{"n": 12}]


def test_what_cannot_be_inserted(store: Store) -> None:
    with pytest.raises(ValueError, match=r"one length, these are: run 2, nonce 1"):
        store.insert("runs", {"run": ["a", "b"], "nonce": ["c"]})
    with pytest.raises(ValueError, match=r"table runs has no column nonsense; it has run,"):
        store.insert("runs", {"nonsense": [1]})
    with pytest.raises(StatementRefused, match="nowhere"):
        store.insert("nowhere", {"x": [1]})
    store.insert("runs", {"run": []})


def test_half_a_surrogate_pair_costs_a_letter_not_the_batch(store: Store) -> None:
    store.insert("runs", {"run": ["torn", "whole"], "plan_name": ["a\udc80b", "ok"]})
    rows = store.query("SELECT run, plan_name FROM runs WHERE run IN ('torn', 'whole') ORDER BY run")
    assert rows == [{"run": "torn", "plan_name": "a?b"}, {"run": "whole", "plan_name": "ok"}]


def test_eight_threads_at_once(store: Store) -> None:
    command(store, "CREATE TABLE many (thread UInt8, x UInt32) ENGINE = MergeTree ORDER BY x")
    problems: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            with Store.connect(store.address) as own:
                for batch in range(5):
                    own.insert("many", {"thread": [thread] * 200, "x": list(range(batch * 200, batch * 200 + 200))})
                    own.query("SELECT count() AS n FROM many WHERE thread = {t:UInt8}", {"t": thread})
        except BaseException as error:  # noqa: BLE001 - told below, in the thread that can fail the test
            problems.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []
    counts = store.query("SELECT thread, count() AS n, uniqExact(x) AS u FROM many GROUP BY thread ORDER BY thread")
    assert counts == [{"thread": n, "n": 1000, "u": 1000} for n in range(8)]


def test_the_client_starts_light(store: Store) -> None:
    """No numpy, pandas or chDB in the process that drives load, and importing the package does not connect anything."""
    code = (
        "import sys, pickle; from loadtest.store import Store\n"
        "assert 'clickhouse_connect' not in sys.modules\n"
        "with Store.connect(pickle.loads(sys.stdin.buffer.read())) as store:\n"
        "    store.insert('runs', {'run': ['light']}); store.query('SELECT 1 AS x, now64(9) AS t')\n"
        "print(*({'numpy', 'pandas', 'pyarrow', 'chdb', 'starlette'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(store.address), capture_output=True, check=True
    )
    assert ran.stdout.split() == []


def test_a_proxy_of_the_environment_is_not_asked_for_loopback(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with Store.connect(store.address) as direct:
        assert direct.query("SELECT 1 AS x") == [{"x": 1}]


# migrations


@pytest.fixture
def empty(store: Store, request: pytest.FixtureRequest) -> Iterator[Store]:
    """Another database of the same server, without tables."""
    at = store.address
    spec = f"clickhouse://default:{at.password}@{at.host}:{at.port}/{request.node.name}"
    with open_store(None, {"LOADTEST_STORE": spec}) as opened:
        yield opened


def apply(store: Store, *known: Migration) -> list[Migration]:
    def record(migration: Migration) -> None:
        row = {"version": [migration.version], "name": [migration.name], "checksum": [migration.checksum]}
        store.insert(migrations.RECORD, row)

    return migrations.migrate(list(known), store._command, store.query, record)


FIRST = Migration(
    1, "first", "-- a comment; with a semicolon\nCREATE TABLE IF NOT EXISTS a (x String DEFAULT ';') ENGINE = Memory;"
)
SECOND = Migration(2, "second", "ALTER TABLE a ADD COLUMN IF NOT EXISTS y Int8; INSERT INTO a VALUES ('x;y', 1);")


def test_migrations_are_applied_once_and_in_order(empty: Store) -> None:
    assert apply(empty, FIRST) == [FIRST]
    assert apply(empty, FIRST, SECOND) == [SECOND]
    assert apply(empty, FIRST, SECOND) == []
    assert empty.query("SELECT * FROM a") == [{"x": "x;y", "y": 1}]
    assert empty.query("SELECT version, name, applied_at > now() - 60 AS recent FROM schema_migrations ORDER BY 1") == [
        {"version": 1, "name": "first", "recent": 1},
        {"version": 2, "name": "second", "recent": 1},
    ]


def test_an_edited_migration_is_an_error(empty: Store) -> None:
    apply(empty, FIRST)
    with pytest.raises(MigrationRefused, match=r"001_first\.sql was edited after.*a new file"):
        apply(empty, FIRST._replace(script=FIRST.script + " "), SECOND)


def test_a_newer_store_is_an_error(empty: Store) -> None:
    apply(empty, FIRST, SECOND)
    with pytest.raises(MigrationRefused, match=r"schema version 2 \(second\), this tool knows up to 1.*newer loadtest"):
        apply(empty, FIRST)


def test_a_migration_that_fails_names_its_file_and_is_not_recorded(empty: Store) -> None:
    with pytest.raises(MigrationRefused, match=r"002_bad\.sql could not be applied: .*Syntax error"):
        apply(empty, FIRST, Migration(2, "bad", "CREATE TABEL b (x Int8) ENGINE = Memory"))
    assert empty.query("SELECT version FROM schema_migrations") == [{"version": 1}]


def test_two_processes_migrate_at_once(empty: Store) -> None:
    code = (
        "import sys, pickle; from loadtest.store import Store\n"
        "with Store.connect(pickle.load(sys.stdin.buffer)) as store:\n"
        "    print('ready', flush=True); sys.stdin.buffer.readline(); store.migrate()"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for process in running:
        assert process.stdin
        assert process.stdout
        process.stdin.write(pickle.dumps(empty.address))
        process.stdin.flush()
        process.stdout.readline()
    for process in running:
        out, err = process.communicate(b"\n", timeout=200)
        assert (process.returncode, out, err) == (0, b"", b"")
    versions = [migration.version for migration in migrations.shipped()]
    assert empty.query("SELECT DISTINCT version FROM schema_migrations ORDER BY version") == [
        {"version": version} for version in versions
    ]
    assert empty.migrate() == []


def test_the_shipped_schema_has_each_number_once() -> None:
    versions = [migration.version for migration in migrations.shipped()]
    assert versions[0] == 1
    assert versions == sorted(set(versions))


def test_every_table_keeps_a_deduplication_window(empty: Store) -> None:
    empty.migrate()
    rows = empty.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree' "
        "AND engine_full NOT LIKE '%non_replicated_deduplication_window%'"
    )
    assert rows == [{"name": migrations.RECORD}]


# the lexer


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("", []),
        ("-- only; a comment\n /* and; another */ ;;", []),
        ("SELECT 1; SELECT 2", ["SELECT 1", "SELECT 2"]),
        ("SELECT ';', `a;b`, \"c;d\", 'it\\';s', 'it'';s';", ["SELECT ';', `a;b`, \"c;d\", 'it\\';s', 'it'';s'"]),
        ("SELECT 1 -- x;\n, 2; # y;\nSELECT 3", ["SELECT 1 -- x;\n, 2", "# y;\nSELECT 3"]),
        ("SELECT /* a /* nested; */ b; */ 1;", ["SELECT /* a /* nested; */ b; */ 1"]),
        ("SELECT $x$;$y$;$x$; SELECT ‘;’", ["SELECT $x$;$y$;$x$", "SELECT ‘;’"]),
    ],
)
def test_statements_are_split_outside_strings_and_comments(script: str, expected: list[str]) -> None:
    assert sql.statements(script) == expected


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("SELECT 1", None),
        ("SELECT 1 FORMAT JSON", "JSON"),
        ("SELECT 1 format TSV ; ", "TSV"),
        ("SELECT 1 FORMAT Native SETTINGS max_threads = 1, x = 'y'", "Native"),
        ("SELECT 1 SETTINGS max_threads = 1 FORMAT CSV -- FORMAT TSV", "CSV"),
        ("SELECT format('{}', 1)", None),
        ("SELECT 'FORMAT JSON'", None),
    ],
)
def test_the_format_of_a_query(query: str, name: str | None) -> None:
    assert sql.output_format(query) == name


def test_the_head_of_an_insert_is_known_as_soon_as_it_can_be() -> None:
    text = "INSERT INTO `format`.t (a, `b c`) SETTINGS x = 'FORMAT y' FORMAT Native\n\x01\x02FORMAT"
    end = text.index("\x01")
    for size in range(end):
        assert sql.insert_head(text[:size], complete=False) == "more", text[:size]
    head = sql.insert_head(text, complete=False)
    assert head == ("INSERT INTO `format`.t (a, `b c`) SETTINGS x = 'FORMAT y' ", "Native", end)
    assert sql.insert_head("INSERT INTO t VALUES (1)", complete=True) == "none"
    assert sql.insert_head("INSERT INTO t SELECT 1 FORMAT x", complete=True) == "none"
    assert sql.insert_head("SELECT 1", complete=False) == "none"
    assert sql.insert_head("INSERT INTO t FORMAT CSV", complete=True) == ("INSERT INTO t ", "CSV", 24)
