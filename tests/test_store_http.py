"""The embedded server's HTTP interface, with plain requests and with clickhouse-connect's less common ways."""

import gzip
import json
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import clickhouse_connect
import httpx
import lz4.frame
import pytest
from backports import zstd
from clickhouse_connect.driver.exceptions import DatabaseError
from clickhouse_connect.driver.external import ExternalData
from clickhouse_connect.driver.httpclient import HttpClient

from loadtest.store import Store, access, codings, directory, forms
from loadtest.store.engine import Failure

DEADLINE_S = 100
SLOW = "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 7"


@pytest.fixture(scope="module")
def server(store: Store) -> directory.Server:
    assert store.address.directory
    found = directory.read_server(Path(store.address.directory))
    assert found
    return found


@pytest.fixture(scope="module")
def http(server: directory.Server) -> Iterator[httpx.Client]:
    """As default, in the database that everybody starts in."""
    base, auth = f"http://127.0.0.1:{server.port}", ("default", server.passwords["default"])
    with httpx.Client(base_url=base, auth=auth, params={"database": "loadtest"}, timeout=DEADLINE_S) as client:
        client.post("/", content="CREATE TABLE IF NOT EXISTS pairs (x Int64, s String) ENGINE = MergeTree ORDER BY x")
        yield client


@pytest.fixture(scope="module")
def reader(server: directory.Server) -> Iterator[httpx.Client]:
    base, auth = f"http://127.0.0.1:{server.port}", ("reader", server.passwords["reader"])
    with httpx.Client(base_url=base, auth=auth, params={"database": "loadtest"}, timeout=DEADLINE_S) as client:
        yield client


def connect(server: directory.Server, **options: object) -> HttpClient:
    client = clickhouse_connect.get_client(
        host="127.0.0.1", port=server.port, password=server.passwords["default"], database="loadtest", **options
    )
    assert isinstance(client, HttpClient)
    return client


def ask(http: httpx.Client, sql: str, **params: str) -> str:
    response = http.post("/", params=dict(http.params) | params, content=sql)
    assert response.status_code == 200, response.text
    return response.text


def refused(response: httpx.Response) -> tuple[int, int]:
    """Status and ClickHouse's number, which the text must name too."""
    code = int(response.headers["X-ClickHouse-Exception-Code"])
    assert response.text.startswith(f"Code: {code}. DB::Exception: ")
    return response.status_code, code


# the request


def test_ping(server: directory.Server) -> None:
    base = f"http://127.0.0.1:{server.port}"
    assert httpx.get(base + "/ping").text == "Ok.\n"
    assert httpx.get(base + "/").text == "Ok.\n"
    assert httpx.get(base + "/nowhere").status_code == 404
    assert httpx.put(base + "/").status_code == 405


def test_every_way_to_say_who_one_is(server: directory.Server) -> None:
    base, password = f"http://127.0.0.1:{server.port}/?query=SELECT+currentDatabase()", server.passwords["default"]
    for ok in (
        httpx.get(base, auth=("default", password)),
        httpx.get(base, headers={"X-ClickHouse-User": "default", "X-ClickHouse-Key": password}),
        httpx.get(base, headers={"X-ClickHouse-Key": password}),
        httpx.get(base + "&user=default&password=" + password),
    ):
        assert (ok.status_code, ok.text) == (200, "default\n")
    for bad in (
        httpx.get(base),
        httpx.get(base, auth=("default", "")),
        httpx.get(base, auth=("default", password + "x")),
        httpx.get(base, auth=("reader", password)),
        httpx.get(base, auth=("nobody", "")),
        httpx.get(base, headers={"Authorization": "Basic %%%"}),
        httpx.get(base, headers={"Authorization": f"Bearer {password}"}),
    ):
        assert refused(bad) == (403, 516)


def test_a_statement_in_url_body_or_form(http: httpx.Client) -> None:
    assert http.get("/", params={"query": "SELECT 1"}).text == "1\n"
    assert ask(http, " + 2", query="SELECT 1") == "3\n"
    form = {"query": (None, "SELECT {a:Array(String)} AS a"), "param_a": (None, "['x','y\\'z']")}
    assert http.post("/", files=form).text == "['x','y\\'z']\n"
    assert ask(http, "SELECT {s:String}, {n:Nullable(UInt8)}", param_s="a\\tb", param_n="\\N") == "a\\tb\t\\N\n"
    assert refused(http.post("/", content="SELECT {a:UInt8}")) == (400, 456)
    assert refused(http.post("/", content=b"SELECT '\xff'")) == (400, 62)


def test_format_database_and_settings(http: httpx.Client, server: directory.Server) -> None:
    response = http.post(
        "/", content="SELECT 1 AS x", params={"default_format": "JSONCompactEachRow", "query_id": "my-id"}
    )
    assert (response.text, response.headers["X-ClickHouse-Format"]) == ("[1]\n", "JSONCompactEachRow")
    assert response.headers["X-ClickHouse-Query-Id"] == "my-id"
    assert http.post("/", content="SELECT 1 AS x", headers={"X-ClickHouse-Format": "CSVWithNames"}).text == '"x"\n1\n'
    rows = json.loads(ask(http, "SELECT number AS n FROM numbers(2) FORMAT JSON"))["data"]
    assert rows == [{"n": 0}, {"n": 1}]
    assert ask(http, "SELECT getSetting('max_block_size')", max_block_size="123") == "123\n"
    assert ask(http, "SELECT currentDatabase()", database="system") == "system\n"
    base, key = f"http://127.0.0.1:{server.port}", {"X-ClickHouse-Key": server.passwords["default"]}
    response = httpx.post(base, content="SELECT currentDatabase()", headers=key | {"X-ClickHouse-Database": "system"})
    assert response.text == "system\n"
    assert refused(http.post("/", content="SELECT 1", params={"nonsense": "1"})) == (404, 115)
    assert refused(http.post("/", content="SELECT 1", params={"database": "nowhere"})) == (404, 81)


def test_refusals_have_clickhouse_status_and_number(http: httpx.Client) -> None:
    assert refused(http.post("/", content="SELEC 1")) == (400, 62)
    assert refused(http.post("/", content="nonsense")) == (400, 62)
    assert refused(http.post("/", content="SELECT nonsense")) == (404, 47)
    assert refused(http.post("/", content="SELECT * FROM nowhere")) == (404, 60)
    assert refused(http.post("/", content="SELECT 1; SELECT 2")) == (400, 62)
    assert refused(http.get("/", params={"query": "CREATE TABLE by_get (x Int8) ENGINE = Memory"})) == (403, 164)
    assert refused(http.post("/", content="x", headers={"Content-Encoding": "snappy"})) == (400, 475)
    assert refused(http.post("/", content="SELECT 1", params={"compress": "1"})) == (501, 48)


# inserts


@pytest.mark.parametrize("coding", ["", "lz4", "zstd", "gzip", "deflate"])
def test_an_insert_in_each_coding_and_several_frames(http: httpx.Client, coding: str) -> None:
    encode = {
        "": bytes,
        "lz4": lz4.frame.compress,
        "zstd": zstd.compress,
        "gzip": gzip.compress,
        "deflate": zlib.compress,
    }
    ask(http, "TRUNCATE TABLE pairs")
    frames = (b"INSERT INTO pairs FORMAT JSONEachRow\n", b'{"x":1,"s":"one"}\n', b'{"x":2,"s":"two"}\n')
    response = http.post("/", content=b"".join(map(encode[coding], frames)), headers={"Content-Encoding": coding})
    assert response.status_code == 200, response.text
    assert json.loads(response.headers["X-ClickHouse-Summary"])["written_rows"] == "2"
    assert ask(http, "SELECT * FROM pairs ORDER BY x") == "1\tone\n2\ttwo\n"


def test_inserts_as_people_write_them(http: httpx.Client) -> None:
    ask(http, "TRUNCATE TABLE pairs")
    ask(http, "INSERT INTO pairs VALUES (1, 'a;b'), (2, 'FORMAT CSV')")
    ask(http, "3,three\n", query="INSERT INTO pairs (x, s) FORMAT CSV")
    ask(http, "INSERT INTO pairs SELECT 4, 'four'")
    ask(http, "/* why */ insert into pairs (s, x) format TSV\nfive\t5\n")
    assert ask(http, "SELECT groupArray((x, s)) FROM (SELECT * FROM pairs ORDER BY x)") == (
        "[(1,'a;b'),(2,'FORMAT CSV'),(3,'three'),(4,'four'),(5,'five')]\n"
    )


def test_a_large_insert_is_read_as_it_comes(http: httpx.Client, server: directory.Server) -> None:
    """200 MB through a server that may not grow by as much; the engine itself gathers 256 MB unless told less."""

    def peak_bytes() -> int:
        lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

    block = b'{"s":"' + b"x" * 1_000_000 + b'"}\n'
    before = peak_bytes()
    response = http.post(
        "/",
        params={
            "query": "INSERT INTO FUNCTION null('s String') FORMAT JSONEachRow",
            "min_insert_block_size_bytes": "1000000",
            "min_insert_block_size_rows": "1",
        },
        content=(block for _ in range(200)),
    )
    assert response.status_code == 200, response.text
    assert peak_bytes() - before < 100_000_000


def test_an_insert_that_breaks_off_stores_nothing(http: httpx.Client, server: directory.Server) -> None:
    ask(http, "TRUNCATE TABLE pairs")
    head = "POST /?database=loadtest&query=INSERT+INTO+pairs+FORMAT+CSV HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as broken:
        broken.sendall(f"{head}X-ClickHouse-Key: {server.passwords['default']}\r\n\r\n1,one\n".encode())
    whole = lz4.frame.compress(b"2,two\n" * 100)
    cut = http.post(
        "/", params={"query": "INSERT INTO pairs FORMAT CSV"}, content=whole[:-4], headers={"Content-Encoding": "lz4"}
    )
    assert refused(cut) == (400, 33)
    bad = http.post("/", content='INSERT INTO pairs FORMAT JSONEachRow\n{"x":3}\n{"x":oops}')
    assert bad.status_code == 400
    until_idle(http)
    assert ask(http, "SELECT count() FROM pairs") == "0\n"


# results


def test_results_are_compressed_only_if_asked(http: httpx.Client) -> None:
    for accepted, coding in (("gzip, deflate", "gzip"), ("br, zstd", "zstd"), ("lz4,zstd", "lz4"), ("br", None)):
        for compress in ("0", "1"):
            params = {
                "enable_http_compression": compress,
                "query": "SELECT number FROM numbers(500000) FORMAT RowBinary",
            }
            with http.stream("GET", "/", params=params, headers={"Accept-Encoding": accepted}) as response:
                raw = b"".join(response.iter_raw())
            assert response.headers.get("Content-Encoding") == (coding if compress == "1" else None)
            decode = codings.decoder(response.headers.get("Content-Encoding", ""))
            plain = decode(raw)
            decode(b"")
            assert len(plain) == 4_000_000
            assert plain[-8:] == (499_999).to_bytes(8, "little")


def test_a_failure_before_the_first_byte_is_a_status_and_later_a_tagged_exception(http: httpx.Client) -> None:
    early = http.post("/", content="SELECT throwIf(1, 'early')")
    assert refused(early) == (500, 395)
    late = http.post("/", content="SELECT number, throwIf(number = 2000000, 'late') FROM numbers(3000000) FORMAT TSV")
    assert late.status_code == 200
    tag = late.headers["X-ClickHouse-Exception-Tag"]
    start, end = f"\r\n__exception__\r\n{tag}\r\n", f" {tag}\r\n__exception__\r\n"
    message, _, length = late.text.partition(start)[2].removesuffix(end).rpartition("\n")
    assert late.text.endswith(end)
    assert message.startswith("Code: 395. DB::Exception: late")
    assert int(length) == len(message) + 1


def test_the_formats_with_a_header_or_an_end_come_whole(http: httpx.Client) -> None:
    text = ask(http, "SELECT number FROM numbers(200000) FORMAT TabSeparatedWithNames")
    assert text.count("number") == 1
    assert json.loads(ask(http, "SELECT number FROM numbers(200000) FORMAT JSONCompact"))["rows"] == 200_000
    assert ask(http, "SHOW DATABASES LIKE 'loadt%'") == "loadtest\n"
    assert ask(http, "EXISTS TABLE nowhere") == "0\n"


def until_idle(http: httpx.Client) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while ask(http, "SELECT count() FROM system.processes") != "1\n":
        assert time.monotonic() < deadline, ask(http, "SELECT query, elapsed FROM system.processes")
        time.sleep(0.02)


@pytest.mark.parametrize("form", ["TSV", "JSON"])
def test_a_query_whose_client_has_gone_is_killed(http: httpx.Client, form: str) -> None:
    with pytest.raises(httpx.ReadTimeout):
        http.post("/", content=f"{SLOW} FORMAT {form}", timeout=0.2)
    until_idle(http)


def test_a_stream_whose_client_has_gone_is_killed(http: httpx.Client) -> None:
    with http.stream("POST", "/", content="SELECT * FROM numbers(1000000000000) FORMAT TSV") as response:
        next(response.iter_bytes())
    until_idle(http)


def test_slow_queries_do_not_stand_in_the_way(http: httpx.Client) -> None:
    def run_slow() -> None:
        http.post("/", content=SLOW, params=dict(http.params) | {"max_execution_time": "2"})

    slow = [threading.Thread(target=run_slow) for _ in range(4)]
    for thread in slow:
        thread.start()
    assert ask(http, "SELECT 1") == "1\n"
    assert any(thread.is_alive() for thread in slow), "it did not wait until they were done"
    for thread in slow:
        thread.join()


# sessions and clickhouse-connect


def test_a_session_keeps_what_its_statements_made_but_not_what_a_request_brought(http: httpx.Client) -> None:
    def within(sql: str, **params: str) -> str:
        return ask(http, sql, session_id="s1", **params)

    unknown = http.post("/", content="SELECT 1", params={"session_id": "s1", "session_check": "1"})
    assert refused(unknown) == (404, 372)
    within("CREATE TEMPORARY TABLE mine AS SELECT 42 AS x")
    within("SET max_block_size = 77")
    assert (
        within("SELECT x, getSetting('max_block_size'), getSetting('max_threads') FROM mine", max_threads="3")
        == "42\t77\t3\n"
    )
    assert within("SELECT getSetting('max_threads') != 3 FROM mine", session_check="1") == "1\n"
    assert refused(http.post("/", content="SELECT * FROM mine")) == (404, 60)


def test_a_session_is_one_request_at_a_time_and_ends(http: httpx.Client) -> None:
    params = {"session_id": "s2", "max_execution_time": "1"}
    slow = threading.Thread(target=lambda: http.post("/", content=SLOW, params=params))
    slow.start()
    deadline = time.monotonic() + DEADLINE_S
    while ask(http, "SELECT count() FROM system.processes") == "1\n":
        assert time.monotonic() < deadline
    assert refused(http.post("/", content="SELECT 1", params={"session_id": "s2"}))[1] == 373
    slow.join()
    ask(http, "CREATE TEMPORARY TABLE brief (x Int8)", session_id="s3", session_timeout="0")
    assert refused(http.post("/", content="SELECT 1", params={"session_id": "s3", "session_check": "1"})) == (404, 372)


def test_clickhouse_connect_in_its_less_common_ways(server: directory.Server) -> None:
    with connect(server, compress=True, form_encode_query_params=True) as client:  # with a session of its own
        client.command("CREATE TEMPORARY TABLE own (x UInt8)")
        client.insert("own", [[1], [2]], column_names=["x"])
        assert client.query("SELECT sum(x) FROM own WHERE x < {n:UInt8}", parameters={"n": 9}).result_rows == [(3,)]
        external = ExternalData(file_name="ext.csv", data=b"1,a\n2,b\n", fmt="CSV", structure="n UInt8, s String")
        rows = client.query(
            "SELECT * FROM ext WHERE n > {n:UInt8}", parameters={"n": 1}, external_data=external
        ).result_rows
        assert rows == [(2, "b")]
        with client.query_row_block_stream("SELECT number FROM numbers(300000)") as stream:
            assert sum(len(block) for block in stream) == 300_000
        with (
            pytest.raises(DatabaseError, match="late"),
            client.query_rows_stream("SELECT throwIf(number = 2000000, 'late') FROM numbers(3000000)") as stream,
        ):
            for _ in stream:
                pass
        assert client.query("SELECT 1 AS a, 'x' AS b LIMIT 0").column_names == ("a", "b")
        assert client.raw_query("SELECT 1", fmt="CSV") == b"1\n"
        assert client.ping()


def test_the_preflight_of_the_go_client(http: httpx.Client) -> None:
    response = http.post(
        "/",
        content="SELECT displayName(), version(), revision(), timezone()",
        params={"client_protocol_version": "54460"},
    )
    info, columns = response.content[:8], response.content[8:]
    assert info == b"\x01\x00\x02\xff\xff\xff\xff\x00"  # field 1: no overflow; field 2: bucket -1; end
    assert columns.startswith(b"\x04\x01\x0ddisplayName()\x06String\x00\x08loadtest\x09version()\x06String\x00")
    assert b"\x0arevision()\x06UInt32\x00\x00\x00\x00\x00\x0atimezone()\x06String\x00" in columns


# the reader


def test_a_reader_reads(reader: httpx.Client) -> None:
    assert ask(reader, "SELECT count() >= 0 FROM requests WHERE stage IN ('file', 'eval')") == "1\n"
    assert "requests" in ask(reader, "SHOW TABLES").split()
    assert ask(reader, "DESCRIBE TABLE loadtest.requests").startswith("ts\tDateTime64(9)")
    assert ask(reader, "DESC (SELECT 1 AS x, count() AS n)").startswith("x\tUInt8")
    assert ask(reader, "EXISTS TABLE requests") == "1\n"
    assert ask(reader, "EXPLAIN SELECT 1")
    assert (
        ask(reader, "WITH 1 AS x SELECT x", max_execution_time="5", output_format_json_quote_64bit_integers="1")
        == "1\n"
    )
    assert ask(reader, "SELECT {x:String}", param_x="a") == "a\n"


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO pairs VALUES (1, 'x')",
        "INSERT INTO pairs FORMAT CSV\n1,x",
        "CREATE TABLE nope (x Int8) ENGINE = Memory",
        "CREATE TEMPORARY TABLE nope (x Int8)",
        "DROP TABLE pairs",
        "ALTER TABLE pairs DELETE WHERE 1",
        "TRUNCATE TABLE pairs",
        "OPTIMIZE TABLE pairs",
        "SET max_threads = 9",
        "SET readonly = 0",
        "USE system",
        "SYSTEM FLUSH LOGS",
        "KILL QUERY WHERE 1",
        "SELECT 1 SETTINGS max_threads = 9",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1 INTO OUTFILE '/tmp/leak'",
        "SELECT 1; SELECT 2",
    ],
)
def test_a_reader_cannot_write(reader: httpx.Client, sql: str) -> None:
    assert reader.post("/", content=sql).status_code in (400, 403)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT file('/etc/hostname')",
        "SELECT arrayMap(file, ['/etc/hostname'])",
        "SELECT `file`('/etc/hostname')",
        "SELECT \"file\"('/etc/hostname')",
        "SELECT `\\x66ile`('/etc/hostname')",
        "SELECT FILE('/etc/hostname')",
        "SELECT “file”('/etc/hostname')",
        "SELECT /* /* */ ' */ */ file('/etc/hostname') /* ' */",
        "SELECT ‘'’, file('/etc/hostname'), ‘'’",
        "SELECT $x$'$x$, file('/etc/hostname'), $x$'$x$",
        "SELECT 1 -- '\n, file('/etc/hostname') --'",
        "SELECT {f:Identifier}('/etc/hostname')",
        "SELECT * FROM view(SELECT file('/etc/hostname'))",
        "EXPLAIN SYNTAX SELECT file('/etc/hostname')",
        "SELECT * FROM file('/etc/hostname', 'LineAsString')",
        "SELECT * FROM `/etc/hostname`",
        "SELECT * FROM default.`/etc/hostname`",
        "SELECT * FROM '/etc/hostname'",
        "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
        "SELECT * FROM remote('127.0.0.1:1', system.one)",
        "SELECT * FROM s3('http://127.0.0.1:1/bucket/key')",
        "SELECT * FROM executable('id', 'TSV', 'x String')",
        "SELECT * FROM sqlite('/etc/hostname', 'x')",
        "SELECT * FROM filesystem('/etc')",
        "SELECT * FROM Python(os)",
        "SELECT * FROM eval('SELECT 1')",
        "DESCRIBE TABLE url('http://127.0.0.1:1/x.csv')",
        "DESC s3('http://127.0.0.1:1/bucket/key')",
        "DESC TABLE '/etc/hostname'",
        "SELECT * FROM (DESCRIBE TABLE url('http://127.0.0.1:1/x.csv'))",
        "EXISTS `/etc/passwd`",
        "SELECT aiGenerate('x')",
        "SELECT addressToLine(0)",
    ],
)
def test_a_reader_cannot_leave(reader: httpx.Client, sql: str) -> None:
    begun = time.monotonic()
    response = reader.post("/", content=sql, params={"param_f": "file"})
    assert response.status_code in (400, 403, 404, 500), response.text
    assert "X-ClickHouse-Exception-Code" in response.headers
    assert time.monotonic() - begun < 20  # it was refused, not tried
    assert socket.gethostname() not in response.text


def test_a_reader_sets_bounds_and_looks_only(reader: httpx.Client) -> None:
    for name in ("readonly", "max_threads", "allow_experimental_eval_table_function", "user_files_path"):
        assert refused(reader.post("/", content="SELECT 1", params={name: "0"})) == (403, 164)
    assert refused(reader.post("/", content="SELECT 1", params={"session_id": "r1", "readonly": "0"})) == (403, 164)
    structure = {"x_structure": "a String DEFAULT file('/etc/hostname')", "query": "SELECT * FROM x"}
    assert refused(reader.post("/", params=structure, files={"x": ("x", b"")})) == (403, 497)
    assert ask(reader, "SELECT 1", session_id="r1") == "1\n"
    assert ask(reader, "SELECT 2", session_id="r1") == "2\n"


def test_every_function_that_calls_out_is_known(http: httpx.Client) -> None:
    names = ask(
        http, "SELECT name FROM system.functions WHERE name ILIKE 'ai%' OR name IN ('file', 'catboostEvaluate')"
    ).split()
    assert "file" in names
    for name in names:
        with pytest.raises(Failure):
            access.check_reader(f"SELECT {name}('x')", {}, only_reads=True)


# pieces


def test_a_form_is_split_into_fields_and_files() -> None:
    boundary = forms.boundary('multipart/form-data; boundary="a b"')
    assert boundary == b"a b"
    assert forms.boundary("application/x-www-form-urlencoded") is None
    body = (
        b'--a b\r\nContent-Disposition: form-data; name="query"\r\n\r\nSELECT\r\n1\r\n'
        b'--a b\r\nContent-Disposition: form-data; name="t"; filename="t"\r\nContent-Type: x/y\r\n\r\n\x00\r\n\r\n--a\xff\r\n'
        b"--a b--\r\n"
    )
    assert forms.parse(body, boundary) == ({"query": "SELECT\r\n1"}, {"t": b"\x00\r\n\r\n--a\xff"})
    with pytest.raises(Failure, match="has no end"):
        forms.parse(body[:-10], boundary)


@pytest.mark.parametrize("coding", ["lz4", "zstd", "gzip", "deflate"])
def test_a_coded_body_is_decoded_at_every_cut(coding: str) -> None:
    encode = {"lz4": lz4.frame.compress, "zstd": zstd.compress, "gzip": gzip.compress, "deflate": zlib.compress}[coding]
    coded = encode(b"one") + encode(b"two")
    for cut in range(len(coded) + 1):
        decode = codings.decoder(coding)
        assert decode(coded[:cut]) + decode(coded[cut:]) == b"onetwo"
        assert decode(b"") == b""
    decode = codings.decoder(coding)
    decode(coded[:-1])
    with pytest.raises(Failure, match="in the middle of a frame"):
        decode(b"")
    with pytest.raises(Failure, match=f"not {coding}"):
        codings.decoder(coding)(b"plain text, and long enough to be sure of it")
