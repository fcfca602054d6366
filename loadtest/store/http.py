"""The ClickHouse HTTP interface over chDB: as much of it as clickhouse-connect and the Go client (Grafana) speak.

Statements and parameters come in the URL, the body or a form; inserts are read as they arrive, in bounded memory;
results are streamed unless the client asks for `wait_end_of_query`; a failure after the first byte travels as a tagged
exception at the end of the body. A query whose client is gone is killed.
"""

import json
import secrets
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import anyio
from anyio import from_thread, to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from loadtest.store import access, codings, forms, sql
from loadtest.store.engine import SETTINGS, Answer, Connection, Engine, Failure, failure, identifier

DISPLAY_NAME = "loadtest"
THREADS = 32
STATEMENT_BYTES = 64 << 20  # what is not an insert with data is held in memory
STREAMED_FORMATS = {"Native", "TabSeparated", "TSV", "CSV", "RowBinary", "JSONEachRow"}
SESSION_S = 60
LONGEST_SESSION_S = 3600
KILL_AGAIN_S = 0.2
TRANSPORT = {
    "query", "database", "query_id", "session_id", "session_timeout", "session_check", "user", "password", "quota_key",
    "compress", "decompress", "wait_end_of_query", "client_protocol_version", "role", "default_format", "buffer_size",
    "send_progress_in_http_headers", "http_headers_progress_interval_ms", "enable_http_compression", "close_session",
    "cancel_http_readonly_queries_on_client_close", "stacktrace",
}  # fmt: skip
"""Parameters that speak to the interface; param_NAME is a value for {NAME:Type}; every other one is a setting."""

STATUS_OF = {
    **dict.fromkeys((60, 81, 46, 47, 50, 56, 73, 115, 372), 404),
    **dict.fromkeys((6, 26, 27, 33, 36, 38, 41, 42, 43, 53, 62, 69, 130, 432, 456, 457, 475), 400),
    **dict.fromkeys((164, 192, 193, 497, 516), 403),
    48: 501,
    159: 408,
    223: 413,
}
GO_PREFLIGHT = "SELECT displayName(), version(), revision(), timezone()"
GO_REVISION = 54454  # from here on the Go client frames Native blocks; below it, it asks nothing

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """One request, read: who asks, with which parameters."""

    user: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    method: str
    uploads: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def reader(self) -> bool:
        return self.user == access.READER

    @property
    def database(self) -> str:
        return self.params.get("database") or self.headers.get("x-clickhouse-database") or "default"

    @property
    def default_format(self) -> str:
        return self.params.get("default_format") or self.headers.get("x-clickhouse-format") or "TabSeparated"

    @property
    def bound(self) -> dict[str, str]:
        return {name.removeprefix("param_"): value for name, value in self.params.items() if name.startswith("param_")}

    @property
    def settings(self) -> dict[str, str]:
        of_uploads = {f"{name}_{what}" for name in self.uploads for what in ("format", "types", "structure")}
        return {
            name: value
            for name, value in self.params.items()
            if name not in TRANSPORT and name not in of_uploads and not name.startswith("param_")
        }

    @property
    def accepted_codings(self) -> str:
        wanted = self.params.get("enable_http_compression") in ("1", "true")
        return self.headers.get("accept-encoding", "") if wanted else ""


class Session(NamedTuple):
    connection: Connection
    busy: threading.Lock
    expires_s: float


class Insert(NamedTuple):
    head: sql.InsertHead
    first: bytes


class Interface:
    """The ASGI application. `busy` counts the requests being served."""

    def __init__(self, engine: Engine, passwords: Mapping[str, str]) -> None:
        self.busy = 0
        self._engine = engine
        self._passwords = passwords
        self._sessions: dict[tuple[str, str], Session] = {}
        self._sessions_lock = threading.Lock()
        self._threads = anyio.CapacityLimiter(THREADS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self.busy += 1
        try:
            response = await self._route(request, send)
            if response:
                await response(scope, receive, send)
        except ClientDisconnect:
            pass  # an insert that broke off: nothing of it is stored, and nobody waits for an answer
        finally:
            self.busy -= 1

    async def _route(self, request: Request, send: Send) -> Response | None:
        if request.url.path in ("/ping", "/replicas_status"):
            return PlainTextResponse("Ok.\n")
        if request.url.path != "/":
            return PlainTextResponse("There is no handle " + request.url.path + "\n", 404)
        if request.method not in ("GET", "POST"):
            return PlainTextResponse("use GET or POST\n", 405)
        if request.method == "GET" and "query" not in request.query_params:
            return PlainTextResponse("Ok.\n")
        try:
            return await self._answer(request, send)
        except Failure as error:
            return _refusal(error)

    async def _answer(self, request: Request, send: Send) -> Response | None:
        params = dict(request.query_params)
        user = access.authenticate(request.headers, params, self._passwords)
        uploads: dict[str, bytes] = {}
        body = _decoded(request)
        if boundary := forms.boundary(request.headers.get("content-type", "")):
            fields, uploads = forms.parse(await _whole(body, b""), boundary)
            params |= fields
        if "1" in (params.get("compress"), params.get("decompress")):
            text = "compress=1 and decompress=1 are not served here; use Accept-Encoding and Content-Encoding"
            raise failure(48, "NOT_IMPLEMENTED", text)
        call = Call(user, params, request.headers, request.method, uploads)
        statement = await _read_statement(call, body)
        if isinstance(statement, Insert):
            return await self._in_thread(lambda: self._insert(call, statement, body))
        if statement.strip() == GO_PREFLIGHT and _number(params, "client_protocol_version", 0) >= GO_REVISION:
            return Response(_hello(self._engine), headers={"X-ClickHouse-Format": "Native"})
        return await self._query(call, statement, request.receive, send)

    def _insert(self, call: Call, insert: Insert, body: AsyncIterator[bytes]) -> Response:
        if call.reader or call.method == "GET":
            raise failure(164, "READONLY", f"{call.user}: Cannot execute query in readonly mode")

        def chunks() -> Iterator[bytes]:
            yield insert.first
            while piece := from_thread.run(anext, body, b""):
                yield piece

        self._engine.check_room()
        with self._connected(call) as connection:
            rows = connection.insert(insert.head.statement, insert.head.format, chunks())
        return Response(headers=self._headers(call) | _summary(written_rows=rows))

    async def _query(self, call: Call, statement: str, receive: Receive, send: Send) -> Response | None:
        tag = f"/* {uuid.uuid4().hex} */"
        response: Response | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._kill_when_gone, receive, tag)
            try:
                response = await self._run(call, statement, tag, send)
            except Failure as error:
                response = _refusal(error)
            group.cancel_scope.cancel()
        return response

    async def _kill_when_gone(self, receive: Receive, tag: str) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        while True:  # until the query has ended and the task with it: it may not have begun yet
            await to_thread.run_sync(self._engine.kill, tag)  # not one of our threads: those may all be busy
            await anyio.sleep(KILL_AGAIN_S)

    async def _run(self, call: Call, statement: str, tag: str, send: Send) -> Response | None:
        form = sql.output_format(statement) or call.default_format
        coding, encode = codings.encoder(call.accepted_codings)
        headers = self._headers(call) | _summary() | {"X-ClickHouse-Format": form}
        if coding:
            headers["Content-Encoding"] = coding
        pieces = self._pieces(call, statement, tag, form, headers)

        def next_piece() -> bytes | None:
            piece = next(pieces, None)
            return encode(piece) if piece else None

        try:
            # two pieces in one go: most results have no second, and are answered whole, failures as a status
            first, second = await self._in_thread(lambda: (next_piece(), next_piece()))
            if second is None:
                return Response(first or b"", headers=headers)
            await _stream(first or b"", second, lambda: self._in_thread(next_piece), encode, headers, send)
            return None
        finally:
            pieces.close()

    def _pieces(
        self, call: Call, statement: str, tag: str, form: str, headers: dict[str, str]
    ) -> Generator[bytes, None, None]:
        """The result, whole or block by block. The connection is released with the last of it."""
        with self._connected(call) as connection:
            reads = _permitted(call, statement, connection)
            text = f"{statement}\n{tag}" if reads else statement
            if form in STREAMED_FORMATS and sql.is_select(statement) and call.params.get("wait_end_of_query") != "1":
                yield from connection.stream(text, form, call.bound)
            else:
                answer = connection.query(text, form, call.bound)
                headers |= _summary_of(answer)
                yield answer.body

    @contextmanager
    def _connected(self, call: Call) -> Iterator[Connection]:
        """A connection as the call wants it, its own or that of its session."""
        if call.reader:
            access.check_reader_call(call.settings, call.uploads)
        in_session = "session_id" in call.params
        with self._session(call) if in_session else self._engine.connect(call.settings) as connection:
            connection.use(call.database)
            if in_session:
                connection.set(call.settings)
            for name, data in call.uploads.items():
                _load(connection, name, data, call.params)
            if call.reader:
                connection.set({"readonly": "1"})
            try:
                yield connection
            finally:
                if in_session:
                    _undo(connection, call)

    @contextmanager
    def _session(self, call: Call) -> Iterator[Connection]:
        key = (call.user, call.params["session_id"])
        session = self._claim_session(key, must_exist=call.params.get("session_check") == "1")
        try:
            yield session.connection
        finally:
            lasts_s = min(_number(call.params, "session_timeout", SESSION_S), LONGEST_SESSION_S)
            self._sessions[key] = session._replace(expires_s=time.monotonic() + lasts_s)
            session.busy.release()

    def _claim_session(self, key: tuple[str, str], must_exist: bool) -> Session:
        with self._sessions_lock:
            self._expire_sessions()
            session = self._sessions.get(key)
            if session is None:
                if must_exist:
                    raise failure(372, "SESSION_NOT_FOUND", f"Session {key[1]} not found")
                session = self._sessions[key] = Session(self._engine.connect({}), threading.Lock(), 0)
            if not session.busy.acquire(blocking=False):
                raise failure(373, "SESSION_IS_LOCKED", f"Session {key[1]} is locked by a concurrent client")
            return session

    def _expire_sessions(self) -> None:
        now = time.monotonic()
        for key, session in list(self._sessions.items()):
            if session.expires_s < now and session.busy.acquire(blocking=False):
                del self._sessions[key]
                session.connection.close()

    def _headers(self, call: Call) -> dict[str, str]:
        return {
            "X-ClickHouse-Query-Id": call.params.get("query_id") or str(uuid.uuid4()),
            "X-ClickHouse-Server-Display-Name": DISPLAY_NAME,
            "X-ClickHouse-Timezone": self._engine.timezone,
        }

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await to_thread.run_sync(work, limiter=self._threads)


async def _decoded(request: Request) -> AsyncIterator[bytes]:
    decode = codings.decoder(request.headers.get("content-encoding", ""))
    async for piece in request.stream():
        if plain := decode(piece) if piece else b"":
            yield plain
    decode(b"")


async def _read_statement(call: Call, body: AsyncIterator[bytes]) -> str | Insert:
    """The statement; of an insert with data only the beginning has been read.

    Searched as latin-1, in which a character is a byte, so that positions hold for the data behind.
    """
    given = call.params.get("query", "")
    read = (given + "\n").encode() if given else b""
    head = sql.insert_head(read.decode("latin-1"), complete=bool(given))
    while head == "more" and (piece := await anext(body, b"")):
        read += piece
        head = sql.insert_head(read.decode("latin-1"), complete=False)
    if head == "more":
        head = sql.insert_head(read.decode("latin-1"), complete=True)
    try:
        if isinstance(head, sql.InsertHead):
            statement = head.statement.encode("latin-1").decode()
            return Insert(head._replace(statement=statement), read[head.data_start :])
        return (await _whole(body, read)).decode()
    except UnicodeDecodeError as error:
        raise failure(62, "SYNTAX_ERROR", f"the statement is not UTF-8: {error}") from None


async def _whole(body: AsyncIterator[bytes], begun: bytes) -> bytes:
    pieces, size = [begun], len(begun)
    async for piece in body:
        pieces.append(piece)
        size += len(piece)
        if size > STATEMENT_BYTES:
            raise failure(223, "QUERY_IS_TOO_LARGE", f"the statement exceeds {STATEMENT_BYTES} bytes")
    return b"".join(pieces)


def _permitted(call: Call, statement: str, connection: Connection) -> bool:
    """Whether the statement only reads; raises where it is not for this user or this method."""
    reads, count = connection.only_reads(statement)
    if count > 1:
        raise failure(62, "SYNTAX_ERROR", "Multi-statements are not allowed")
    if call.reader and count == 0 and not access.means_to_change(statement):  # a typo is told as one, not as forbidden
        connection.check_syntax(statement)
    if call.reader:
        access.check_reader(statement, call.bound, reads)
    elif call.method == "GET" and not reads:
        raise failure(164, "READONLY", "Cannot execute query in readonly mode: a GET request only reads, use POST")
    return reads


def _load(connection: Connection, name: str, data: bytes, params: Mapping[str, str]) -> None:
    """External data: a table for the length of one query."""
    structure = params.get(f"{name}_structure")
    if not structure:
        types = params.get(f"{name}_types", "").split(",")
        structure = ", ".join(f"_{i} {of_type}" for i, of_type in enumerate(types, 1))
    table = identifier(name)
    connection.run(f"CREATE TEMPORARY TABLE {table} ({structure})")
    connection.insert(f"INSERT INTO {table}", params.get(f"{name}_format", "TabSeparated"), [data])


def _undo(connection: Connection, call: Call) -> None:
    """A session keeps what its own statements SET and made, not what came with one request."""
    if call.reader:
        return  # a reader's connection stays readonly, which also means that nothing of it can be undone
    connection.set({name: SETTINGS.get(name) for name in call.settings})
    for name in call.uploads:
        connection.run(f"DROP TEMPORARY TABLE IF EXISTS {identifier(name)}")


def _number(params: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(params.get(name, default))
    except ValueError:
        raise failure(27, "CANNOT_PARSE_INPUT_ASSERTION_FAILED", f"{name} must be a number") from None


async def _stream(
    first: bytes,
    second: bytes,
    next_piece: Callable[[], Awaitable[bytes | None]],
    encode: Callable[[bytes], bytes],
    headers: Mapping[str, str],
    send: Send,
) -> None:
    exception_tag = secrets.token_hex(8)
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    raw.append((b"x-clickhouse-exception-tag", exception_tag.encode()))
    await send({"type": "http.response.start", "status": 200, "headers": raw})
    await send({"type": "http.response.body", "body": first, "more_body": True})
    piece: bytes | None = second
    try:
        while piece:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            piece = await next_piece()
    except Failure as error:
        piece = encode(_tagged(error, exception_tag))
    await send({"type": "http.response.body", "body": piece or b""})


def _refusal(error: Failure) -> Response:
    headers = {"X-ClickHouse-Exception-Code": str(error.code)}
    return PlainTextResponse(error.text + "\n", STATUS_OF.get(error.code, 500), headers)


def _tagged(error: Failure, tag: str) -> bytes:
    """How a failure travels in a body whose status was 200 (ClickHouse 25.11 and later)."""
    message = error.text.encode() + b"\n"
    name = tag.encode()
    return b"\r\n__exception__\r\n%s\r\n%s%d %s\r\n__exception__\r\n" % (name, message, len(message), name)


def _summary(
    read_rows: int = 0, read_bytes: int = 0, written_rows: int = 0, result_rows: int = 0, elapsed_ns: int = 0
) -> dict[str, str]:
    facts = {
        "read_rows": read_rows,
        "read_bytes": read_bytes,
        "written_rows": written_rows,
        "written_bytes": 0,
        "total_rows_to_read": 0,
        "result_rows": result_rows,
        "result_bytes": 0,
        "elapsed_ns": elapsed_ns,
    }
    return {"X-ClickHouse-Summary": json.dumps({name: str(value) for name, value in facts.items()})}


def _summary_of(answer: Answer) -> dict[str, str]:
    return _summary(answer.read_rows, answer.read_bytes, 0, answer.rows, answer.elapsed_ns)


def _hello(engine: Engine) -> bytes:
    """What the Go client asks first. It decodes this block at its own protocol revision and everything after it at the
    revision we report; chDB writes Native at revision 0, so 0 is what we report."""

    def column(name: str, kind: str, value: bytes) -> bytes:
        return text(name) + text(kind) + b"\0" + value

    def text(value: str) -> bytes:
        return bytes([len(value)]) + value.encode()

    block_info = b"\x01\x00\x02\xff\xff\xff\xff\x00"
    return (
        block_info
        + b"\x04\x01"
        + column("displayName()", "String", text(DISPLAY_NAME))
        + column("version()", "String", text(engine.version))
        + column("revision()", "UInt32", bytes(4))
        + column("timezone()", "String", text(engine.timezone))
    )
