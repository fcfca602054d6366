"""Who may do what at the embedded server: `default` anything, `reader` (dashboards) only read, and only what is stored.

The engine's parser says whether a statement only reads, and its `readonly` setting refuses every table function that
leaves the store (url, file, s3, remote ...). Neither covers all of it: `file('/etc/passwd')` is also a scalar function,
the ai* functions call out, and DESCRIBE runs a table function to learn its columns. Those are refused here, by name.
"""

import base64
import binascii
import re
import secrets
from collections.abc import Collection, Iterable, Mapping
from itertools import islice

from loadtest.store import sql
from loadtest.store.engine import Failure, failure

DEFAULT = "default"
READER = "reader"

READER_SETTINGS = re.compile(
    r"max_execution_time|max_result_rows|max_result_bytes|max_rows_to_read|max_bytes_to_read|max_block_size"
    r"|result_overflow_mode|read_overflow_mode|timeout_overflow_mode|max_memory_usage|extremes|join_use_nulls"
    r"|session_timezone|date_time_output_format|output_format_\w+|format_\w+delimiter|prefer_column_name_to_alias"
)
"""What a reader may set: bounds on his own queries and how results look."""

_CHANGES = {
    "ALTER", "ATTACH", "BACKUP", "BEGIN", "COMMIT", "COPY", "CREATE", "DELETE", "DETACH", "DROP", "EXCHANGE", "EXECUTE",
    "GRANT", "INSERT", "KILL", "MOVE", "OPTIMIZE", "RENAME", "REPLACE", "RESTORE", "REVOKE", "ROLLBACK", "SET", "SNAPSHOT",
    "START", "SYSTEM", "TRUNCATE", "UNDROP", "UPDATE", "USE",
}  # fmt: skip
_LEAVES = re.compile(
    r"file|eval|catboostevaluate|ai(classify|embed|extract|filter|generate|redact|similarity|translate)\w*", re.I
)


def authenticate(headers: Mapping[str, str], params: Mapping[str, str], passwords: Mapping[str, str]) -> str:
    """The user that a request comes from. As ClickHouse has it: headers, Basic authorization, or parameters."""
    user, password = _credentials(headers, params)
    known = passwords.get(user, "")
    if not secrets.compare_digest(password.encode(), known.encode()) or not known:
        text = f"{user}: Authentication failed: password is incorrect, or there is no user with such name"
        raise failure(516, "AUTHENTICATION_FAILED", text)
    return user


def _credentials(headers: Mapping[str, str], params: Mapping[str, str]) -> tuple[str, str]:
    if "x-clickhouse-key" in headers or "x-clickhouse-user" in headers:
        return headers.get("x-clickhouse-user", DEFAULT), headers.get("x-clickhouse-key", "")
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "basic":
        try:
            user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return "", ""
        return user or DEFAULT, password
    return params.get("user", DEFAULT), params.get("password", "")


def means_to_change(text: str) -> bool:
    """By its first word, whether or not the rest can be parsed."""
    return any(token.text.upper() in _CHANGES for token in islice(sql.code(text), 1))


def check_reader(text: str, params: Mapping[str, str], only_reads: bool) -> None:
    """Raise unless a reader may run `text` under readonly = 1."""
    if not only_reads:
        raise _denied("may only read: SELECT, SHOW, DESCRIBE, EXISTS, EXPLAIN")
    found = list(sql.code(text))
    for token in found:
        name = token.text.strip('`"“”') if token.kind == "quoted" else token.text
        if token.kind == "quoted" and "\\" in name:
            raise _denied("may not use a backslash in a name")
        if token.kind in ("word", "quoted") and _LEAVES.fullmatch(name):
            raise _denied(f"may not use {name}")
    for value in params.values():
        if _LEAVES.fullmatch(value):
            raise _denied(f"may not use {value}")
    _check_describe(found)


def _check_describe(found: list[sql.Token]) -> None:
    """DESCRIBE and EXISTS of a stored table, or of a query, which `readonly` guards; not of a function or a file."""
    words = [token.text.upper() for token in found]
    if words[0] not in ("DESC", "DESCRIBE", "EXISTS"):
        return
    rest = words[2:] if words[1:2] == ["TABLE"] else words[1:]
    if rest[:1] == ["("]:
        return
    if "(" in rest or any("/" in word for word in rest) or any(token.kind == "string" for token in found):
        raise _denied(f"may {words[0]} stored tables only")


def check_reader_call(settings: Iterable[str], uploads: Collection[str]) -> None:
    """Raise unless a reader may send what came with a statement. External data names columns, which are expressions."""
    if uploads:
        raise _denied("may not send external data")
    for name in settings:
        if not READER_SETTINGS.fullmatch(name):
            raise failure(164, "READONLY", f"Cannot modify '{name}' setting in readonly mode")


def _denied(what: str) -> Failure:
    return failure(497, "ACCESS_DENIED", f"{READER} {what}")
