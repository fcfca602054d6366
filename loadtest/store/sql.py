"""ClickHouse's lexical rules, as far as splitting and inspecting statements needs them.

Strings, quoted identifiers, here-documents and comments (which nest) are each one token, so that a semicolon or a word
inside them is never mistaken for SQL. Follows ClickHouse's own lexer (src/Parsers/Lexer.cpp), also in its typographic
quotes.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

Kind = Literal["space", "comment", "string", "quoted", "word", "other"]


class Token(NamedTuple):
    kind: Kind
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<comment>(?:--|//|\#[ !])[^\n]*|/\*)
      | (?P<string>'(?:[^'\\]|\\.|'')*'|‘[^’]*’|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
      | (?P<quoted>`(?:[^`\\]|\\.|``)*`|"(?:[^"\\]|\\.|"")*"|“[^”]*”)
      | (?P<word>[A-Za-z_][A-Za-z0-9_$]*)
      | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")


def tokens(sql: str) -> Iterator[Token]:
    """Every character of `sql` in one token or another, in order, lazily."""
    at = 0
    while match := _TOKEN.match(sql, at):
        kind = match.lastgroup if match.lastgroup != "tag" else "string"
        end = _end_of_comment(sql, at) if match.group() == "/*" else match.end()
        yield Token(kind, sql[at:end], at)  # type: ignore[arg-type]
        at = end


def _end_of_comment(sql: str, at: int) -> int:
    depth = 0
    for edge in _COMMENT_EDGE.finditer(sql, at):
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(sql)


def code(sql: str) -> Iterator[Token]:
    """The tokens that are neither space nor comment."""
    return (token for token in tokens(sql) if token.kind not in ("space", "comment"))


def statements(script: str) -> list[str]:
    """The statements of a script, without their semicolons; what holds only comments is none."""
    out = []
    start, seen = 0, False
    for token in tokens(script):
        if token.kind == "other" and token.text == ";":
            if seen:
                out.append(script[start : token.start].strip())
            start, seen = token.end, False
        elif token.kind not in ("space", "comment"):
            seen = True
    return [*out, script[start:].strip()] if seen else out


def output_format(sql: str) -> str | None:
    """The name in the FORMAT clause that ends a query, if there is one."""
    found = [token for token in code(sql) if token.text != ";"]
    words = [token.text.upper() if token.kind == "word" else "" for token in found]
    end = len(words)
    if "SETTINGS" in words:
        end = len(words) - 1 - words[::-1].index("SETTINGS")
    for stop in {end, len(words)}:
        if stop >= 3 and words[stop - 2] == "FORMAT" and words[stop - 1]:
            return found[stop - 1].text
    return None


def is_select(sql: str) -> bool:
    """Whether a statement is a query proper, not SHOW, DESCRIBE, EXPLAIN and the like."""
    first = next((token.text.upper() for token in code(sql) if token.text != "("), "")
    return first in ("SELECT", "WITH", "FROM")


class InsertHead(NamedTuple):
    """`INSERT INTO ... FORMAT name` and where the data behind it begins."""

    statement: str
    format: str
    data_start: int


_BEFORE_DATA = re.compile(r"[ \t]*(?:\r?\n)?")


def insert_head(sql: str, complete: bool) -> InsertHead | Literal["more", "none"]:
    """Split an insert with inline data from its data; "more" while the text so far cannot tell.

    Only `INSERT ... FORMAT name` has such data; VALUES and SELECT are "none", as is any other statement.
    """
    first = True
    after_format: Token | None = None
    for token in code(sql):
        if token.end == len(sql) and not complete:
            return "more"
        word = token.text.upper() if token.kind == "word" else ""
        if first and word != "INSERT":
            return "none"
        first = False
        if after_format and word:
            data = _BEFORE_DATA.match(sql, token.end)
            assert data
            return InsertHead(sql[: after_format.start], token.text, data.end())
        if word in ("VALUES", "SELECT", "WITH"):
            return "none"
        after_format = token if word == "FORMAT" else None
    return "none" if complete else "more"
